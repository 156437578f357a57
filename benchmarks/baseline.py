"""The way the challenge's system was published: the baseline that our prediction is measured against.

float32, eager, every decoder, torch's own instance normalisation and convolution to a single plane; MONAI's
sliding window of 512 px, overlap 0.8, Gaussian blend, four tiles a batch; four rotations; the model is loaded
anew for each image. Rotations turn the image plane, as they were meant to (docs/method.md).
"""

import copy
from pathlib import Path

import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn
from torch.nn import functional as F

from model.checkpoint import load
from model.networks.layers import InstanceNorm, ReflectConv2d, SinglePlaneConv2d

WINDOW, OVERLAP, TILE_BATCH, ROTATIONS = 512, 0.8, 4, 4


class PlainNorm(nn.Module):
    """What torch's InstanceNorm2d without parameters computes."""

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return F.instance_norm(x_BCYX)


class PlainConv2d(nn.Conv2d):
    """Reflected borders by torch's own means, whatever the number of output channels; a modality code is ignored."""

    def forward(self, x_BCYX: Tensor, *_: object) -> Tensor:
        return F.conv2d(F.pad(x_BCYX, (self.kernel_size[0] // 2,) * 4, mode="reflect"), self.weight, self.bias)


def as_published(network: nn.Module) -> nn.Module:
    """The same weights in the published layers and in torch's default layout."""
    plain: nn.Module = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(parent, name, PlainNorm())
            elif isinstance(child, ReflectConv2d | SinglePlaneConv2d):
                size = child.kernel_size[0]
                conv = PlainConv2d(child.in_channels, child.out_channels, size, bias=child.bias is not None)
                conv.load_state_dict(child.state_dict())
                setattr(parent, name, conv)
    return plain


def predict_published(checkpoint: Path, image_1YX: Tensor, rotations: int = ROTATIONS) -> Tensor:
    """All four organelles (4, Y, X) of a scaled image (1, Y, X), its model loaded for it alone."""
    network, _ = load(checkpoint, device=image_1YX.device)
    plain = as_published(network)
    window = SlidingWindowInferer((WINDOW, WINDOW), TILE_BATCH, OVERLAP, mode="gaussian")
    total = torch.zeros(4, *image_1YX.shape[1:])
    with torch.inference_mode():
        for turns in range(rotations):
            turned = window(torch.rot90(image_1YX, turns, (1, 2))[None], plain)
            assert isinstance(turned, Tensor)
            total += torch.rot90(turned[0], -turns, (1, 2)).cpu()
    return total / rotations
