"""Read the planes of a TIFF, found by OME-XML or whatever else tells which plane is which."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .grey import to_grey
from .limits import refuse
from .ome_xml import check_levels, looks_like_ome, read_stack_metadata
from .reader import LostCompanionError, parse_description, plane_info, trusted_pixel_size
from .stack import Channel, Position, Stack, StackInfo, check_index, check_scene, describing_scene, in_grid, index_step
from .tiff import TiffReader
from .tiff_positions import StatedPlanes

_AXES = ("times", "channels", "focal planes")


class TiffStack(Stack):
    """The planes of a scene of an open TIFF."""

    def __init__(self, path: Path, scene: int) -> None:
        self._tiff = TiffReader(path, scene)
        try:
            self.info, self._numbers = self._describe(path, scene)
        except BaseException:
            self.close()
            raise

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        return to_grey(self._tiff.read(self._numbers[t, c, z]))

    def close(self) -> None:
        """Close the file."""
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
            return plane_info(path, self._tiff).as_stack(), {(0, 0, 0): 0}
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
                ome = read_stack_metadata(root, path, tiff.directories, tiff.chain, tiff.shape, file_uuid, scene)
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


def _apart(kept: Sequence[int], distance: float | None) -> float | None:
    """Distance of the planes that are kept, by that of the stated ones; None where it differs."""
    if distance is None or len(kept) == 1:
        return distance
    step = index_step(kept)
    return None if step is None else distance * step
