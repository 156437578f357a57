"""MetaImage (.mha), the other format that the platform hands over; read by SimpleITK."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, refuse
from .ome_xml import plausible_pixel_size

_UM_PER_MM = 1000.0
_MAX_HEADER = 64 * 1024


def read_mha(path: Path) -> tuple[np.ndarray[Any, Any], tuple[float, float] | None]:
    """Read (Y, X) uint8 or uint16 pixels and the pixel size as (y, x) in µm, if plausible; spacing is in mm.

    Raises UserError where the file is no readable single plane, or keeps its pixels in another file.
    """
    packed = _check_header(path)
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        kind, spacing = reader.GetPixelID(), reader.GetSpacing()
    except RuntimeError as error:
        raise UserError(f"{path}: found a damaged .mha header, expected {EXPECTED_PLANE}.") from error
    planes = int(np.prod(size[2:], dtype=np.int64))
    if len(size) < 2 or planes != 1:
        refuse(path, f"{planes} planes")
    if components != 1:
        refuse(path, f"{components} samples per pixel")
    if kind not in (sitk.sitkUInt8, sitk.sitkUInt16):
        refuse(path, f"pixels of type {sitk.GetPixelIDValueAsString(kind)}")
    check_claimed_size(path, size[1], size[0], 1 if kind == sitk.sitkUInt8 else 2, of="a plane")
    claimed = size[0] * size[1] * (1 if kind == sitk.sitkUInt8 else 2)
    if packed is not None and not _unpacks_to(packed, claimed):
        # ITK would fill what is missing with whatever lies in memory.
        refuse(path, "a truncated or damaged .mha")
    try:
        pixels = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        raise UserError(f"{path}: found a truncated or damaged .mha, expected {EXPECTED_PLANE}.") from error
    pixel_size_um = plausible_pixel_size((spacing[1] * _UM_PER_MM, spacing[0] * _UM_PER_MM))
    return pixels.reshape(size[1], size[0]), pixel_size_um


def _check_header(path: Path) -> bytes | None:
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
    if not re.search(rb"^CompressedData\s*=\s*True\s*$", head[: end.start()], re.MULTILINE | re.IGNORECASE):
        return None
    return path.read_bytes()[end.end() :].lstrip(b"\r\n")


def _unpacks_to(packed: bytes, expected_bytes: int) -> bool:
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(packed, expected_bytes + 1)) == expected_bytes
    except zlib.error:
        return False
