"""Read MetaImage (.mha), the platform's other format, by SimpleITK."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ..errors import UserError
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, refuse
from .units import plausible_pixel_size

_UM_PER_MM = 1000.0
_MAX_HEADER = 64 * 1024


PixelSize = tuple[float, float]


def inspect_mha(path: Path) -> tuple[tuple[int, int], PixelSize | None]:
    """Check a file's header without decoding its pixels: shape (Y, X), and the pixel size as `read_mha` gives it.

    Raises UserError where the file is no single plane, or keeps its pixels in another file.
    """
    _check_local(path)
    reader = _checked_reader(path)
    width, height = reader.GetSize()[:2]
    return (height, width), _pixel_size(reader)


def read_mha(path: Path) -> tuple[NDArray[Any], PixelSize | None]:
    """Read (Y, X) uint8 or uint16 pixels and the pixel size as (y, x) in µm, if plausible; spacing is in mm.

    Raises UserError where the file is no readable single plane, or keeps its pixels in another file.
    """
    packed = _check_local(path)
    reader = _checked_reader(path)
    width, height = reader.GetSize()[:2]
    claimed = width * height * _bytes_per_pixel(reader)
    if packed is not None and not _unpacks_to(packed, claimed):
        # ITK would fill what is missing with whatever lies in memory.
        refuse(path, "a truncated or damaged .mha")
    try:
        pixels = np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        raise UserError(f"{path}: found a truncated or damaged .mha, expected {EXPECTED_PLANE}.") from error
    return pixels.reshape(height, width), _pixel_size(reader)


def _checked_reader(path: Path) -> Any:
    """SimpleITK's reader with the header read, its claims checked."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # SimpleITK would end the process
        refuse(path, "a path that is not UTF-8", "a file and folders with such names")
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{path}: found a damaged .mha header, expected {EXPECTED_PLANE}.") from error
    size = reader.GetSize()
    planes = int(np.prod(size[2:], dtype=np.int64))
    if len(size) < 2 or planes != 1:
        refuse(path, f"{planes} planes")
    if reader.GetNumberOfComponents() != 1:
        refuse(path, f"{reader.GetNumberOfComponents()} samples per pixel")
    if reader.GetPixelID() not in (SimpleITK.sitkUInt8, SimpleITK.sitkUInt16):
        refuse(path, f"pixels of type {SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())}")
    check_claimed_size(path, size[1], size[0], _bytes_per_pixel(reader), of="a plane")
    return reader


def _bytes_per_pixel(reader: Any) -> int:
    return 1 if reader.GetPixelID() == SimpleITK.sitkUInt8 else 2


def _pixel_size(reader: Any) -> PixelSize | None:
    x_mm, y_mm = reader.GetSpacing()[:2]
    return plausible_pixel_size((y_mm * _UM_PER_MM, x_mm * _UM_PER_MM))


def _check_local(path: Path) -> bytes | None:
    """Refuse what is no MetaImage and what points to other files; return deflated pixels, None for raw ones."""
    check_is_file(path)
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    # The header is text and ends with the line that says where the pixels are.
    end = re.search(rb"^ElementDataFile\s*=\s*(.*?)\s*$", head, re.MULTILINE)
    if end is None or b"NDims" not in head[: end.start()]:
        refuse(path, "content that is not MetaImage", "an .mha file")
    if end[1].upper() != b"LOCAL":
        refuse(path, "pixels kept in another file", "an .mha file that holds its pixels")
    if not re.search(rb"^CompressedData\s*=\s*(?:True|T|1)\s*$", head[: end.start()], re.MULTILINE | re.IGNORECASE):
        return None
    return path.read_bytes()[end.end() :].lstrip(b"\r\n")


def _unpacks_to(packed: bytes, expected_bytes: int) -> bool:
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(packed, expected_bytes + 1)) == expected_bytes
    except zlib.error:
        return False
