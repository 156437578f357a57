"""Resample planes to the pixel sizes that a network learned."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def resample(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample a plane (Y, X) float32 to `shape`; the field of view stays, the pixel size changes.

    An axis that shrinks is averaged under a triangle two steps wide (no aliasing); an axis that grows is
    interpolated bicubically, which may overshoot by some percent at edges. The same shape gives the same
    values.
    """
    plane = torch.from_numpy(np.array(image, dtype=np.float32))[None, None]
    height, width = plane.shape[-2:]
    smaller = (min(height, shape[0]), min(width, shape[1]))
    if smaller != (height, width):
        plane = F.interpolate(plane, size=smaller, mode="bilinear", antialias=True)
    if smaller != tuple(shape):
        plane = F.interpolate(plane, size=shape, mode="bicubic")
    resampled: NDArray[np.float32] = plane[0, 0].numpy()
    return resampled


def resample_image(pixels: NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample a plane (Y, X) of grey values to another grid: float32, clipped to [0, 65535] where it overshoots."""
    if pixels.shape == tuple(shape):
        return pixels.astype(np.float32)
    return np.clip(resample(pixels.astype(np.float32), shape), 0, 65535)
