"""Predicted planes of one case until all are there: in memory for a single plane, else on the disk, to go on later."""

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .errors import UserError
from .images import inspect, read_image, write_plane
from .labels import Organelle
from .outputs import Content, Planes

_FOLDER = ".planes"  # hidden, so that it is no input of a later run

Provenance = Mapping[Organelle, Mapping[str, str]]


class PlaneStore(Planes, Protocol):
    """Takes predicted planes, and gives them back when the files are written."""

    def holds(self, t: int, z: int, contents: tuple[Content, ...], provenance: Provenance) -> bool:
        """Whether these planes were kept before, made as `provenance` says."""

    def add(self, t: int, z: int, planes: Mapping[Content, NDArray[np.uint16]], provenance: Provenance) -> None:
        """Keep planes (Y, X)."""

    def provenance(self, t: int, z: int, organelle: Organelle) -> Mapping[str, str]:
        """Say what was recorded with a plane."""

    def remove(self) -> None:
        """Free what is kept."""


@dataclass
class PlanesInMemory:
    """The planes of a case that has a few."""

    planes: dict[tuple[int, int, Content], NDArray[np.uint16]] = field(default_factory=dict)
    recorded: dict[tuple[int, int, Organelle], Mapping[str, str]] = field(default_factory=dict)

    def holds(self, t: int, z: int, contents: tuple[Content, ...], provenance: Provenance) -> bool:
        """Whether these planes were added."""
        return all((t, z, content) in self.planes for content in contents)

    def add(self, t: int, z: int, planes: Mapping[Content, NDArray[np.uint16]], provenance: Provenance) -> None:
        """Keep planes (Y, X)."""
        self.planes |= {(t, z, content): plane for content, plane in planes.items()}
        self.recorded |= {(t, z, organelle): entries for organelle, entries in provenance.items()}

    def read(self, t: int, z: int, content: Content) -> NDArray[np.uint16]:
        """Give a plane back."""
        return self.planes[t, z, content]

    def provenance(self, t: int, z: int, organelle: Organelle) -> Mapping[str, str]:
        """Say what was recorded with a plane."""
        return self.recorded[t, z, organelle]

    def remove(self) -> None:
        """Free all planes."""
        self.planes.clear()


class PlanesOnDisk:
    """The planes of a case in a hidden folder beside the outputs, each with its provenance."""

    def __init__(self, case: Case) -> None:
        self._parent = case.output / _FOLDER
        self._folder = self._parent / hashlib.sha256(case.output_name.encode(errors="surrogateescape")).hexdigest()[:32]

    def holds(self, t: int, z: int, contents: tuple[Content, ...], provenance: Provenance) -> bool:
        """Whether these planes can be read to their last pixel, and say what they would say if they were made now."""
        try:
            return all(
                self._recorded(t, z, content).items() >= provenance[organelle].items()
                for content in contents
                if (organelle := content.organelle)
            )
        except UserError:  # absent or damaged
            return False

    def add(self, t: int, z: int, planes: Mapping[Content, NDArray[np.uint16]], provenance: Provenance) -> None:
        """Write planes (Y, X); UserError where that cannot be done."""
        for content, plane in planes.items():
            recorded = provenance.get(content.organelle) if content.organelle else None
            write_plane(
                self._path(t, z, content), plane, channel=content.title, pixel_size_um=None, provenance=recorded
            )

    def read(self, t: int, z: int, content: Content) -> NDArray[np.uint16]:
        """Read a plane."""
        return read_image(self._path(t, z, content)).pixels

    def provenance(self, t: int, z: int, organelle: Organelle) -> Mapping[str, str]:
        """Say what was recorded with a plane."""
        return inspect(self._path(t, z, Content(organelle))).provenance

    def remove(self) -> None:
        """Remove the folder, and the one above it when it is empty."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # absent, or other cases are in it
            self._parent.rmdir()

    def _recorded(self, t: int, z: int, content: Content) -> Mapping[str, str]:
        return read_image(self._path(t, z, content)).info.provenance

    def _path(self, t: int, z: int, content: Content) -> Path:
        return self._folder / f"t{t}_z{z}_{content.title.replace(' ', '_')}.tiff"
