"""Files as wholes: what is written is there whole or not at all, what is read can be told by its hash."""

import errno
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import UserError

LEFT_BEHIND_S = 600.0
"""A temporary file that nobody has written to for so long has no writer any more."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that takes the place of `path` when all went well, and is gone when not.

    Missing folders are made. What stood at `path` stays until the new file is complete and on the disk.
    Raises UserError where the disk or the folder does not allow it; other exceptions pass through.
    """
    # Not named after `path`, whose name may already be as long as the file system allows.
    temporary = path.parent / _temporary_name(secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(f"{path}: it cannot be written ({reason}).") from error
    finally:
        with suppress(OSError):  # as where the folder itself could not be made
            temporary.unlink()


def prepare_folder(folder: Path) -> None:
    """Make sure that files can be written into a folder, made if missing, before any work goes into them.

    What writers that were killed have left there and below is removed: a power cut leaves no partial file, but
    may leave a hidden temporary one. Raises UserError where nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for left in folder.rglob(_temporary_name("*")):
            if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
                left.unlink()
    except OSError as error:
        who = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        raise UserError(
            f"{folder}: nothing can be written there ({error.strerror or error}), "
            f"expected a folder that {who} may write to."
        ) from error


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; raises UserError as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _temporary_name(token: str) -> str:
    return f".write-{token}.tmp"
