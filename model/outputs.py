"""The files of a prediction: which there are for a case, what each holds, and how they are written."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .discovery import is_prediction
from .display import display_range
from .errors import UserError
from .grand_challenge import DISAGREEMENT, MERGED_FOLDER, output_folder
from .images import write_plane
from .images.ome_stack_writer import write_ome_tiff_stack
from .images.open_stack import open_stack
from .images.stack import OutputChannel, Stack
from .labels import ORGANELLE_COLOURS, Organelle

Layout = Literal["organelles", "merged"]
FileFormat = Literal["tiff", "zarr"]
_WHITE = "FFFFFF"


@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    Attributes
    ----------
    layout : {"organelles", "merged"}
        A file for each organelle, or one with the input and all organelles as channels.
    file_format : {"tiff", "zarr"}
        OME-TIFF or OME-Zarr.
    disagreement : bool
        Whether to write, for each organelle, how much the predictions that are averaged disagree.
    """

    layout: Layout = "organelles"
    file_format: FileFormat = "tiff"
    disagreement: bool = False


@dataclass(frozen=True)
class Content:
    """What a channel shows: the input (no organelle), a prediction, or the disagreement about it."""

    organelle: Organelle | None = None
    disagreement: bool = False

    @property
    def title(self) -> str:
        """Name of the channel, e.g. ``Nucleus``."""
        if self.organelle is None:
            return "Input"
        return f"{self.organelle.label} {DISAGREEMENT}" if self.disagreement else self.organelle.label

    @property
    def colour(self) -> str:
        """Hexadecimal RGB."""
        return _WHITE if self.organelle is None or self.disagreement else ORGANELLE_COLOURS[self.organelle]


@dataclass(frozen=True)
class OutputFile:
    """One file, or folder of an OME-Zarr image, and its channels in their order."""

    path: Path
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class OutputGeometry:
    """Shape and scale of what is written.

    Attributes
    ----------
    times, focal_planes : int
    shape : (int, int)
        Rows and columns.
    pixel_size_um : (float, float) or None
    z_step_um, time_increment_s : float or None
    """

    times: int
    focal_planes: int
    shape: tuple[int, int]
    pixel_size_um: tuple[float, float] | None
    z_step_um: float | None = None
    time_increment_s: float | None = None


class Planes(Protocol):
    """Where the planes of a prediction are read from while its files are written."""

    def read(self, t: int, z: int, content: Content) -> NDArray[np.uint16]:
        """Read one plane (Y, X) by its indices in the output."""


def output_files(case: Case, options: OutputOptions) -> list[OutputFile]:
    """List the files of a case, in the order of the organelles."""
    predictions = [Content(organelle) for organelle in Organelle]
    suffix = ".tiff" if options.file_format == "tiff" else ".ome.zarr"
    name = case.output_name.removesuffix(".tiff") + suffix
    files = [OutputFile(output_folder(case.output, organelle) / name, (Content(organelle),)) for organelle in Organelle]
    if options.layout == "merged":
        merged = name.removesuffix(".tiff") + ".ome.tiff" if options.file_format == "tiff" else name
        files = [OutputFile(case.output / "images" / MERGED_FOLDER / merged, (Content(), *predictions))]
    if options.disagreement:
        files += [
            OutputFile(output_folder(case.output, organelle, DISAGREEMENT) / name, (Content(organelle, True),))
            for organelle in Organelle
        ]
    return files


def former_outputs(case: Case, options: OutputOptions) -> list[OutputFile]:
    """List the files of a case that a run with other options has written, or when its file held other scenes."""
    now = {file.path for file in output_files(case, options)}
    former = [file for file in _with_any_options(case) if file.path not in now and _is_ours(file.path)]
    return former + files_of_other_scenes(case)


def files_of_other_scenes(case: Case) -> list[OutputFile]:
    """List what was predicted of the file of a case when it held one scene instead of several, or more than now."""
    file = case.whole_file
    if case.scene is not None:
        single = [output for output in _with_any_options(file) if _is_ours(output.path)]
        return single + (_scenes_from(file, case.scenes) if case.all_scenes else [])
    return _scenes_from(file, 0)


