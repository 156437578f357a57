"""One image to predict: where it comes from, what it is called, and where its outputs go."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from .commands import one_line
from .errors import UserError
from .grand_challenge import output_folder
from .images.stack import check_scene
from .labels import Organelle
from .naming import is_input, prediction_filename


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
    ends_file : bool
        Whether no other case comes from the same file after this one.
    """

    source: Path
    name: str
    output: Path
    original_name: str | None = None
    scene: int | None = None
    ends_file: bool = True

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
        return replace(self, scene=None, ends_file=True)

    def of_scenes(self, scenes: int, wanted: int | None) -> list["Case"]:
        """Make a case of each scene of a file; the case itself where there is but one.

        Parameters
        ----------
        scenes : int
            How many the file holds.
        wanted : int or None
            The only one to take.

        Raises
        ------
        UserError
            Where there is no such scene, or another image beside the file is predicted into the same output.
        """
        check_scene(self.source, wanted or 0, scenes)
        if scenes == 1:
            return [self]
        numbers = range(scenes) if wanted is None else [wanted]
        cases = [replace(self, scene=number, ends_file=number == numbers[-1]) for number in numbers]
        outputs = {os.path.basename(case.output_name) for case in cases}
        for beside in os.listdir(self.source.parent):
            if is_input(beside) and prediction_filename(beside) in outputs:
                raise UserError(
                    f"{self.source}: found {beside} beside it, which is predicted into the same file as one of its "
                    f"{scenes} scenes, expected another name."
                )
        return cases
