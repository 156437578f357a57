"""Detect images whose brightest grey values were cut off by the camera or an export."""

import numpy as np
from numpy.typing import NDArray

_SHARE = 0.005  # of pixels at the largest grey value
_PILE = 3.0  # times as many as at the value below it: a histogram that ends in a peak was cut off


def saturation_warning(pixels: NDArray[np.uint16]) -> str | None:
    """Say in one clause how much of a plane (Y, X) is saturated; None where next to nothing is."""
    largest = int(pixels.max())
    at_largest = int((pixels == largest).sum())
    share = at_largest / pixels.size
    if share < _SHARE or share == 1:
        return None
    below = int(pixels[pixels < largest].max())
    if at_largest < _PILE * int((pixels == below).sum()):
        return None
    return f"{share:.1%} of its pixels are saturated (grey value {largest})"
