"""The dynamic first convolution: its parameters follow from the modality of each image.

Paper, section 2.4 (c), after Liu et al., "ModDrop++" (MICCAI 2022): the first layer of a unified network is
generated from a one-hot 3-digit modality code, everything behind it is shared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..labels import Modality
from .layers import ReflectConv2d, reflect

MODALITIES = tuple(Modality)  # the digits of the code, in this order


def modality_code(modality: Modality | Sequence[Modality]) -> Tensor:
    """One-hot code (B, 3) float32 over (BF, PC, DIC); one modality gives B = 1."""
    modalities = [modality] if isinstance(modality, Modality) else modality
    digits = torch.tensor([MODALITIES.index(Modality(name)) for name in modalities])
    return F.one_hot(digits, len(MODALITIES)).float()


class DynamicConv2d(nn.Module):
    """Convolution of one channel whose weight and bias a linear controller makes from the modality code.

    The controller's columns are one set of kernels a modality, its bias what all share; reflected borders.
    """

    def __init__(self, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.controller = nn.Linear(len(MODALITIES), out_channels * (kernel_size**2 + 1))

    def forward(self, x_B1YX: Tensor, modality_code_B3: Tensor | None) -> Tensor:
        """Return (B, out_channels, Y, X); ValueError where the code is missing or not (B, 3)."""
        samples = x_B1YX.shape[0]
        if modality_code_B3 is None:
            raise ValueError("a dynamic network needs the modality code of each sample, got none")
        expected = (samples, len(MODALITIES))
        if modality_code_B3.shape != expected:
            raise ValueError(f"modality code of shape {tuple(modality_code_B3.shape)}, expected {expected}")
        # One row a kernel: its bias first, then its k x k weights.
        parameters = self.controller(modality_code_B3).view(samples * self.out_channels, -1)
        weight = parameters[:, 1:].reshape(-1, 1, self.kernel_size, self.kernel_size)
        # Samples become groups, so that a single convolution applies each sample's own kernels.
        channels_1BYX = reflect(x_B1YX, self.kernel_size // 2).transpose(0, 1)
        planes = F.conv2d(channels_1BYX, weight, parameters[:, 0], groups=samples)
        return planes.view(samples, self.out_channels, *x_B1YX.shape[-2:])


class FirstConv2d(ReflectConv2d):
    """The ordinary first convolution, called like the dynamic one: a modality code changes nothing."""

    def __init__(self, out_channels: int, kernel_size: int) -> None:
        super().__init__(1, out_channels, kernel_size)

    def forward(self, x_B1YX: Tensor, modality_code_B3: Tensor | None = None) -> Tensor:
        """Return (B, out_channels, Y, X)."""
        return super().forward(x_B1YX)


def first_convolution(out_channels: int, kernel_size: int, *, dynamic: bool) -> DynamicConv2d | FirstConv2d:
    """Build the first layer of a network, dynamic or not."""
    return (DynamicConv2d if dynamic else FirstConv2d)(out_channels, kernel_size)
