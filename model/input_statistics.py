"""Whether an image is like those that a network learned from: spectrum and histogram of what the network sees."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OCTAVES_PX = (2, 4, 8, 16, 32, 64)
"""Periods between which the power of an image is summed."""

_FEATURES = len(_OCTAVES_PX) - 1 + 2
_FEWEST = 8  # planes; fewer tell nothing about how planes vary
_TOLERANCE = 1.25  # beyond the farthest plane that was learned from
_EXPLANATIONS = (
    ("less of the finest detail: out of focus, or enlarged?", "more of the finest detail: noise?"),
    ("less fine detail: out of focus, or enlarged?", "more fine detail: noise, or reduced?"),
    ("less detail of the size of organelles", "more detail of the size of organelles"),
    ("fewer structures of the size of cells", "more structures of the size of cells"),
    ("fewer coarse structures", "coarser structures: other cells, or uneven light?"),
    ("darker spots", "brighter spots"),
    ("a flatter histogram", "a more peaked histogram: few or bright objects?"),
)


def measure_input(input_YX: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Describe an image as the network gets it.

    Parameters
    ----------
    input_YX : ndarray of float32, shape (Y, X)
        Normalized, on the network's grid.

    Returns
    -------
    ndarray of float64 or None
        log10 of the share of power in each octave of periods from 2 to 64 px, skewness, log10 of the kurtosis; None for
        an image that is too small or has no contrast.
    """
    height, width = input_YX.shape
    centred = input_YX.astype(np.float64) - input_YX.mean()
    variance = float((centred**2).mean())
    if min(height, width) < _OCTAVES_PX[-1] or variance <= 0:
        return None
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2(centred * window)) ** 2
    power[:, 1:-1] *= 2  # of the half that a real image repeats
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    bounds = [1 / period for period in reversed(_OCTAVES_PX)]
    octaves = [power[(frequency >= low) & (frequency < high)].sum() for low, high in pairwise(bounds)]
    shares = np.log10(np.maximum(octaves[::-1], 1e-12) / power.sum())
    skewness = (centred**3).mean() / variance**1.5
    return np.array([*shares, skewness, np.log10((centred**4).mean() / variance**2)])


@dataclass(frozen=True)
class InputStatistics:
    """What the images of a training had in common; ValueError where the values make no sense.

    Attributes
    ----------
    mean, std : tuple of float
        Of each feature of `measure_input`.
    limit : float
        Distance beyond which an image is unlike all of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    limit: float

    def __post_init__(self) -> None:
        values = (*self.mean, *self.std, self.limit)
        if (len(self.mean), len(self.std)) != (_FEATURES, _FEATURES) or not all(map(math.isfinite, values)):
            raise ValueError(f"input statistics of {len(self.mean)} features, expected {_FEATURES} finite ones")
        if min(self.std) <= 0 or self.limit <= 0:
            raise ValueError("input statistics with a deviation or limit that is not positive")

    @classmethod
    def of(cls, measured: Sequence[NDArray[np.float64]]) -> "InputStatistics | None":
        """Summarize planes that were measured; None where there are too few."""
        if len(measured) < _FEWEST:
            return None
        features = np.array(measured)
        mean, std = features.mean(axis=0), np.maximum(features.std(axis=0), 0.02)
        farthest = float(np.sqrt((((features - mean) / std) ** 2).mean(axis=1)).max())
        return cls(_rounded(mean), _rounded(std), round(_TOLERANCE * farthest, 4))

    def distance(self, features: NDArray[np.float64]) -> float:
        """Root mean square of the features' deviations, each in its standard deviations."""
        return float(np.sqrt((self._deviations(features) ** 2).mean()))

    def warning(self, features: NDArray[np.float64]) -> str | None:
        """Say in one clause how an image is unlike those that were learned from; None where it is like them."""
        if self.distance(features) <= self.limit:
            return None
        deviations = self._deviations(features)
        worst = int(np.abs(deviations).argmax())
        how = _EXPLANATIONS[worst][int(deviations[worst] > 0)]
        return f"it is unlike the images that its network learned from, so look at the prediction: it has {how}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {"mean": list(self.mean), "std": list(self.std), "limit": self.limit}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputStatistics":
        """Inverse of `to_dict`; ValueError, TypeError or KeyError for anything else."""
        return cls(tuple(map(float, values["mean"])), tuple(map(float, values["std"])), float(values["limit"]))

    def _deviations(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((features - np.array(self.mean)) / np.array(self.std))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
