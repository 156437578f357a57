"""A plain U-Net trained with the mean squared error, as label-free prediction began: what others are compared with.

After Ounkomol et al., Nat. Methods 15, 917 (2018): two 3x3 convolutions with batch normalization a level, strided
convolutions down, transposed ones up, Adam at 1e-3; images and targets minus their mean, over their standard deviation.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.precision import Precision

LEVELS = 4
CROP, BATCH = 128, 8


class Level(nn.Module):
    """One level and all below it: (B, in, Y, X) to (B, out, Y, X)."""

    def __init__(self, in_channels: int, channels: int, below: int) -> None:
        super().__init__()
        self.down = convolutions(in_channels, channels)
        self.below = Level(channels, 2 * channels, below - 1) if below else None
        if self.below:
            self.reduce = unit(nn.Conv2d(channels, channels, 2, stride=2), channels)
            self.enlarge = unit(nn.ConvTranspose2d(2 * channels, channels, 2, stride=2), channels)
            self.up = convolutions(2 * channels, channels)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        here: Tensor = self.down(x_BCYX)
        if self.below is not None:
            here = self.up(torch.cat([here, self.enlarge(self.below(self.reduce(here)))], dim=1))
        return here


def unit(convolution: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def convolutions(in_channels: int, channels: int) -> nn.Module:
    first = unit(nn.Conv2d(in_channels, channels, 3, padding=1), channels)
    return nn.Sequential(first, unit(nn.Conv2d(channels, channels, 3, padding=1), channels))


def standardized(pixels_YX: NDArray[np.uint16]) -> Tensor:
    values = torch.from_numpy(pixels_YX.astype(np.float32))
    return (values - values.mean()) / values.std().clamp_min(1e-6)


def train(
    pairs: Sequence[tuple[NDArray[np.uint16], NDArray[np.uint16]]], minutes: float, seed: int, width: int = 16
) -> nn.Module:
    """Fit a U-Net to pairs of images (Y, X) for so many minutes; the learning rate falls to 0 in the second half."""
    torch.manual_seed(seed)
    cpu = torch.device("cpu")
    precision = Precision.fastest(cpu)
    rng = np.random.default_rng(seed)
    network = nn.Sequential(Level(1, width, LEVELS), nn.Conv2d(width, 1, 3, padding=1)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
    images = [torch.stack([standardized(image), standardized(target)]) for image, target in pairs]
    begun = time.monotonic()
    while (done := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, 2 - 2 * done)
        batch = torch.stack([crop(images[rng.integers(len(images))], rng) for _ in range(BATCH)])
        with precision.on(cpu):
            predicted = network(batch[:, :1])
        loss = F.mse_loss(predicted.float(), batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def crop(pair_CYX: Tensor, rng: np.random.Generator) -> Tensor:
    """A random crop, turned and flipped."""
    y, x = (int(rng.integers(size - CROP + 1)) for size in pair_CYX.shape[1:])
    part = torch.rot90(pair_CYX[:, y : y + CROP, x : x + CROP], int(rng.integers(4)), (1, 2))
    return part.flip(2) if rng.integers(2) else part


@torch.inference_mode()
def predict(network: nn.Module, pixels_YX: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Predict a whole image (Y, X), mirrored at its edges to a multiple of the coarsest level."""
    y, x = pixels_YX.shape
    step = 2**LEVELS
    image = F.pad(standardized(pixels_YX)[None, None], (0, -x % step, 0, -y % step), mode="reflect")
    prediction: NDArray[np.float32] = network(image)[0, 0, :y, :x].numpy()
    return prediction
