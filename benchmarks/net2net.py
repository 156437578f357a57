"""Wider networks that predict what a shipped one does, to measure widths that are not shipped."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from model import checkpoint
from model.networks.build import build
from model.networks.generator import ResnetGenerator
from model.routing import CheckpointFile, Routing, routes_to

SHIPPED = Path(__file__).resolve().parents[1] / "resources"
CHECKPOINT = "pix2pix_bf.safetensors"
NOISE = 0.1
"""Relative; without it the repeated channels would round alike and flatter a 16-bit format."""


def net2net_widen(network: ResnetGenerator, width: int) -> ResnetGenerator:
    """Repeat channels until there are `width`, dividing what they give by their number: the same function.

    After Chen et al., "Net2Net" (ICLR 2016). Every weight is then changed by a tenth, at random but seeded.
    """
    wide = build(replace(network.architecture, width=width)).eval()
    assert isinstance(wide, ResnetGenerator)
    narrow, generator = network.state_dict(), torch.Generator().manual_seed(0)
    tensors = {}
    for name, tensor in wide.state_dict().items():
        inputs = 0 if ".up." in name else 1  # the axis of the input channels; transposed convolutions have it first
        repeated = _repeat(narrow[name], tensor.shape, inputs)
        tensors[name] = repeated * (1 + NOISE * torch.randn(tensor.shape, generator=generator))
    wide.load_state_dict(tensors)
    return wide


def _repeat(tensor: Tensor, shape: torch.Size, inputs: int) -> Tensor:
    for axis, (length, wanted) in enumerate(zip(tensor.shape, shape, strict=True)):
        index = torch.arange(wanted) % length
        tensor = tensor.index_select(axis, index)
        if axis == inputs:
            share = 1 / torch.bincount(index, minlength=length)[index]
            tensor = tensor * share.view([-1 if a == axis else 1 for a in range(tensor.ndim)])
    return tensor


def resources_of_width(width: int, folder: Path) -> Path:
    """Write resources of one network: the shipped one for bright field, widened, which predicts everything."""
    network, metadata = checkpoint.load(SHIPPED / CHECKPOINT)
    assert isinstance(network, ResnetGenerator)
    wide = net2net_widen(network, width)
    folder.mkdir(parents=True)
    file = folder / CHECKPOINT
    checkpoint.save(file, wide, replace(metadata, architecture=wide.architecture))
    Routing({"pix2pix-bf": CheckpointFile.of(file)}, routes_to("pix2pix-bf")).write(folder)
    return folder
