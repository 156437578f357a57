"""Settings of inference, and their presets: the paper's, a fast one, and one that averages over scales."""

from dataclasses import dataclass

from .precision import Precision
from .tiling import MAX_OVERLAP
from .tta import ROTATIONS

LARGEST_WHOLE = 1024
"""Largest side in px of full-image inference; larger images are tiled, since memory grows with the side."""


@dataclass(frozen=True)
class InferenceSettings:
    """How an image is predicted.

    Attributes
    ----------
    overlap : float
        Of neighbouring tiles, as a share of their side, in [0, 0.9].
    rotations : int
        Turned images that are averaged: 1, 2 or 4. The networks of an ensemble share them, the first ones where it has
        more networks than that (see `model.tta`).
    whole_image : bool
        Whether images of up to `LARGEST_WHOLE` px are predicted without tiles.
    scales : tuple of float
        Sizes that the image is predicted at and averaged over (multi-scale test-time augmentation), relative to the
        network's pixel grid, each in [0.5, 2]; the first is 1.
    precision : Precision or None
        None: the fastest whose result equals float32's to the eye.

    Raises
    ------
    ValueError
        For an overlap, a number of rotations or a scale that is not allowed.
    """

    overlap: float = 0.8
    rotations: int = 4
    whole_image: bool = False
    scales: tuple[float, ...] = (1.0,)
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ValueError(f"overlap must lie in [0, {MAX_OVERLAP}], got {self.overlap}")
        if self.rotations not in ROTATIONS:
            raise ValueError(f"rotations must be 1, 2 or 4, got {self.rotations}")
        if self.scales[:1] != (1.0,) or not all(0.5 <= scale <= 2 for scale in self.scales):
            raise ValueError(f"scales must be 1 and others in [0.5, 2], got {self.scales}")


PRESETS = {
    "paper": InferenceSettings(),
    "fast": InferenceSettings(overlap=0.25, rotations=2, whole_image=True),  # one rotation costs > 0.01 of PCC
    "multiscale": InferenceSettings(overlap=0.25, rotations=2, whole_image=True, scales=(1.0, 0.7, 1.4)),
}
