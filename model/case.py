"""One image to predict: where it comes from, what it is called, and where its outputs go."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from .commands import one_line
from .errors import SelectionError, UserError
from .grand_challenge import output_folder
from .images.stack import check_scene
from .labels import Organelle


@dataclass(frozen=True, slots=True)
class Case:
    """One image to predict.

    Attributes
    ----------
    source : Path
    name : str
        Where its predictions lie below each organelle's folder: sub-folders, base name, ``.tiff``.
    output : Path
        The output folder.
    original_name : str or None
        The file's name before the upload, where the platform states it.
    scene : int or None
        Which scene of a file of several, from 0: a stage position, or a series.
    scenes : int
        How many cases come from the same file.
    all_scenes : bool
        Whether these are all of its scenes.
    """

    source: Path
    name: str
    output: Path
    original_name: str | None = None
    scene: int | None = None
    scenes: int = 1
    all_scenes: bool = True

    @property
    def output_name(self) -> str:
        """Like `name`, with the scene: ``cells_scene3.tiff``."""
        return self.name if self.scene is None else f"{self.name.removesuffix('.tiff')}_scene{self.scene}.tiff"

    @property
    def outputs(self) -> dict[Organelle, Path]:
        """The file of each organelle's prediction."""
        return {organelle: output_folder(self.output, organelle) / self.output_name for organelle in Organelle}

    @property
    def title(self) -> str:
        """What to call it before its user, in one line: the file's name, the one it had when uploaded, the scene.

        Of a field of a plate, from the plate on.
        """
        parts = self.source.parts
        first = next((n for n, part in enumerate(parts) if part.lower().endswith(".zarr")), len(parts) - 1)
        name = os.path.join(*parts[first:])
        name = f"{name} ({self.original_name})" if self.original_name else name
        return one_line(name if self.scene is None else f"{name}, scene {self.scene}")

    @property
    def whole_file(self) -> "Case":
        """The case of the file, before it was known to hold several scenes."""
        return replace(self, scene=None, scenes=1, all_scenes=True)

    def of_scenes(self, scenes: int, wanted: int | None) -> list["Case"]:
        """Make a case of each scene of a file, or of the only one that is wanted; none where it holds but one.

        Raises
        ------
        SelectionError
            Where there is no such scene.
        """
        try:
            check_scene(self.source, wanted or 0, scenes)
        except UserError as error:
            raise SelectionError(str(error)) from error
        numbers = range(scenes) if wanted is None else [wanted]
        if scenes == 1:
            return []
        return [replace(self, scene=number, scenes=len(numbers), all_scenes=wanted is None) for number in numbers]
