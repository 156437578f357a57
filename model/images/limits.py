"""Limits on the size that an image file states, checked before memory is allocated."""

from pathlib import Path
from typing import NoReturn

from ..errors import UserError

EXPECTED_PLANE = "one 2-D plane of grey values"

# Larger planes are refused; those of the challenge end at 2048 px.
MAX_SIDE_PX = 32_768
# A constant image is deflated about 1000 times, and by Zstd 10,000 times.
_MAX_EXPANSION = 20_000
_EXPANSION_FREE_BYTES = 64 * 2**20


def refuse(path: Path, found: str, expected: str = EXPECTED_PLANE) -> NoReturn:
    """Raise the UserError that names the file, what was found and what was expected."""
    raise UserError(f"{path}: found {found}, expected {expected}.")


def missing_package(path: Path, kind: str, package: str) -> UserError:
    """Say which package reads a file, e.g. of the kind ``"an ND2 file"``."""
    return UserError(
        f"{path}: found {kind}, expected the package that reads it (pip install {package}), "
        "or the image exported as OME-TIFF."
    )


def check_is_file(path: Path) -> None:
    """Raise UserError unless there is a file with something in it that may be read."""
    try:
        if not path.is_file():
            refuse(path, "a folder" if path.is_dir() else "no such file", "an image file")
        if path.stat().st_size == 0:
            refuse(path, "an empty file")
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error


def check_claimed_size(path: Path, height: int, width: int, bytes_per_pixel: int, *, of: str) -> None:
    """Refuse an array that is empty, too large, or larger than the file can hold. Raises UserError.

    of: what has this size, "a plane" or "tiles", for the message.
    """
    found = f"{of} of {width} x {height} px"
    if height < 1 or width < 1:
        refuse(path, found)
    if max(height, width) > MAX_SIDE_PX:
        refuse(path, found, f"at most {MAX_SIDE_PX} px a side")
    check_expansion(path, height * width * bytes_per_pixel, path.stat().st_size, of=found)


def check_expansion(path: Path, claimed: int, stored: int, *, of: str) -> None:
    """Refuse pixels of more bytes than any codec makes of those that are stored. Raises UserError."""
    if claimed > _EXPANSION_FREE_BYTES and claimed > _MAX_EXPANSION * stored:
        refuse(path, f"{of} claimed in {stored} bytes", "a file that holds its pixels")
