"""A written file is whole or absent: written beside its place, then renamed into it."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from model.errors import UserError


@contextmanager
def whole_or_absent(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that takes the place of `path` when all went well, and is gone when not.

    Missing folders are made. What stood at `path` stays until the new file is complete and on the disk.
    Raises UserError where the disk or the folder does not allow it; other exceptions pass through.
    """
    # Not named after `path`, whose name may already be as long as the file system allows.
    temporary = path.parent / f".write-{secrets.token_hex(8)}.tmp"
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; raises UserError as `whole_or_absent` does."""
    with whole_or_absent(path) as file:
        file.write(text.encode())
