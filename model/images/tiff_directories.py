"""Find the directories of a TIFF that hold the image's planes: no thumbnails, no reduced levels.

Looks at tags alone. tifffile reads the directories; what it would pass over in silence, as a chain that leads beyond
the end of the file, is checked here.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from .limits import refuse
from .tiff_programs import is_micro_manager

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2  # of the former SubfileType
_MAX_DIRECTORIES = 1_000_000


@dataclass(frozen=True)
class Directories:
    """The directories of full resolution, of one shape, and their numbers in the main chain (-1: a SubIFD).

    `unmarked_levels` are the number and the shape of each that is taken for a smaller copy by its proportions alone.
    """

    pages: tuple[Any, ...]
    numbers: tuple[int, ...]
    unmarked_levels: tuple[tuple[int, tuple[int, int]], ...]
    warnings: tuple[str, ...] = ()


def check_chain(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file with a directory, or a tag's value, beyond its end, and a chain that runs in a circle.

    tifffile would only lose that directory or tag, OME-XML and all.
    """
    header, file_bytes = tif.tiff, path.stat().st_size
    stream = tif.filehandle
    stream.seek(8 if header.is_bigtiff else 4)
    (offset,) = struct.unpack(header.offsetformat, stream.read(header.offsetsize))
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > _MAX_DIRECTORIES:
            refuse(path, "a damaged TIFF, whose directories run in a circle")
        seen.add(offset)
        if offset + header.tagnosize > file_bytes:
            refuse(path, "a truncated TIFF")
        stream.seek(offset)
        (number,) = struct.unpack(header.tagnoformat, stream.read(header.tagnosize))
        entries = stream.read(number * header.tagsize)
        following = stream.read(header.offsetsize)
        if len(entries) < number * header.tagsize or len(following) < header.offsetsize:
            refuse(path, "a truncated TIFF")
        _check_values(path, header, entries, file_bytes)
        (offset,) = struct.unpack(header.offsetformat, following)


def unmarked_shapes(pages: Sequence[tuple[int, Any]]) -> dict[int, tuple[int, int]]:
    """Rows and columns of each directory that is marked neither as a mask nor as a reduced copy, by its number."""
    return {number: _shape(page) for number, page in pages if not _subfile_type(page)}


def find_planes(path: Path, directories: Sequence[tuple[int, Any]]) -> Directories:
    """Find the planes of full resolution among directories, each with its number in the chain.

    Raises
    ------
    UserError
        Where there is none, or images of several sizes.
    """
    pages = list(directories)
    if not pages:
        refuse(path, "a truncated TIFF, or one without pixels")
    seen: set[int] = set()
    for _, page in list(pages):
        offsets = page.subifds or ()
        if any(offset >= path.stat().st_size for offset in offsets):
            refuse(path, "a truncated TIFF")
        if not seen.isdisjoint(offsets) or len(set(offsets)) < len(offsets):
            refuse(path, "a damaged TIFF, several of whose directories are the same")
        seen.update(offsets)
        pages += [(-1, sub) for sub in (page.pages or ())] if offsets else []
    images = [(number, page) for number, page in pages if not _subfile_type(page) & _MASK]
    full = [(number, page) for number, page in images if not _subfile_type(page) & _REDUCED]
    warnings: tuple[str, ...] = ()
    if not full:
        if len(images) != 1:
            refuse(path, f"{len(images)} directories that are all marked as reduced copies of another image")
        full, warnings = images, ("its only image is marked as a reduced copy of another",)
    page = max((page for _, page in full), key=_area)
    larger = [other for _, other in images if _area(other) > _area(page)]
    if larger:
        refuse(path, f"a directory of {_size(larger[0])} that is marked as a reduced copy of one of {_size(page)}")
    planes = [(number, other) for number, other in full if _shape(other) == _shape(page)]
    others = [(number, other) for number, other in full if _shape(other) != _shape(page)]
    if strange := [other for _, other in others if not _is_level(other, page)]:
        refuse(path, f"several images, of {_size(page)} and {_size(strange[0])}")
    return Directories(
        tuple(page for _, page in planes),
        tuple(number for number, _ in planes),
        tuple((number, _shape(other)) for number, other in others),
        warnings,
    )


def stored_axes(tif: tifffile.TiffFile, page: Any) -> str:
    """Axes of the image as other programs will see them, e.g. ``"YX"``, or ``"QYX"`` with an axis of length 1."""
    if tif.is_ome:  # an OME-XML may lead tifffile to other files; without it, the axes are the directory's own
        return "YX" if page.ndim == 2 else str(page.axes)
    if is_micro_manager(tif):  # whose series take in other files of the data set
        return "YX"
    return next((str(series.axes) for series in tif.series if series.keyframe is page), str(page.axes))


def _is_level(other: Any, page: Any) -> bool:
    """Whether an unmarked directory is a smaller copy: a pyramid's levels have the same proportions, to a pixel."""
    full, small = _shape(page), _shape(other)
    long = int(full[1] > full[0])  # of the longer side, rounding to whole pixels changes the factor least
    factor = full[long] / max(1, small[long])
    return factor >= 1.5 and abs(full[1 - long] / factor - small[1 - long]) <= 1.0 + 1e-6


def _subfile_type(page: Any) -> int:
    """Bits of NewSubfileType, with the former SubfileType translated."""
    kind = int(page.tags.valueof(254, default=0))
    return kind | (_REDUCED if page.tags.valueof(255, default=0) == _OLD_REDUCED else 0)


def _check_values(path: Path, header: Any, entries: bytes, file_bytes: int) -> None:
    entry = header.byteorder + header.tagformat1[1:] + header.tagformat2[1:]
    for _, kind, count, stored in struct.iter_unpack(entry, entries):
        value_bytes = count * struct.calcsize(tifffile.TIFF.DATA_FORMATS.get(kind, ""))
        if value_bytes <= header.tagoffsetthreshold:
            continue  # its value is in the directory itself
        if struct.unpack(header.offsetformat, stored)[0] + value_bytes > file_bytes:
            refuse(path, "a truncated TIFF")


def _shape(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _area(page: Any) -> int:
    height, width = _shape(page)
    return height * width


def _size(page: Any) -> str:
    height, width = _shape(page)
    return f"{width} x {height} px"
