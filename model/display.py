"""The range of grey values between which an image is shown: black where it is dark, not too bright when added up."""

import numpy as np
from numpy.typing import NDArray

INPUT_PERCENTILES, ORGANELLE_PERCENTILES = (0.5, 99.8), (40.0, 99.9)
"""Shown black and in full colour: most of a field is not the organelle."""

INPUT_SHARE, ORGANELLE_SHARE = 0.35, 0.75
"""Of the full brightness, where input and four organelles are added up."""


def display_range(plane: NDArray[np.uint16], *, organelle: bool) -> tuple[int, int]:
    """Choose the grey values of a plane (Y, X) to be shown black and in full colour, among other layers."""
    low, high = np.percentile(plane, ORGANELLE_PERCENTILES if organelle else INPUT_PERCENTILES)
    brightest = low + max(high - low, 1) / (ORGANELLE_SHARE if organelle else INPUT_SHARE)
    darkest = min(int(low), 65534)
    return darkest, min(max(int(brightest), darkest + 1), 65535)
