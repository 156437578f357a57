"""Find the focal plane in focus in a stack of transmitted light.

A phase object in focus has the least contrast in bright field, where edges of fine detail are sharpest nevertheless,
and dark and bright spots stand out: so fine detail counts, and how peaked the coarser is. In phase contrast and DIC
contrast itself is largest. Measured on simulated stacks: ``python -m benchmarks.focus``.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .labels import Modality

_FINE, _COARSE = 2.0, 4.0  # standard deviations of Gaussians in px: detail that noise does not reach
_BAND = 1.5  # ratio of the two Gaussians of a band


def best_plane(planes: Iterable[NDArray[np.uint16]], modality: Modality | None) -> int:
    """Index of the plane in focus.

    Parameters
    ----------
    planes : iterable of ndarray of uint16, shape (Y, X)
        From one end of the stack to the other; one is in memory at a time.
    modality : Modality or None

    Returns
    -------
    int
        The first of several that are as sharp; 0 where no plane has any contrast.

    Raises
    ------
    ValueError
        Without a plane.
    """
    scores = [sharpness(plane, modality) for plane in planes]
    if not scores:
        raise ValueError("a stack has one plane at least")
    return int(np.argmax(scores))


def sharpness(plane: NDArray[np.uint16], modality: Modality | None) -> float:
    """Say how sharp a plane (Y, X) is: larger nearer to the focus, comparable within one stack only.

    The logarithm of the relative contrast of fine detail; in bright field also of the kurtosis of coarser detail.
    Minus infinity for a plane without contrast.
    """
    relative = plane.astype(np.float32) / max(float(plane.mean()), 1.0)
    detail = _band(relative, 1.0 if modality is Modality.BF else _FINE)
    contrast = float(detail.std())
    if contrast == 0:
        return -np.inf
    if modality is not Modality.BF:
        return float(np.log(contrast))
    coarse = _band(relative, _COARSE)
    variance = float((coarse**2).mean())
    return float(np.log(contrast) + np.log((coarse**4).mean() / variance**2)) if variance > 0 else -np.inf
