"""Build the network of an architecture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

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


def rebuild(network: Network, weights: Mapping[str, Tensor] | None = None, **changes: Any) -> Network:
    """Build a network in eval mode whose architecture differs by `changes`, with the weights of `network`.

    `weights` are added to these, or replace them.
    """
    new = build(replace(network.architecture, **changes)).eval()
    new.load_state_dict(network.state_dict() | dict(weights or {}))
    return new
