"""Preprocessing: pixel grid and normalization, decided once for prediction and training.

Prediction and training both go through `Preprocessing`, so a network is trained on exactly what it will predict from.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .margins import find_margins
from .normalization import InputNormalization, TargetNormalization, normalize_input, normalize_target
from .resampling import resample, resample_image

MAX_RESCALING = 6.0
"""A pixel size further than this factor from all that was learned is taken for a wrong entry, not followed:
a placeholder of 10 µm would enlarge a 2048 px image to 60,000 px, one of 1 nm would shrink it to nothing.
The finest pixels of the challenge (0.06 µm) are 4 to 5 times finer than the shipped checkpoints' grid."""

PixelSize = tuple[float, float]
"""Pixel size (y, x) in µm."""


@dataclass(frozen=True)
class Grid:
    """The pixel grid on which a network sees one image.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns on this grid.
    rescaling : str
        What was done to get there, in words: for the provenance of a prediction.
    warning : str or None
        Why the image keeps its own grid although that may be the wrong scale.
    """

    shape: tuple[int, int]
    rescaling: str = "none needed"
    warning: str | None = None

    def scaled(self, scale: float) -> "Grid":
        """Return the grid on which everything looks `scale` times as large."""
        height, width = self.shape
        return replace(self, shape=(max(1, round(height * scale)), max(1, round(width * scale))))

    @classmethod
    def choose(
        cls, shape: tuple[int, int], pixel_size_um: PixelSize | None, learned_um: tuple[float, float] | None
    ) -> "Grid":
        """Bring each axis to the nearest learned pixel size, where there is one and it is plausible.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the image.
        pixel_size_um : (float, float) or None
            Pixel size (y, x) in µm; None where the file states none.
        learned_um : (float, float) or None
            Smallest and largest pixel size the network learned, in µm; None keeps every image as it is.
        """
        if learned_um is None:
            return cls(shape)
        low, high = learned_um
        learned = f"(learned: {low:g} to {high:g} µm)"
        if pixel_size_um is None:
            warning = f"no pixel size, taken as it is {learned}"
            return cls(shape, warning, warning)
        target_um = tuple(min(max(size, low), high) for size in pixel_size_um)
        if target_um == tuple(pixel_size_um):
            return cls(shape)
        factors = [size / target for size, target in zip(pixel_size_um, target_um, strict=True)]
        if max(factors) > MAX_RESCALING or min(factors) < 1 / MAX_RESCALING:
            found = " x ".join(f"{size:g}" for size in pixel_size_um)
            warning = f"implausible pixel size {found} µm, taken as it is {learned}"
            return cls(shape, warning, warning)
        height, width = (
            max(1, round(side * size / target))
            for side, size, target in zip(shape, pixel_size_um, target_um, strict=True)
        )
        before, after = (f"{y:g} x {x:g} µm" for y, x in (pixel_size_um, target_um))
        return cls((height, width), f"predicted at {after} a pixel, resampled back to {before}")


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network values; a checkpoint records it, training and prediction apply it.

    Attributes
    ----------
    normalization : InputNormalization
        Of transmitted-light planes.
    pixel_size_um : (float, float) or None
        Smallest and largest pixel size in µm that the network may see; an image outside is resampled to the nearer
        one. None takes every image as it is.
    """

    normalization: InputNormalization
    pixel_size_um: tuple[float, float] | None = None

    def grid(self, shape: tuple[int, int], pixel_size_um: PixelSize | None) -> Grid:
        """Choose the grid of an image of `shape` (Y, X) and pixel size (y, x) in µm; see `Grid.choose`."""
        return Grid.choose(shape, pixel_size_um, self.pixel_size_um)

    def input(
        self, pixels: NDArray[np.uint16], grid: Grid, margins: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Resample a transmitted-light plane (Y, X) to the grid, then normalize it: float32 of the grid's shape.

        In this order, because the background filter's width is in pixels of the network's grid. `margins` is what
        `find_margins` finds, where it is known already.
        """
        margins = find_margins(pixels) if margins is None else margins
        if margins.any():
            margins = resample(margins.astype(np.float32), grid.shape) > 0
        else:
            margins = np.zeros(grid.shape, dtype=np.bool_)
        return normalize_input(resample_image(pixels, grid.shape), self.normalization, margins)

    @staticmethod
    def target(pixels: NDArray[np.uint16], grid: Grid, normalization: TargetNormalization) -> NDArray[np.float32]:
        """Resample a fluorescence plane (Y, X) to its input's grid and normalize it: float32 in [-1, 1]."""
        return normalize_target(resample_image(pixels, grid.shape), normalization)
