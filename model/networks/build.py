"""Build the network of an architecture."""

from .architecture import Architecture, NetworkName
from .generator import ResnetGenerator
from .unetplusplus import UNetPlusPlus

Network = ResnetGenerator | UNetPlusPlus

NETWORKS: dict[NetworkName, type[ResnetGenerator] | type[UNetPlusPlus]] = {
    "resnet": ResnetGenerator,
    "unetplusplus": UNetPlusPlus,
}


def build(architecture: Architecture) -> Network:
    """Build a network with fresh weights, drawn from torch's global generator."""
    return NETWORKS[architecture.network](architecture)
