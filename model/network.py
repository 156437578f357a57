"""From an architecture to the network it describes."""

from model.architecture import Architecture, NetworkName
from model.generator import ResnetGenerator
from model.unetplusplus import UNetPlusPlus

Network = ResnetGenerator | UNetPlusPlus

NETWORKS: dict[NetworkName, type[ResnetGenerator] | type[UNetPlusPlus]] = {
    "resnet": ResnetGenerator,
    "unetplusplus": UNetPlusPlus,
}


def build(architecture: Architecture) -> Network:
    """A network of this architecture with fresh weights, drawn from torch's global generator."""
    return NETWORKS[architecture.network](architecture)
