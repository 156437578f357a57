"""The UNet++ of the unified networks (paper, section 2.4).

After Zhou et al., "UNet++" (IEEE TMI 39(6), 2020): between encoder and output stands a triangle of nodes;
a node sees all nodes before it on its level, and the upsampled one below. No deep supervision, no adversary.
Shape suffixes: B samples, C channels, O organelles, Y rows, X columns.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..labels import Organelle
from .architecture import Architecture
from .dynamic_convolution import first_convolution
from .foreground import Foreground
from .layers import InstanceNorm, SinglePlaneConv2d, check_plane, init_weights, select_heads

CHANNEL_PLAN = (1, 2, 4, 8, 8)  # times the width, from full resolution down; a 16 would double the parameters
SLOPE = 0.1  # of the leaky ReLU


class Node(nn.Module):
    """Two 3x3 convolutions, normalised and rectified, dropout between: (B, in, Y, X) to (B, out, Y, X)."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        # No bias: the normalisation behind each convolution would take it away again.
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = InstanceNorm()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map (B, C, Y, X) to (B, C', Y, X)."""
        inner = self.dropout(F.leaky_relu(self.norm(self.first(x_BCYX)), SLOPE))
        return F.leaky_relu(self.norm(self.second(inner)), SLOPE)


class Up(nn.Module):
    """Halve the channels to those of the level above, then double rows and columns bilinearly.

    In this order the costly part runs on a quarter of the pixels; both are linear, so the order is free.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map (B, C, Y, X) to (B, C', 2Y, 2X)."""
        return F.interpolate(self.reduce(x_BCYX), scale_factor=2.0, mode="bilinear", align_corners=False)


class UNetPlusPlus(nn.Module):
    """Five levels, nodes X(level, column) with level + column <= 4; a 1x1 head for each organelle."""

    stride: ClassVar[int] = 16

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = [architecture.width * factor for factor in CHANNEL_PLAN]
        self.depth = len(channels) - 1
        self.first = first_convolution(channels[0], 3, dynamic=architecture.dynamic)
        self.norm = InstanceNorm()
        # Keys are "<level>_<column>". Column 0 is the encoder; its level 0 follows the first convolution.
        self.nodes = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for level, out in enumerate(channels):
            self.nodes[f"{level}_0"] = Node(channels[max(level - 1, 0)], out, architecture.dropout)
            for column in range(1, self.depth - level + 1):
                self.ups[f"{level}_{column}"] = Up(channels[level + 1], out)
                self.nodes[f"{level}_{column}"] = Node((column + 1) * out, out, architecture.dropout)
        self.heads = nn.ModuleDict({str(o): SinglePlaneConv2d(channels[0], 1) for o in architecture.organelles})
        init_weights(self)
        self.foreground = Foreground(architecture.organelles) if architecture.foreground else None

    def forward(
        self,
        x_B1YX: Tensor,
        organelles: Sequence[Organelle] | None = None,
        modality_code_B3: Tensor | None = None,
        labelled_BO: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, O, Y, X) in [-1, 1], channels in the order of `organelles` (all, unless named).

        Only the requested heads are computed; for every sample, since a 1x1 head costs nothing: `labelled_BO`, an
        argument of every network, changes nothing. Y and X are multiples of `stride`. Raises ValueError for
        another shape, an organelle without head, or a dynamic network without modality code.
        """
        check_plane(x_B1YX, self.stride)
        names = select_heads(organelles, self.architecture.organelles)
        features = F.leaky_relu(self.norm(self.first(x_B1YX, modality_code_B3)), SLOPE)
        rows: list[list[Tensor]] = []  # rows[level][column]
        for level in range(self.depth + 1):
            rows.append([self.nodes[f"{level}_0"](F.max_pool2d(features, 2) if level else features)])
            features = rows[level][0]
        for column in range(1, self.depth + 1):
            for level in range(self.depth - column + 1):
                below = self.ups[f"{level}_{column}"](rows[level + 1][column - 1])
                rows[level].append(self.nodes[f"{level}_{column}"](torch.cat([*rows[level], below], dim=1)))
        prediction_BOYX = torch.cat([torch.tanh(self.heads[name](rows[0][-1])) for name in names], dim=1)
        return prediction_BOYX if self.foreground is None else self.foreground.fade(prediction_BOYX, x_B1YX, names)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the column of nodes that leads down, the first convolution included."""
        yield from self.first.parameters()
        for level in range(self.depth + 1):
            yield from self.nodes[f"{level}_0"].parameters()
