"""The transmitted-light planes and truths of a folder in the challenge's layout, which most benchmarks go through."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import Image, Organelle, read_image
from model.naming import InputName, TargetName, parse


@dataclass(frozen=True)
class Plane:
    """One transmitted-light plane: its file, and what the file's name says."""

    path: Path
    name: InputName

    @cached_property
    def image(self) -> Image:
        """Pixels (Y, X) of uint16 and metadata."""
        return read_image(self.path)

    def truth_path(self, organelle: Organelle) -> Path:
        """Return where the organelle's fluorescence lies, if there is any."""
        return self.path.with_name(TargetName(self.name.image, organelle).filename)

    def truths(self) -> dict[Organelle, NDArray[np.uint16]]:
        """Return the fluorescence (Y, X) of every organelle that has one."""
        paths = {organelle: self.truth_path(organelle) for organelle in Organelle}
        return {organelle: read_image(path).pixels for organelle, path in paths.items() if path.exists()}


def planes(folder: Path) -> Iterator[Plane]:
    """Go through a folder and those below it, in the order of the files' names."""
    for path in sorted(folder.rglob("*.tif*")):
        name = parse(path.name)
        if isinstance(name, InputName):
            yield Plane(path, name)
