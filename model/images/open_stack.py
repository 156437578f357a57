"""Open an image file of any kind that is read here: TIFF, OME-TIFF, .mha, OME-Zarr, ND2, CZI, LIF."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..naming import UNREAD_SUFFIXES
from .grey import to_grey
from .limits import refuse
from .ome_xml import check_levels, looks_like_ome, read_stack_metadata
from .ome_zarr_collection import is_zarr_group
from .reader import (
    ImageInfo,
    LostCompanionError,
    inspect,
    is_mha,
    parse_description,
    plane_info,
    read_image,
    trusted_pixel_size,
)
from .stack import Channel, Position, Stack, StackInfo, check_index, check_scene, describing_scene, in_grid, index_step
from .tiff import TiffReader
from .tiff_positions import StatedPlanes

_AXES = ("times", "channels", "focal planes")
_EXPORTING_PROGRAMS = {".lsm": "ZEN"}


def open_stack(path: str | Path, scene: int | None = None) -> Stack:
    """Open a file of one or more planes; its planes are read when they are asked for.

    Parameters
    ----------
    path : str or Path
        A file, or the folder of an OME-Zarr image.
    scene : int or None
        Which of the stage positions or series of a file, from 0; None: the first. `StackInfo.scenes` tells how many
        there are.

    Returns
    -------
    Stack
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    UserError
        One sentence, where it cannot be read, holds something else than planes of grey values or RGB, or does
        not say which plane is which.
    """
    path, scene = Path(path), scene or 0
    suffix = path.suffix.lower()
    if suffix == ".zarr" or is_zarr_group(path):
        from .ome_zarr import open_ome_zarr

        check_scene(path, scene, 1)
        return open_ome_zarr(path)
    if suffix == ".nd2":
        from .nd2_reader import open_nd2

        return open_nd2(path, scene)
    if suffix == ".czi":
        from .czi_reader import open_czi

        return open_czi(path, scene)
    if suffix == ".lif":
        from .lif_reader import open_lif

        return open_lif(path, scene)
    if suffix in UNREAD_SUFFIXES:
        program = _EXPORTING_PROGRAMS.get(suffix, "Fiji (Bio-Formats Exporter)")
        refuse(path, f"the unsupported format {suffix[1:].upper()}", f"OME-TIFF, exported by {program}")
    if is_mha(path):
        check_scene(path, scene, 1)
        return _MhaStack(path)
    return _TiffStack(path, scene)


class _MhaStack(Stack):
    """The only plane of a MetaImage file."""

    def __init__(self, path: Path) -> None:
        self.info = _of_one_plane(inspect(path))

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        check_index(self.info, t, c, z)
        return read_image(self.info.path).pixels

    def close(self) -> None:
        pass


class _TiffStack(Stack):
    """The planes of a TIFF, found by OME-XML or whatever else tells which plane is which."""

    def __init__(self, path: Path, scene: int) -> None:
        self._tiff = TiffReader(path, scene)
        try:
            self.info, self._numbers = self._describe(path, scene)
        except BaseException:
            self.close()
            raise

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        check_index(self.info, t, c, z)
        return to_grey(self._tiff.read(self._numbers[t, c, z]))

    def close(self) -> None:
        self._tiff.close()

    def _describe(self, path: Path, scene: int) -> tuple[StackInfo, Mapping[Position, int]]:
        """Describe a scene of the file, and tell the number in the file of each of its planes by its position."""
        tiff = self._tiff.info
        if tiff.scenes > 1:  # its planes are those of the scene already
            with describing_scene(path, scene, tiff.scenes):
                info, numbers = self._describe_planes(path, 0)
            return replace(info, scenes=tiff.scenes), numbers
        return self._describe_planes(path, scene)

    def _describe_planes(self, path: Path, scene: int) -> tuple[StackInfo, Mapping[Position, int]]:
        tiff = self._tiff.info
        if tiff.planes == 1:
            check_scene(path, scene, 1)
            return _of_one_plane(plane_info(path, self._tiff)), {(0, 0, 0): 0}
        provenance: Mapping[str, str] = {}
        size, states_size, warnings = None, False, list(tiff.warnings)
        stated: StatedPlanes | None = None
        if looks_like_ome(tiff.description):
            try:
                root, file_uuid, provenance = parse_description(path, tiff.description)
            except LostCompanionError as error:
                refuse(path, f"{tiff.planes} planes, but {error}", "that file beside it")
            except ValueError as error:
                warnings.append(f"{error}, so pixel size and channels are unknown")
                states_size = True
            else:
                warnings += check_levels(root, path, tiff.shape, tiff.unmarked_levels, file_uuid)
                ome = read_stack_metadata(root, path, tiff.directories, tiff.shape, file_uuid, scene)
                size, states_size = ome.pixel_size_um, ome.states_size
                steps = ome.z_step_um, ome.time_increment_s
                scene_of = ome.scenes, ome.scene_name
                stated = StatedPlanes(ome.positions, ome.channels, None, *steps, ome.warnings, *scene_of)
        if stated is None:
            stated = self._tiff.read_stated_planes(scene)
        with describing_scene(path, scene, stated.scenes):
            warnings += self._tiff.check(stated.positions)
        numbers, kept = in_grid(stated.positions)
        gaps = [axis for axis, held in zip(_AXES, kept, strict=True) if len(held) > 1 and index_step(held) != 1]
        if gaps:
            warnings.append(f"it lacks {' and '.join(gaps)} between others, and those that it has are counted from 0")
        info = StackInfo(
            path,
            tiff.shape,
            times=len(kept[0]),
            channels=tuple(stated.channels.get(c, Channel()) for c in kept[1]),
            focal_planes=len(kept[2]),
            stored=frozenset(numbers) if len(numbers) < math.prod(map(len, kept)) else None,
            pixel_size_um=trusted_pixel_size(tiff, size, states_size),
            z_step_um=_apart(kept[2], stated.z_step_um),
            time_increment_s=_apart(kept[0], stated.time_increment_s),
            provenance=provenance,
            warnings=(*warnings, *stated.warnings),
            scenes=stated.scenes,
            scene_name=stated.scene_name,
        )
        return info, numbers


def _of_one_plane(info: ImageInfo) -> StackInfo:
    return StackInfo(
        info.path,
        info.shape,
        channels=(Channel(info.channel, info.modality, info.transmitted),),
        pixel_size_um=info.pixel_size_um,
        provenance=info.provenance,
        warnings=info.warnings,
    )


def _apart(kept: Sequence[int], distance: float | None) -> float | None:
    """Distance of the planes that are kept, by that of the stated ones; None where it differs."""
    if distance is None or len(kept) == 1:
        return distance
    step = index_step(kept)
    return None if step is None else distance * step