def _with_any_options(case: Case) -> list[OutputFile]:
    kinds = (OutputOptions(*kind, disagreement=True) for kind in product(get_args(Layout), get_args(FileFormat)))
    return list({file.path: file for options in kinds for file in output_files(case, options)}.values())


def write_output(file: OutputFile, planes: Planes, geometry: OutputGeometry, provenance: Mapping[str, str]) -> None:
    """Write one file, whole or not at all; a single plane of one channel as a TIFF (Y, X), all else as TCZYX."""
    zarr = file.path.suffix == ".zarr"
    if not zarr and len(file.contents) == geometry.times == geometry.focal_planes == 1:
        content = file.contents[0]
        write_plane(
            file.path,
            planes.read(0, 0, content),
            channel=content.title,
            pixel_size_um=geometry.pixel_size_um,
            provenance=provenance,
        )
        return
    if zarr:
        from .images.ome_zarr_writer import write_ome_zarr as write
    else:
        write = write_ome_tiff_stack
    write(
        file.path,
        _in_order(planes, geometry, file.contents),
        shape=(geometry.times, len(file.contents), geometry.focal_planes, *geometry.shape),
        channels=[
            OutputChannel(
                content.title,
                content.colour,
                display_range(planes.read(0, 0, content), organelle=content.organelle is not None),
            )
            for content in file.contents
        ],
        pixel_size_um=geometry.pixel_size_um,
        z_step_um=geometry.z_step_um,
        time_increment_s=geometry.time_increment_s,
        provenance=provenance,
    )


def is_written(
    file: OutputFile, geometry: OutputGeometry, provenance: Mapping[str, str], not_compared: Iterable[str]
) -> bool:
    """Whether a file can be read to its last pixel, and says of itself what it would say if it were made now."""
    compared = provenance.keys() - set(not_compared)
    expected = geometry.shape, geometry.times, len(file.contents), geometry.focal_planes
    try:
        with open_stack(file.path) as stack:
            info = stack.info
            same = expected == (info.shape, info.times, len(info.channels), info.focal_planes)
            same &= all(info.provenance.get(key) == provenance[key] for key in compared)
            return same and _is_whole(file.path, stack)
    except UserError:  # absent, damaged, or of another program
        return False


def _is_whole(path: Path, stack: Stack) -> bool:
    """Whether no plane is missing; UserError where one is damaged."""
    if path.suffix == ".zarr":
        from .images.ome_zarr_writer import keeps_all_chunks

        if not keeps_all_chunks(path):
            return False
    info = stack.info
    if info.stored:
        return False
    for position in product(range(info.times), range(len(info.channels)), range(info.focal_planes)):
        stack.read_plane(*position)
    return True


def remove_output(file: OutputFile) -> None:
    """Remove a file of an earlier run; OSError where that cannot be done. A folder that is not ours stays."""
    if file.path.suffix == ".zarr" and file.path.is_dir() and not file.path.is_symlink():
        if _is_ours(file.path):
            shutil.rmtree(file.path)
    elif os.path.lexists(file.path) and not file.path.is_dir():
        file.path.unlink()


def _is_ours(path: Path, of_scene: bool = False) -> bool:
    if not os.path.lexists(path):  # as most that are looked for
        return False
    try:
        with open_stack(path) as stack:
            provenance = stack.info.provenance
            return is_prediction(provenance) and ("scene" in provenance or not of_scene)
    except UserError:
        return False


def _scenes_from(case: Case, first: int) -> list[OutputFile]:
    """Find the outputs of the scenes of a file from a number on, until there is none of the next number."""
    name, found = os.path.basename(case.output_name).removesuffix(".tiff"), []
    for file in _with_any_options(case):
        suffix = file.path.name.removeprefix(name)
        number = first
        while _is_ours(path := file.path.with_name(f"{name}_scene{number}{suffix}"), of_scene=True):
            found.append(OutputFile(path, file.contents))
            number += 1
    return found


def _in_order(planes: Planes, geometry: OutputGeometry, contents: Sequence[Content]) -> Iterator[NDArray[np.uint16]]:
    for t in range(geometry.times):
        for content in contents:
            for z in range(geometry.focal_planes):
                yield planes.read(t, z, content)
