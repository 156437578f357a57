"""The same random crop, turn and mirror for an input and its targets (paper section 2.2)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """One draw: where the crop starts (pixels of the padded image), quarter turns, and mirrors."""

    top: int
    left: int
    turns: int
    mirror_y: bool
    mirror_x: bool

    @staticmethod
    def draw(rng: np.random.Generator, shape: tuple[int, int], crop: int) -> "Augmentation":
        """Draw uniformly: position over all places where a crop fits, turns over 0..3, mirrors with p = 0.5."""
        top, left = (int(rng.integers(0, max(size - crop, 0) + 1)) for size in shape)
        return Augmentation(top, left, int(rng.integers(4)), bool(rng.integers(2)), bool(rng.integers(2)))

    def apply(self, image_YX: np.ndarray, crop: int) -> np.ndarray:
        """Return the (crop, crop) patch, contiguous; an image smaller than the crop is reflected symmetrically."""
        cut = image_YX[self.top : self.top + crop, self.left : self.left + crop]
        missing = [crop - size for size in cut.shape]
        if any(missing):
            cut = np.pad(cut, [(m // 2, m - m // 2) for m in missing], mode="symmetric")
        cut = np.rot90(cut, self.turns)
        return np.ascontiguousarray(cut[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])
