"""Read MetaImage (.mha), the platform's other format, by SimpleITK."""

import re
import zlib
from dataclasses import dataclass
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
_DTYPES = {
    SimpleITK.sitkUInt8: np.uint8, SimpleITK.sitkUInt16: np.uint16, SimpleITK.sitkUInt32: np.uint32,
    SimpleITK.sitkUInt64: np.uint64, SimpleITK.sitkInt8: np.int8, SimpleITK.sitkInt16: np.int16,
    SimpleITK.sitkInt32: np.int32, SimpleITK.sitkInt64: np.int64, SimpleITK.sitkFloat32: np.float32,
    SimpleITK.sitkFloat64: np.float64,
}  # fmt: skip


@dataclass(frozen=True)
class MhaInfo:
    """What the header of a file says.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm, where it is plausible; spacing is in mm.
    dtype : numpy.dtype
    """

    shape: tuple[int, int]
    pixel_size_um: tuple[float, float] | None
    dtype: np.dtype[Any]


def inspect_mha(path: Path) -> MhaInfo:
    """Check a file's header without decoding its pixels.

    Raises UserError where the file is no single plane, or keeps its pixels in another file.
    """
    _check_local(path)
    return _info(_checked_reader(path))


def read_mha(path: Path) -> tuple[NDArray[Any], MhaInfo]:
    """Read the pixels (Y, X) and the header.

    Raises UserError where the file is no readable single plane, or keeps its pixels in another file.
    """
    packed = _check_local(path)
    reader = _checked_reader(path)
    info = _info(reader)
    claimed = info.shape[0] * info.shape[1] * info.dtype.itemsize
    if packed is not None and not _unpacks_to(packed, claimed):
        # ITK would fill what is missing with whatever lies in memory.
        refuse(path, "a truncated or damaged .mha")
    try:
        pixels = np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        raise UserError(f"{path}: found a truncated or damaged .mha, expected {EXPECTED_PLANE}.") from error
    return pixels.reshape(info.shape), info


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
    if reader.GetPixelID() not in _DTYPES:
        refuse(path, f"pixels of type {SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())}")
    check_claimed_size(path, size[1], size[0], _info(reader).dtype.itemsize, of="a plane")
    return reader


def _info(reader: Any) -> MhaInfo:
    width, height = reader.GetSize()[:2]
    x_mm, y_mm = reader.GetSpacing()[:2]
    size = plausible_pixel_size((y_mm * _UM_PER_MM, x_mm * _UM_PER_MM))
    return MhaInfo((height, width), size, np.dtype(_DTYPES[reader.GetPixelID()]))


def _check_local(path: Path) -> bytes | None:
    """Refuse what is no MetaImage and what points to other files; return deflated pixels, None for raw ones."""
    check_is_file(path)
    with path.open("rb") as file:
        fields, data_offset = _read_header(file.read(_MAX_HEADER))
    if "ElementDataFile" not in fields or "NDims" not in fields:
        refuse(path, "content that is not MetaImage", "an .mha file")
    if fields["ElementDataFile"].upper() != "LOCAL":
        refuse(path, "pixels kept in another file", "an .mha file that holds its pixels")
    if fields.get("CompressedData", "F")[:1] not in ("T", "t", "1"):  # as ITK reads it
        return None
    packed = path.read_bytes()[data_offset:]
    # ITK takes as many bytes as are stated, and leaves the pixels as they are in memory where these are too few.
    if fields.get("CompressedDataSize") != str(len(packed)):
        found = f"{len(packed)} bytes of deflated pixels, CompressedDataSize = {fields.get('CompressedDataSize')}"
        refuse(path, found, "a CompressedDataSize that is their number")
    return packed


def _read_header(head: bytes) -> tuple[dict[str, str], int]:
    """Read the text before the pixels, ``key = value`` or ``key : value`` line by line; also where it ends."""
    fields: dict[str, str] = {}
    offset = 0
    for line in head.split(b"\n"):
        offset += len(line) + 1
        if field := re.match(r"\s*(\w+)\s*[=:](.*)", line.decode("latin-1")):
            fields[field[1]] = field[2].strip()
            if field[1] == "ElementDataFile":
                break
    return fields, offset


def _unpacks_to(packed: bytes, expected_bytes: int) -> bool:
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(packed, expected_bytes + 1)) == expected_bytes
    except zlib.error:
        return False
