"""How thoroughly an image is gone over: the paper's way, and one that is nearly as good for a fraction of the work."""

from dataclasses import dataclass

from .precision import Precision
from .tiling import MAX_OVERLAP
from .tta import QUARTER_TURNS

LARGEST_WHOLE = 1024
"""Side in px of the largest image that is shown to a network whole where that is asked for: memory grows with it."""


@dataclass(frozen=True)
class InferenceSettings:
    """How an image is gone over.

    `whole_image` shows a network images of up to LARGEST_WHOLE px at once, not in the windows it learned on.
    `precision` None is the fastest whose result cannot be told from float32's. ValueError for an overlap
    outside [0, 0.9] or rotations other than 1, 2, 4.
    """

    overlap: float = 0.8
    rotations: int = 4
    whole_image: bool = False
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ValueError(f"overlap must lie in [0, {MAX_OVERLAP}], got {self.overlap}")
        if self.rotations not in QUARTER_TURNS:
            raise ValueError(f"rotations must be 1, 2 or 4, got {self.rotations}")


PRESETS = {
    "paper": InferenceSettings(),
    "fast": InferenceSettings(overlap=0.25, rotations=2, whole_image=True),  # one rotation costs > 0.01 of PCC
}
