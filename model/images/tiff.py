"""Read the planes of a TIFF; their tags are checked before anything is decoded.

Reading goes by the TIFF's directories, not by tifffile's OME series: those follow the XML to other files of a
data set, and an XML that promises more than the file holds would decide over its pixels.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..errors import UserError
from .grey import conversion_warnings
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, refuse
from .stack import describing_scene
from .tiff_directories import Directories, check_chain, find_planes, stored_axes
from .tiff_positions import StatedPlanes, count_planes, read_stated_planes
from .tiff_programs import ProgramMetadata, is_micro_manager, read_program_metadata
from .tiff_scenes import split_by_size
from .units import plausible_pixel_size, um_per_unit

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UM_PER_RESOLUTION_UNIT = {"CENTIMETER": 1e4, "INCH": 25_400.0, "MILLIMETER": 1e3, "MICROMETER": 1.0}
_NO_PREDICTOR, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3
_CODECS_WITH_PREDICTOR = {"LZW", "DEFLATE", "ADOBE_DEFLATE", "ZSTD", "LZMA"}
_TOP_LEFT = 1
_BITS = {"UINT": (8, 16, 32, 64), "INT": (8, 16, 32, 64), "IEEEFP": (16, 32, 64)}
_EXPECTED_PIXELS = f"{EXPECTED_PLANE} with 0 as black (MINISBLACK), or RGB"

# What tifffile has to say of damaged files is said by UserError; without this it lands on stderr as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffInfo:
    """What a TIFF's tags say about its planes.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    axes : str
        Axes as stored: "YX", or more letters where there are axes of length 1.
    planes : int
        How many planes of full resolution there are.
    directories : tuple of int
        Numbers of the planes' directories in the chain from 0 (-1: a SubIFD); one, if all planes lie behind it.
    chain : int
        How many directories the chain has.
    unmarked_levels : tuple of (int, (int, int))
        As in `Directories`.
    description : str
        ImageDescription of the first directory, where OME-XML and ImageJ's text stand.
    software : str
    program : ProgramMetadata
        What microscope programs write elsewhere than in OME-XML.
    tag_pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm by the resolution tags and, of ImageJ, its unit.
    warnings : tuple of str
    scenes : int
        How many OME Images of several sizes there are, each a scene; 1 where all have one size.
    """

    shape: tuple[int, int]
    axes: str
    planes: int
    directories: tuple[int, ...]
    chain: int
    unmarked_levels: tuple[tuple[int, tuple[int, int]], ...]
    description: str
    software: str
    program: ProgramMetadata
    tag_pixel_size_um: tuple[float, float] | None
    warnings: tuple[str, ...]
    scenes: int = 1


class TiffReader:
    """An open classic or BigTIFF; UserError for what holds no planes of grey values or RGB.

    Of one with OME Images of several sizes, the planes are those of the Image number `scene`; None refuses it.
    """

    def __init__(self, path: Path, scene: int | None = None) -> None:
        self.path = path
        self._opened = ExitStack()
        self._checked: set[int] = set()
        self._tif = self._opened.enter_context(_opened(path))
        try:
            with _as_user_errors(path):
                pages = list(enumerate(self._tif.pages))  # tifffile reads each directory anew when it is asked again
                images = [] if scene is None else split_by_size(path, pages)
                at = scene or 0 if images else 0
                with describing_scene(path, at, max(1, len(images))):
                    mine = [(n, page) for n, page in pages if n in images[at]] if images else pages
                    self._directories = find_planes(path, mine)
                planes = count_planes(self._tif, self._directories)
                self.info = replace(_info(self._tif, self._directories, planes), scenes=max(1, len(images)))
        except UserError:
            self.close()
            raise
        self._data_offset: int | None = None

    def check(self, numbers: Iterable[int] = (0,)) -> tuple[str, ...]:
        """Check the tags of planes by their numbers, to be called before `read`.

        Returns
        -------
        tuple of str
            How they are taken as grey values.
        """
        warnings: dict[str, None] = {}
        pages = self._directories.pages
        with _as_user_errors(self.path):
            for number in numbers if len(pages) > 1 else (0,):
                page = pages[number]
                if number not in self._checked:
                    _check_page(self.path, page)
                    self._checked.add(number)
                warnings |= dict.fromkeys(conversion_warnings(page.dtype, page.samplesperpixel))
        return tuple(warnings)

    def read_stated_planes(self, scene: int) -> StatedPlanes:
        """Read which plane is which, where no OME-XML tells it; before `read` where planes share a directory."""
        with _as_user_errors(self.path):
            if not is_micro_manager(self._tif):
                self.check(range(len(self._directories.pages)))
            stated = read_stated_planes(self.path, self._tif, self._directories, self.info.planes, scene)
        self._data_offset = stated.data_offset
        return stated

    def read(self, number: int = 0) -> NDArray[Any]:
        """Read one plane (Y, X), or (Y, X, S) of RGB, by its number in the file from 0."""
        page = self._directories.pages[0 if self._data_offset is not None else number]
        shape = page.imagelength, page.imagewidth
        if tifffile.COMPRESSION(page.compression).name not in _CODECS_WITH_PREDICTOR:
            page.predictor = _NO_PREDICTOR  # the tag means nothing there; tifffile would add up each row all the same
        try:
            if self._data_offset is None:
                return _samples_last(page, np.asarray(page.asarray()))
            dtype = np.dtype(self._tif.byteorder + page.dtype.char)
            offset = self._data_offset + number * shape[0] * shape[1] * dtype.itemsize
            return np.fromfile(self.path, dtype, shape[0] * shape[1], offset=offset).reshape(shape)
        except MemoryError as error:
            raise UserError(
                f"{self.path}: there is not enough memory for {page.imagewidth} x {page.imagelength} px."
            ) from error
        except Exception as error:  # decoders raise whatever they like on damaged data
            which = f" of plane {number}" if self.info.planes > 1 else ""
            raise UserError(f"{self.path}: found damaged pixel data{which}, expected {EXPECTED_PLANE}.") from error

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF; OSError where it cannot be read."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def read_description(path: Path) -> str:
    """Read the ImageDescription of the first directory; UserError where the file is damaged."""
    with _opened(path) as tif:
        return str(tif.pages.first.description)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    check_is_file(path)
    if not is_tiff(path):
        refuse(path, "content that is not TIFF", "a TIFF file")
    with _as_user_errors(path):
        tif = tifffile.TiffFile(path)
    with tif:
        with _as_user_errors(path):
            check_chain(path, tif)
        yield tif


@contextmanager
def _as_user_errors(path: Path) -> Iterator[None]:
    """Say in one sentence what tifffile raises."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # struct, value, index, tifffile's own: a header that lies can raise any
        raise UserError(f"{path}: found a damaged or truncated TIFF, expected {EXPECTED_PLANE}.") from error


