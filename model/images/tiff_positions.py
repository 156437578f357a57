"""Tell the planes of a TIFF apart where no OME-XML does: by ImageJ's text, tifffile's, MetaMorph's tags, or by order.

Also where they lie: each behind a directory of its own, or all of them behind one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile

from .limits import refuse
from .stack import Channel, Position, check_scene
from .tiff_directories import Directories
from .tiff_programs import is_micro_manager, read_micro_manager_planes, read_stk_planes
from .units import seconds_per_unit, um_per_unit

_UIC2 = 33629  # MetaMorph: as many values as there are planes behind the directory
_NAMED_AXES = "TCZ"


@dataclass(frozen=True)
class StatedPlanes:
    """What the file says of its planes.

    Attributes
    ----------
    positions : mapping of int to (int, int, int)
        (t, c, z) of each plane by its number in the file, in this order.
    channels : mapping of int to Channel
        Of each c that is described.
    data_offset : int or None
        Where the pixels of all planes begin, uncompressed and one behind the other; None: each has a directory.
    z_step_um, time_increment_s : float or None
    warnings : tuple of str
    scenes : int
        Of how many stage positions or series the file has planes; these are of one of them.
    scene_name : str or None
    """

    positions: Mapping[int, Position]
    channels: Mapping[int, Channel] = field(default_factory=dict)
    data_offset: int | None = None
    z_step_um: float | None = None
    time_increment_s: float | None = None
    warnings: tuple[str, ...] = ()
    scenes: int = 1
    scene_name: str | None = None


def count_planes(tif: tifffile.TiffFile, directories: Directories) -> int:
    """How many planes there are, by whatever the writing program says of it: some lie behind one directory."""
    page = directories.pages[0]
    planes = [len(directories.pages), int(page.imagedepth)]
    if _UIC2 in page.tags:
        planes.append(int(page.tags[_UIC2].count))
    if tif.is_imagej and tif.imagej_metadata:
        planes.append(int(tif.imagej_metadata.get("images", 1)))
    if not tif.is_ome and not is_micro_manager(tif):  # whose series take in other files of the data set
        pixels = max(1, page.imagelength * page.imagewidth * page.samplesperpixel)
        planes += [int(series.size) // pixels for series in tif.series if series.keyframe is page]
    return max(planes)


def read_stated_planes(
    path: Path, tif: tifffile.TiffFile, directories: Directories, planes: int, scene: int
) -> StatedPlanes:
    """Say which time, channel and focal plane each of several planes is; of Micro-Manager those of one scene.

    Axes that have no name are taken as focal planes, with a warning.

    Raises
    ------
    UserError
        Where the file says something else than it holds, or has several axes without a name.
    """
    page = directories.pages[0]
    if is_micro_manager(tif):
        if found := read_micro_manager_planes(path, directories.pages, scene):
            return StatedPlanes(found.positions, found.channels, scenes=found.scenes, scene_name=found.scene_name)
        check_scene(path, scene, 1)
        return StatedPlanes(_of_axes({"Z": planes}, planes), warnings=(_nameless(planes),))
    check_scene(path, scene, 1)
    series = None if tif.is_ome else next((series for series in tif.series if series.keyframe is page), None)
    offset = None if len(directories.pages) == planes else _contiguous(path, tif, series, planes)
    if _UIC2 in page.tags and not tif.is_ome:
        positions, channels = read_stk_planes(tif, planes)
        return StatedPlanes(dict(enumerate(positions)), channels, offset)
    axes, lengths = "Q", (planes,)
    if series is not None:
        sized = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
        axes, lengths = "".join(axis for axis, _ in sized), tuple(length for _, length in sized)
    if math.prod(lengths) != planes:
        refuse(path, f"{math.prod(lengths)} planes where its description states {planes}", "as many as it states")
    sizes, warnings = _named(path, axes, lengths)
    z_step_um, time_increment_s = _imagej_steps(tif)
    return StatedPlanes(_of_axes(sizes, planes), {}, offset, z_step_um, time_increment_s, warnings)


def _named(path: Path, axes: str, lengths: tuple[int, ...]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Lengths of the axes T, C and Z in their order; one axis of several planes may be without a name."""
    long = [(axis, length) for axis, length in zip(axes, lengths, strict=True) if length > 1]
    nameless = [length for axis, length in long if axis not in _NAMED_AXES]
    sizes = {axis if axis in _NAMED_AXES else "Z": length for axis, length in long}
    if len(sizes) < len(long):
        stated = " x ".join(map(str, lengths))
        refuse(path, f"{stated} planes along axes without a name", "OME-XML or ImageJ's text that names T, C and Z")
    if not nameless:
        return sizes, ()
    return sizes, (_nameless(nameless[0]),)


def _nameless(planes: int) -> str:
    return f"nothing tells what its {planes} planes are, so they are taken as focal planes"


def _of_axes(sizes: Mapping[str, int], planes: int) -> dict[int, Position]:
    return {number: _position(number, sizes) for number in range(planes)}


def _position(number: int, sizes: Mapping[str, int]) -> Position:
    index = {}
    for axis, length in reversed(list(sizes.items())):
        number, index[axis] = divmod(number, length)
    return index.get("T", 0), index.get("C", 0), index.get("Z", 0)


def _contiguous(path: Path, tif: tifffile.TiffFile, series: Any, planes: int) -> int:
    """Where the pixels begin of planes that lie behind one directory."""
    page = tif.pages.first if series is None else series.keyframe
    if page.samplesperpixel > 1:
        refuse(path, f"{planes} RGB planes behind one directory", "a directory for each plane")
    offset = None if series is None else series.dataoffset
    if offset is None:
        refuse(path, f"{planes} planes behind one directory, compressed or in pieces", "a directory for each plane")
    if offset + planes * page.imagelength * page.imagewidth * (page.bitspersample // 8) > path.stat().st_size:
        refuse(path, "a truncated TIFF")
    return int(offset)


def _imagej_steps(tif: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """ImageJ's distance of slices in µm and interval of frames in s."""
    stated = (tif.imagej_metadata or {}) if tif.is_imagej else {}

    def positive(value: object) -> float | None:
        return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None

    um = um_per_unit(str(stated.get("zunit", stated.get("unit", ""))))
    seconds = seconds_per_unit(str(stated.get("tunit", "s")))
    z_step, interval = positive(stated.get("spacing")), positive(stated.get("finterval"))
    return (z_step * um if z_step and um else None), (interval * seconds if interval and seconds else None)
