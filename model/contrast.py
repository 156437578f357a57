"""Detect images without contrast: a network would invent structures in them."""

import numpy as np
from numpy.typing import NDArray

_TAIL = 0.02  # darkest and brightest share that is not counted: hot pixels, reflections
_MIN_GREY_VALUES = 3
_MIN_RANGE = 3  # steps between neighbouring grey values


def missing_contrast(pixels: NDArray[np.uint16], margins: NDArray[np.bool_]) -> str | None:
    """Say why a plane (Y, X) shows nothing, in one clause; None where it has contrast.

    Black, constant and saturated images, and those whose grey values differ by no more than rounding. `margins` is True
    where there is no image.
    """
    counts = np.bincount(pixels[~margins].ravel(), minlength=1)
    shares = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(shares, share)) for share in (_TAIL, 1 - _TAIL))
    values = np.flatnonzero(counts[low : high + 1]) + low
    step = int(np.gcd.reduce(np.diff(values))) if len(values) > 1 else 1  # 257 for images of 8 bits
    if len(values) >= _MIN_GREY_VALUES and high - low >= _MIN_RANGE * step:
        return None
    found = f"grey value {low}" if low == high else f"grey values {low} to {high}"
    return f"no contrast ({found} throughout)"
