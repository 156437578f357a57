"""The paper's generator: pix2pix's ResNet with one encoder, four decoders (section 2.2, Fig. 3).

Shape suffixes: B samples, C channels, O organelles, Y rows, X columns.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..labels import Organelle
from .architecture import Architecture, Upsampling
from .dynamic_convolution import first_convolution
from .foreground import Foreground
from .layers import (
    InstanceNorm,
    ReflectConv2d,
    ResizeConv2d,
    SinglePlaneConv2d,
    check_plane,
    init_weights,
    select_heads,
    without_checkerboard,
)


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))), reflected borders."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        # No bias: the normalisation behind each convolution would take it away again.
        self.first = ReflectConv2d(channels, channels, 3, bias=False)
        self.second = ReflectConv2d(channels, channels, 3, bias=False)
        self.norm = InstanceNorm()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map (B, C, Y, X) to the same shape."""
        inner = self.dropout(F.relu(self.norm(self.first(x_BCYX))))
        changed: Tensor = self.norm(self.second(inner))
        return x_BCYX + changed


class Encoder(nn.Module):
    """7x7 convolution, two strided ones, residual blocks: (B, 1, Y, X) to (B, 4 width, Y / 4, X / 4)."""

    def __init__(self, width: int, blocks: int, dropout: float, dynamic: bool) -> None:
        super().__init__()
        self.first = first_convolution(width, 7, dynamic=dynamic)
        self.down = nn.ModuleList(
            nn.Conv2d(width * scale, width * scale * 2, 3, stride=2, padding=1, bias=False) for scale in (1, 2)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, dropout) for _ in range(blocks)))
        self.norm = InstanceNorm()

    def forward(self, x_B1YX: Tensor, modality_code_B3: Tensor | None) -> Tensor:
        """Map (B, 1, Y, X) to features (B, 4 width, Y / 4, X / 4)."""
        features: Tensor = F.relu(self.norm(self.first(x_B1YX, modality_code_B3)))
        for down in self.down:
            features = F.relu(self.norm(down(features)))
        encoded: Tensor = self.blocks(features)
        return encoded


class Decoder(nn.Module):
    """Two enlarging convolutions, a 7x7 convolution, tanh: (B, 4 width, Y / 4, X / 4) to (B, 1, Y, X)."""

    def __init__(self, width: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.up = nn.ModuleList(_enlarging(width * scale, width * scale // 2, upsampling) for scale in (4, 2))
        self.last = SinglePlaneConv2d(width, 7)
        self.norm = InstanceNorm()
        self.filtered = upsampling == "filtered"

    def forward(self, features_BCYX: Tensor) -> Tensor:
        """Map features (B, 4 width, Y / 4, X / 4) to one organelle (B, 1, Y, X) in [-1, 1]."""
        for up in self.up:
            features_BCYX = F.relu(self.norm(up(features_BCYX)))
        prediction = torch.tanh(self.last(features_BCYX))
        return without_checkerboard(prediction) if self.filtered else prediction


def _enlarging(inputs: int, outputs: int, upsampling: Upsampling) -> nn.ConvTranspose2d:
    if upsampling == "resize":
        return ResizeConv2d(inputs, outputs)
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)


class ResnetGenerator(nn.Module):
    """One encoder, one decoder for each organelle; weights drawn from N(0, 0.02) as in pix2pix."""

    stride: ClassVar[int] = 4

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Encoder(architecture.width, architecture.blocks, architecture.dropout, architecture.dynamic)
        self.decoders = nn.ModuleDict(
            {str(o): Decoder(architecture.width, architecture.upsampling) for o in architecture.organelles}
        )
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

        Only the requested decoders are computed; where `labelled_BO` (bool) is given, only for the samples in which it
        holds: the others' predictions are zero. Y and X are multiples of `stride`. Raises ValueError for another shape,
        an organelle without decoder, or a dynamic network without modality code.
        """
        check_plane(x_B1YX, self.stride)
        names = select_heads(organelles, self.architecture.organelles)
        prediction_BOYX = self._decode(self.encoder(x_B1YX, modality_code_B3), names, labelled_BO)
        return prediction_BOYX if self.foreground is None else self.foreground.fade(prediction_BOYX, x_B1YX, names)

    def _decode(self, features: Tensor, names: Sequence[str], labelled_BO: Tensor | None) -> Tensor:
        if labelled_BO is None or bool(labelled_BO.all()):
            return torch.cat([self.decoders[name](features) for name in names], dim=1)
        samples, _, height, width = features.shape
        shape = (samples, len(names), height * self.stride, width * self.stride)
        prediction_BOYX = features.new_zeros(shape, dtype=torch.float32)
        for o, name in enumerate(names):
            has = labelled_BO[:, o]
            # Samples are independent under instance normalization, so this equals the whole batch's forward pass.
            prediction_BOYX[has, o] = self.decoders[name](features[has])[:, 0]
        return prediction_BOYX

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that all organelles share."""
        return self.encoder.parameters()
