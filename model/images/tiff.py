"""The one plane of a TIFF, its header's claims checked before anything is decoded.

Reading goes by the TIFF's pages, not by tifffile's OME series: those follow the XML to other files of a
data set, and an XML that promises more than the file holds would decide over its pixels.
"""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ..errors import UserError
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, refuse
from .ome_xml import plausible_pixel_size

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UM_PER_RESOLUTION_UNIT = {"CENTIMETER": 1e4, "INCH": 25_400.0, "MILLIMETER": 1e3, "MICROMETER": 1.0}
_IMAGEJ_MICROMETRE = {"micron", "um", "µm", "\\u00B5m"}

# What tifffile has to say of damaged files is said by UserError; without this it lands on stderr as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffPlane:
    """Pixels (Y, X) uint8 or uint16, ImageDescription, and pixel size (y, x) in µm by the resolution tags."""

    pixels: np.ndarray[Any, Any]
    description: str
    tag_pixel_size_um: tuple[float, float] | None


def read_tiff(path: Path) -> TiffPlane:
    """Read the only plane of a classic or BigTIFF of either byte order; UserError for anything else."""
    with _opened(path) as tif:
        page = _only_page(path, tif)
        try:
            pixels = page.asarray().reshape(page.imagelength, page.imagewidth)
        except MemoryError as error:
            raise UserError(f"{path}: memory is short of {page.imagewidth} x {page.imagelength} px.") from error
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise UserError(f"{path}: found damaged pixel data, expected {EXPECTED_PLANE}.") from error
        return TiffPlane(pixels, str(page.description), _tag_pixel_size(tif, page))


def read_description(path: Path) -> str:
    """Return the ImageDescription of the first page, empty if there is none; raises UserError."""
    with _opened(path) as tif:
        return str(tif.pages[0].description) if len(tif.pages) else ""  # type: ignore[union-attr,unused-ignore]


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    check_is_file(path)
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            refuse(path, "content that is not TIFF", "a TIFF file")
    try:
        with tifffile.TiffFile(path) as tif:
            _check_tags(path, tif)
            yield tif
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # struct, value, index, tifffile's own: a header that lies can raise any
        raise UserError(f"{path}: found a damaged or truncated TIFF, expected {EXPECTED_PLANE}.") from error


def _check_tags(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file whose first directory points beyond its end; tifffile would only lose the tag, OME-XML and all."""
    if not len(tif.pages):
        return
    header, file_bytes = tif.tiff, path.stat().st_size
    tif.filehandle.seek(tif.pages.first.offset)
    (number,) = struct.unpack(header.tagnoformat, tif.filehandle.read(header.tagnosize))
    entry = header.byteorder + header.tagformat1[1:] + header.tagformat2[1:]
    for _, kind, count, stored in struct.iter_unpack(entry, tif.filehandle.read(number * header.tagsize)):
        value_bytes = count * struct.calcsize(tifffile.TIFF.DATA_FORMATS.get(kind, ""))
        if value_bytes <= header.tagoffsetthreshold:
            continue  # it stands in the directory itself
        if struct.unpack(header.offsetformat, stored)[0] + value_bytes > file_bytes:
            refuse(path, "a truncated TIFF")


def _only_page(path: Path, tif: tifffile.TiffFile) -> Any:
    """Return the one page with pixels, its claims checked, nothing decoded yet."""
    pages: list[Any] = list(tif.pages)
    if not pages:
        refuse(path, "a truncated TIFF, or one without pixels")
    page = pages[0]
    planes = sum(not candidate.is_reduced for candidate in pages)  # a pyramid's small copies are no planes
    if tif.is_imagej and tif.imagej_metadata:
        # ImageJ writes large stacks with a single page; the count then stands in the description alone.
        planes = max(planes, int(tif.imagej_metadata.get("images", 1)))
    planes = max(planes, int(page.imagedepth))
    if planes > 1:
        refuse(path, f"{planes} planes")
    bytes_per_pixel = max(1, page.bitspersample // 8)
    check_claimed_size(path, page.imagelength, page.imagewidth, bytes_per_pixel, of="a plane")
    photometric = tifffile.PHOTOMETRIC(page.photometric).name if page.photometric is not None else "UNKNOWN"
    if page.samplesperpixel > 1 or photometric != "MINISBLACK":
        refuse(path, f"pixels of kind {photometric} with {page.samplesperpixel} value(s) each")
    if page.bitspersample not in (8, 16) or page.sampleformat not in (None, tifffile.SAMPLEFORMAT.UINT):
        kind = page.dtype if page.bitspersample in (8, 16, 32, 64) else f"{page.bitspersample} bits"
        refuse(path, f"pixels of type {kind}")
    if page.is_tiled:
        check_claimed_size(path, page.tilelength, page.tilewidth, bytes_per_pixel, of="tiles")
    _check_segments(path, page)
    return page


def _check_segments(path: Path, page: Any) -> None:
    """Refuse strips or tiles that are missing, which would be read as zeros, or lie beyond the file's end."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if not any(offsets) or not any(counts):
        refuse(path, "a truncated TIFF, or one without pixels")
    file_bytes = path.stat().st_size
    complete = len(offsets) == len(counts) == int(np.prod(page.chunked)) and all(offsets) and all(counts)
    if not complete or any(start + count > file_bytes for start, count in zip(offsets, counts, strict=True)):
        refuse(path, "a truncated TIFF")
    if page.compression == tifffile.COMPRESSION.NONE and sum(counts) < page.nbytes:
        refuse(
            path,
            f"{sum(counts)} bytes of pixels",
            f"{page.nbytes} for {page.imagewidth} x {page.imagelength}",
        )


def _tag_pixel_size(tif: tifffile.TiffFile, page: Any) -> tuple[float, float] | None:
    """Pixel size (y, x) in µm by XResolution and YResolution, where their unit is a length."""
    try:
        y_per_unit, x_per_unit = (n / d for n, d in (page.tags[f"{axis}Resolution"].value for axis in "YX"))
        unit = page.tags.valueof("ResolutionUnit", default=tifffile.RESUNIT.INCH)  # TIFF 6.0's default
        um_per_unit = _UM_PER_RESOLUTION_UNIT.get(tifffile.RESUNIT(unit).name)
        if tif.is_imagej and (tif.imagej_metadata or {}).get("unit") in _IMAGEJ_MICROMETRE:
            um_per_unit = 1.0
        if um_per_unit is None:
            return None
        return plausible_pixel_size((um_per_unit / y_per_unit, um_per_unit / x_per_unit))
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None  # absent or senseless tags tell nothing
