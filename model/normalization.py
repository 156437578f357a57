"""Normalization: from 16-bit grey values to network values, and back.

The paper (section 2.2) scales [0, 65535] to [-1, 1] linearly, both ways. The other settings answer its call
for other normalizations; a checkpoint records which one its network learned with.
"""

from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Grey = NDArray[np.uint16] | NDArray[np.float32]

UINT16_MAX = 65535

BACKGROUND_SIGMA = 96.0  # pixels of the network's grid: illumination varies more slowly, cells faster
BACKGROUND_BLOCK = 8  # the background is so smooth that 8x coarser samples of it lose nothing
NORMALIZED_CLIP = 2.0  # dust and reflections reach far beyond the [2, 98] percentile range
# Contrast below 0.1 % of the background is camera noise or rounding: it is not stretched any further.
SMALLEST_CONTRAST = 1e-3

TARGET_PERCENTILES = (2.0, 99.8)  # the challenge's own normalisation
TARGET_RANGE = (-0.25, 1.75)  # width 2, so that it fits tanh; the metric's [0, 1] lies at [-0.75, 0.25]


class InputNormalization(StrEnum):
    """What is done to a transmitted-light plane before a network sees it."""

    LINEAR = "linear"
    PERCENTILE = "percentile"
    ZSCORE = "zscore"
    FLATFIELD = "flatfield"


class TargetNormalization(StrEnum):
    """What is done to a fluorescence plane before a network learns it."""

    LINEAR = "linear"
    PERCENTILE = "percentile"


def normalize_input(
    image: Grey, normalization: InputNormalization, margins: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Scale a plane (Y, X) of 16-bit grey values, uint16 or resampled float32, to float32 (Y, X).

    LINEAR maps [0, 65535] to [-1, 1] (paper, section 2.2). PERCENTILE subtracts the median and divides by the
    [2, 98] percentile range; FLATFIELD divides by the image's own wide background before; ZSCORE subtracts the mean
    and divides by two standard deviations. All three are clipped to [-2, 2]; pixels of the empty `margins` (Y, X)
    take no part in any of this, and become 0.
    FLATFIELD expects the image on the network's grid, since the background's width is counted in its pixels.
    """
    if normalization is InputNormalization.LINEAR:
        return _linear(image)
    seen = np.ones(image.shape, dtype=np.bool_) if margins is None else ~margins
    grey = np.asarray(image, dtype=np.float32)
    if not seen.any() or image.max() <= 0:
        return np.zeros(image.shape, dtype=np.float32)
    match normalization:
        case InputNormalization.FLATFIELD:
            background = np.maximum(_background(grey, seen)[seen], np.finfo(np.float32).tiny)
        case _:  # relative to the mean, so that SMALLEST_CONTRAST means the same
            background = grey[seen].mean()
    relative = grey[seen] / background
    if normalization is InputNormalization.ZSCORE:
        middle, width = relative.mean(), 2 * relative.std()
    else:
        low, middle, high = np.percentile(relative, (2.0, 50.0, 98.0))
        width = high - low
    scaled = np.zeros(image.shape, dtype=np.float32)
    scaled[seen] = (relative - np.float32(middle)) / np.float32(max(width, SMALLEST_CONTRAST))
    return np.clip(scaled, -NORMALIZED_CLIP, NORMALIZED_CLIP)


BLANK_TARGET = {TargetNormalization.LINEAR: -1.0, TargetNormalization.PERCENTILE: -0.75}
"""What the background of a target, or a target without structures, becomes."""


def normalize_target(image: Grey, scaling: TargetNormalization) -> NDArray[np.float32]:
    """Scale a fluorescence plane (Y, X) of 16-bit grey values to float32 (Y, X) in [-1, 1].

    LINEAR maps [0, 65535] to [-1, 1] (paper, section 2.2). PERCENTILE maps the image's own 2nd and 99.8th
    percentile to -0.75 and 0.25, clipped to [-1, 1]; a constant image becomes 0.
    """
    if scaling is TargetNormalization.LINEAR:
        return _linear(image)
    low, high = np.percentile(image, TARGET_PERCENTILES)
    if high <= low:
        return np.zeros(image.shape, dtype=np.float32)
    relative = (np.asarray(image, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    scaled: NDArray[np.float32] = np.clip(relative, *TARGET_RANGE) - np.float32(0.75)
    return scaled


def to_uint16(prediction: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Map a prediction from [-1, 1] to [0, 65535], rounded to the nearest (ties to even) and clipped.

    The same for every target scaling: the intensity of a prediction is relative, not quantitative, and the
    challenge's metrics do not change under a positive affine map. Raises ValueError where it is not finite.
    """
    if not np.isfinite(prediction).all():
        raise ValueError("a prediction holds values that are not finite")
    grey = np.rint((prediction.astype(np.float64) + 1.0) * (UINT16_MAX / 2))
    return np.clip(grey, 0, UINT16_MAX).astype(np.uint16)


def _linear(image: Grey) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32) / np.float32(UINT16_MAX / 2) - np.float32(1)


def _background(image: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Gaussian mean of the seen pixels around each pixel (Y, X): blurred values over blurred mask.

    Positive wherever a pixel is seen: its own block and the blocks next to it then hold weight. Near a border
    only the inner side is averaged, so there a steep gradient is removed in part.
    """
    height, width = image.shape
    planes_2YX = torch.from_numpy(np.stack([np.where(seen, image, 0), seen]).astype(np.float32))
    padded = F.pad(planes_2YX, (0, -width % BACKGROUND_BLOCK, 0, -height % BACKGROUND_BLOCK))
    coarse = F.avg_pool2d(padded[:, None].double(), BACKGROUND_BLOCK)
    for axis in (2, 3):
        coarse = _blur(coarse, axis, BACKGROUND_SIGMA / BACKGROUND_BLOCK)
    values, weights = coarse[0:1], coarse[1:2]
    # Far from every seen pixel the quotient is 0 / 0; nothing is read there, but it must stay finite.
    mean = torch.where(weights > 0, values / weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)
    fine = F.interpolate(mean, scale_factor=float(BACKGROUND_BLOCK), mode="bilinear", align_corners=False)
    background: NDArray[np.float32] = fine[0, 0, :height, :width].float().numpy()
    return background


def _blur(image_N1YX: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Convolve one axis with a Gaussian cut at 4 sigma; what lies outside the image counts zero."""
    radius = int(np.ceil(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image_N1YX.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
    return F.conv2d(image_N1YX, kernel, padding=(radius, 0) if axis == 2 else (0, radius))
