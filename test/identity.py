"""A stand-in for networks whose prediction is their input, and images to show it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from model.checkpoint import read_metadata
from model.labels import Organelle


class Identity:
    """Stands in for every network: each head returns the input; notes what it was asked."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked: list[tuple[str, tuple[Organelle, ...]]] = []
        self.inputs: list[Tensor] = []
        self.codes: list[Tensor | None] = []

    def load(self, path: Path, device: str) -> tuple[Any, Any]:
        self.loaded.append(path.stem)

        def network(x: Tensor, organelles: Sequence[Organelle], code: Tensor | None) -> Tensor:
            self.asked.append((path.stem, tuple(organelles)))
            self.inputs.append(x)
            self.codes.append(code)
            return x.expand(-1, len(organelles), -1, -1)

        return network, read_metadata(path)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)