def _check_page(path: Path, page: Any) -> None:
    """Check the tags of a plane; nothing is decoded yet."""
    bytes_per_pixel = max(1, page.bitspersample // 8) * page.samplesperpixel
    check_claimed_size(path, page.imagelength, page.imagewidth, bytes_per_pixel, of="a plane")
    _check_pixel_kind(path, page)
    if page.is_tiled:
        check_claimed_size(path, page.tilelength, page.tilewidth, bytes_per_pixel, of="tiles")
    _check_codec(path, page)
    _check_segments(path, page)


def _check_pixel_kind(path: Path, page: Any) -> None:
    """Refuse all but grey values with 0 as black, or RGB of 8 or 16 bits, with the first row on top."""
    if "PhotometricInterpretation" not in page.tags:
        refuse(path, "no photometric interpretation (whether 0 is black or white)", _EXPECTED_PIXELS)
    photometric = _name(tifffile.PHOTOMETRIC, page.photometric)
    if (photometric, page.samplesperpixel) not in (("MINISBLACK", 1), ("RGB", 3), ("RGB", 4)):
        found = f"pixels of photometric interpretation {photometric} with {page.samplesperpixel} value(s) each"
        refuse(path, found, _EXPECTED_PIXELS)
    if page.samplesperpixel > 1 and page.planarconfig not in tuple(tifffile.PLANARCONFIG):
        refuse(path, f"colours in planar configuration {page.planarconfig}", "CONTIG or SEPARATE")
    sample_format = _name(tifffile.SAMPLEFORMAT, page.sampleformat or tifffile.SAMPLEFORMAT.UINT)
    if page.bitspersample not in _BITS.get(sample_format, ()):
        refuse(path, f"pixels of {page.bitspersample} bits in sample format {sample_format}", _EXPECTED_PIXELS)
    if photometric == "RGB" and (sample_format != "UINT" or page.bitspersample > 16):
        refuse(path, f"RGB pixels of type {page.dtype}", "RGB of 8 or 16 bits")
    orientation = page.tags.valueof("Orientation", default=_TOP_LEFT)
    if orientation != _TOP_LEFT:
        name = _name(tifffile.ORIENTATION, orientation)
        refuse(path, f"orientation {name} (turned or mirrored when shown)", "TOPLEFT, as the pixels are stored")


def _check_codec(path: Path, page: Any) -> None:
    compression = _name(tifffile.COMPRESSION, page.compression)
    try:
        known = page.compression == tifffile.COMPRESSION.NONE or page.compression in tifffile.TIFF.DECOMPRESSORS
    except KeyError:  # how tifffile says "unknown", or that imagecodecs was built without it
        known = False
    if not known:
        refuse(path, f"compression {compression}, which is not supported", "LZW, Deflate, Zstd or none")
    predictors = (_NO_PREDICTOR, _HORIZONTAL, _FLOATING_POINT)[: 3 if page.dtype.kind == "f" else 2]
    if compression in _CODECS_WITH_PREDICTOR and page.predictor not in predictors:
        predictor = _name(tifffile.PREDICTOR, page.predictor)
        refuse(path, f"predictor {predictor}, which is not supported for {page.dtype}", "HORIZONTAL or none")


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


def _samples_last(page: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Shape decoded pixels (Y, X), or (Y, X, S) of RGB, whose samples may be stored one plane behind the other."""
    shape = page.imagelength, page.imagewidth
    if page.samplesperpixel == 1:
        return pixels.reshape(shape)
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        return np.moveaxis(pixels.reshape(page.samplesperpixel, *shape), 0, -1)
    return pixels.reshape(*shape, page.samplesperpixel)


def _info(tif: tifffile.TiffFile, directories: Directories, planes: int) -> TiffInfo:
    page, first = directories.pages[0], tif.pages.first
    return TiffInfo(
        shape=(int(page.imagelength), int(page.imagewidth)),
        axes=stored_axes(tif, page) if planes == 1 else "YX",
        planes=planes,
        directories=directories.numbers,
        chain=len(tif.pages),
        unmarked_levels=directories.unmarked_levels,
        description=str(first.description),
        software=str(first.software),
        program=read_program_metadata(tif),
        tag_pixel_size_um=_tag_pixel_size(tif, page),
        warnings=directories.warnings,
    )


def _tag_pixel_size(tif: tifffile.TiffFile, page: Any) -> tuple[float, float] | None:
    """Pixel size (y, x) in µm by XResolution and YResolution, where their unit is a length."""
    try:
        per_unit = [n / d for n, d in (page.tags[f"{axis}Resolution"].value for axis in "YX")]
        unit = page.tags.valueof("ResolutionUnit", default=tifffile.RESUNIT.INCH)  # TIFF 6.0's default
        um = [_UM_PER_RESOLUTION_UNIT.get(_name(tifffile.RESUNIT, unit))] * 2
        imagej = tif.imagej_metadata if tif.is_imagej else None
        if imagej and "unit" in imagej:
            um = [um_per_unit(str(imagej.get(key, imagej["unit"]))) for key in ("yunit", "unit")]
        if um[0] is None or um[1] is None:
            return None
        return plausible_pixel_size((um[0] / per_unit[0], um[1] / per_unit[1]))
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None  # absent or senseless tags tell nothing


def _name(kinds: Any, value: Any) -> str:
    """Return the standard's word for a tag's value; the number where it has none."""
    try:
        return str(kinds(value).name)
    except ValueError:
        return str(value)
