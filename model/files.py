"""Atomic writing, output folders, and hashes of files."""

import errno
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from .errors import UserError

log = logging.getLogger(__name__)

LEFT_BEHIND_S = 600.0
"""Age from which a temporary file counts as left behind by a killed process."""

_PREFIX, _SUFFIX = ".write-", ".tmp"  # of temporary files
_TRIES = 10  # of opening a file whose folder other processes remove


def open_for_writing(path: Path, mode: str, **options: str) -> IO[Any]:
    """Open a file; missing folders are made.

    That is tried again where other processes remove a folder, since they found it empty, before the file is in it.
    Raises OSError.
    """
    for left in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open(mode, **options)  # type: ignore[call-overload,no-any-return]
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
    raise AssertionError  # for mypy


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that takes the place of `path` when all went well, and is gone when not.

    Missing folders are made. What stood at `path` stays until the new file is complete and on the disk.
    Raises UserError where the disk or the folder does not allow it; other exceptions pass through.
    """
    # Not named after `path`, whose name may already be as long as the file system allows.
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        with open_for_writing(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # as where the folder itself could not be made
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` when all went well, and is gone when not.

    As `atomic_write`; a folder that stands at `path` stays until then, and where it cannot be replaced.
    """
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for name in temporary.rglob("*"):
            if name.is_file():
                with name.open("rb+") as file:
                    os.fsync(file.fileno())
        _replace_folder(path, temporary)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(path: Path, new: Path) -> None:
    former = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        if path.is_dir() and not path.is_symlink():
            os.replace(path, former)
        os.replace(new, path)
    except BaseException:
        if former.exists() and not os.path.lexists(path):
            os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def unwritable(path: Path, error: OSError) -> UserError:
    """Say why a file cannot be written."""
    reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return UserError(f"{path}: it cannot be written ({reason}).")


def prepare_folder(folder: Path, *, empty: bool = False) -> None:
    """Make sure that files can be written into a folder, before any work goes into them.

    The folder is made if it is missing. Hidden temporary files that killed writers left in it, and in folders below,
    are removed once they are `LEFT_BEHIND_S` old; one that cannot be removed, such as another user's, is warned of.

    Parameters
    ----------
    folder : Path
    empty : bool
        Whether the folder must be empty.

    Raises
    ------
    UserError
        Where nothing can be written, or the folder is not empty though it must be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        not_empty = empty and any(folder.iterdir())
    except OSError as error:
        who = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        raise UserError(
            f"{folder}: nothing can be written there ({error.strerror or error}), "
            f"expected a folder that {who} may write to."
        ) from error
    if not_empty:
        raise UserError(f"{folder}: found a folder that is not empty, expected a new or empty one.")
    _remove_temporary_files(folder)


def _remove_temporary_files(folder: Path) -> None:
    oldest = time.time() - LEFT_BEHIND_S
    left: list[tuple[str, str]] = []
    for parent, folders, names in os.walk(folder):  # folders that cannot be read are skipped
        for name in (*folders, *names):
            if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
                continue
            path = os.path.join(parent, name)
            try:
                if _last_change(path) < oldest:
                    shutil.rmtree(path) if name in folders else os.unlink(path)
            except FileNotFoundError:  # another process cleans the same folder
                continue
            except OSError as error:
                left.append((path, error.strerror or str(error)))
    if left:
        path, reason = left[0]
        others = f" nor can {len(left) - 1} more" if len(left) > 1 else ""
        log.warning("%s: this old temporary file cannot be removed (%s)%s.", path, reason, others)


def _last_change(path: str) -> float:
    """Time of the last change of a file, or of anything in a folder: a writer may be at work deep in it."""
    within = (os.path.join(parent, name) for parent, folders, names in os.walk(path) for name in (*folders, *names))
    return max(os.lstat(entry).st_mtime for entry in (path, *within))


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error


def content_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files of a folder; UserError as `file_sha256`."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def shared_sha256(path: Path) -> str:
    """SHA-256 of a file whose scenes ask for it one after the other: read anew where anything of it has changed."""
    try:
        found = path.stat()
    except OSError:
        return file_sha256(path)  # which says why
    return _kept_sha256(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=1)
def _kept_sha256(path: Path, *_state: int) -> str:
    return file_sha256(path)


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text, whole or not at all; raises UserError as `atomic_write` does.

    Bytes of file names that are no UTF-8 are written as ``\udcb5``.
    """
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))
