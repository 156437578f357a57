"""Layers of both networks, and checks of their inputs.

Shape suffixes: B samples, C channels, Y rows, X columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..labels import Organelle


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1; no parameters, as in pix2pix.

    Group normalisation with one channel a group is the same thing, and on a CPU three times as fast.
    """

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Normalize (B, C, Y, X), same shape."""
        return F.group_norm(x_BCYX, x_BCYX.shape[1])


def reflect(x_BCYX: Tensor, margin: int) -> Tensor:
    """Mirror the border outwards by `margin` px on all sides, in the type given: autocast would go to float32."""
    with torch.autocast(x_BCYX.device.type, enabled=False):
        return F.pad(x_BCYX, (margin,) * 4, mode="reflect")


def without_checkerboard(x_B1YX: Tensor) -> Tensor:
    """Take periods of 2 and 4 px out of (B, 1, Y, X): what two transposed convolutions of stride 2 print.

    The filter [1, 2, 2, 2, 1] / 8 along rows and columns is zero at both periods; smooth structures stay.
    """
    taps = x_B1YX.new_tensor([1, 2, 2, 2, 1], dtype=torch.float32) / 8
    with torch.autocast(x_B1YX.device.type, enabled=False):
        rows = F.conv2d(reflect(x_B1YX.float(), 2), taps.view(1, 1, 5, 1))
        return F.conv2d(rows, taps.view(1, 1, 1, 5))


class ReflectConv2d(nn.Conv2d):
    """Convolution of stride 1 with reflected borders: (B, C, Y, X) to (B, C', Y, X)."""

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map (B, C, Y, X) to (B, C', Y, X)."""
        return F.conv2d(reflect(x_BCYX, self.kernel_size[0] // 2), self.weight, self.bias)


class ResizeConv2d(nn.ConvTranspose2d):
    """Nearest-neighbour enlargement by 2, then a 3x3 convolution: (B, C, Y, X) to (B, C', 2Y, 2X), zeros outside.

    A transposed convolution of stride 2 reaches its output pixels with 1, 2, 2 or 4 of its 3x3 weights, which prints a
    grid of 2 px. Here each is reached by 4 of the 4x4 weights that are the 3x3 ones spread by a 2x2 box: the same
    values as enlarging first, in less than half the multiplications. Parameters as of `nn.ConvTranspose2d` with a 3x3
    kernel, so that either kind can start from the other's weights.
    Source: Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, bias=False)

    def forward(self, x_BCYX: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, C, Y, X) to (B, C', 2Y, 2X); `output_size` is of the base class and unused."""
        box = self.weight.new_ones(1, 1, 2, 2)
        with torch.autocast(x_BCYX.device.type, enabled=False):
            spread = F.conv2d(self.weight.flatten(0, 1).unsqueeze(1), box, padding=1)
        return F.conv_transpose2d(x_BCYX, spread.view(*self.weight.shape[:2], 4, 4), stride=2, padding=1)


class SinglePlaneConv2d(nn.Conv2d):
    """Convolution to a single channel with reflected borders; parameters and values as of the plain one.

    CPU kernels work on eight output channels at once, and a plain convolution to one channel wastes seven. Here
    the kernel's rows become the output channels, and their planes are added up, each shifted by its row.
    Always in float32: nothing averages out what would be rounded here, and the image would have 256 grey levels.
    """

    def __init__(self, in_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, 1, kernel_size)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map (B, C, Y, X) to (B, 1, Y, X) float32."""
        size, height = self.kernel_size[0], x_BCYX.shape[2]
        padded = reflect(x_BCYX, size // 2).float()
        rows = self.weight[0].transpose(0, 1).unsqueeze(2)  # (kernel rows, C, 1, kernel columns)
        with torch.autocast(x_BCYX.device.type, enabled=False):
            planes = F.conv2d(padded, F.pad(rows, (0, 0, 0, 0, 0, 0, 0, -size % 8)))
        total = planes[:, 0:1, :height]
        for row in range(1, size):
            total = total + planes[:, row : row + 1, row : row + height]
        return total if self.bias is None else total + self.bias


def init_weights(network: nn.Module) -> None:
    """Draw all weights from N(0, 0.02) and set all biases to zero, as pix2pix does.

    On the meta device there is nothing to draw, and torch would spend seconds on importing how not to.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and not module.weight.is_meta:
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def smallest_side(stride: int) -> int:
    """Pixels a side from which on a network of this stride computes.

    One pixel at the coarsest level would leave instance normalization nothing to compare.
    """
    return 2 * stride


def check_plane(x_B1YX: Tensor, stride: int) -> None:
    """Raise ValueError unless this is one channel with sides that are multiples of `stride`, and not too small."""
    sides = x_B1YX.shape[-2:]
    if x_B1YX.ndim != 4 or x_B1YX.shape[1] != 1:
        raise ValueError(f"input of shape {tuple(x_B1YX.shape)}, expected (samples, 1, rows, columns)")
    if any(side % stride or side < smallest_side(stride) for side in sides):
        expected = f"expected multiples of {stride} from {smallest_side(stride)} on"
        raise ValueError(f"input of {tuple(sides)} pixels, {expected}")


def select_heads(requested: Sequence[Organelle] | None, available: Sequence[Organelle]) -> list[str]:
    """Names of the heads to compute, in the requested order; ValueError for none or an unknown one."""
    organelles = available if requested is None else requested
    missing = [str(organelle) for organelle in organelles if organelle not in available]
    if missing or not organelles:
        raise ValueError(f"found {missing or 'no organelle'}, expected some of {[str(o) for o in available]}")
    return [str(organelle) for organelle in organelles]
