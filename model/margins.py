"""Empty margins of an image, as registration, stitching or a field stop leave them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_BORDER_SHARE, _MIN_BORDER_PX = 1 / 8, 16  # share of the shorter side: along less it is a structure
_MIN_EDGE_RATIO = 0.25  # grey value beside a margin, over the image's median


def find_margins(pixels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the empty margins of a plane: a mask (Y, X), True where there is no image.

    A margin is a connected region of zeros along a good part of the image's border that ends abruptly, or fills a
    corner. Zeros elsewhere are grey values like others: an 8-bit export whose contrast was stretched has them wherever
    the sample is dark, and there they fade into the grey values around them.
    """
    zero = pixels == 0
    needed = max(_MIN_BORDER_SHARE * min(zero.shape), _MIN_BORDER_PX)
    if zero.all() or max(np.count_nonzero(side) for side in _sides(zero)) < needed:
        return np.zeros(zero.shape, dtype=np.bool_)
    import SimpleITK  # slow to import, and few images have zeros along a border

    labels = SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(zero.astype("u1"))))
    median = float(np.median(pixels[~zero]))
    margins = np.zeros(zero.shape, dtype=np.bool_)
    for label in np.unique(np.concatenate([side[side > 0] for side in _sides(labels)])):
        region = labels == label
        along = [np.count_nonzero(side) for side in _sides(region)]
        in_corner = sum(length >= needed for length in along) > 1
        if max(along) >= needed and (in_corner or np.median(pixels[_rim(region)]) >= _MIN_EDGE_RATIO * median):
            margins |= region
    return margins


def _sides(image: NDArray[Any]) -> list[NDArray[Any]]:
    return [image[0], image[-1], image[:, 0], image[:, -1]]


def _rim(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that share an edge with the region, outside it."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    return grown & ~region
