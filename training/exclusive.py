"""One process at a time in a folder that several would spoil."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from model.errors import UserError
from model.files import prepare_folder, unwritable

LOCK = ".lock"


@contextmanager
def one_at_a_time(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes from the same work in a folder meanwhile.

    Parameters
    ----------
    folder : Path
        Made where it is missing. The lock is a hidden file in it, which stays; the lock ends with its process.
    work : str
        For the error, e.g. "training".

    Raises
    ------
    UserError
        Where another process is at work there, or the folder cannot be written into.
    """
    prepare_folder(folder)
    path = folder / LOCK
    try:
        held = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: found another {work} in this folder, expected one at a time.") from None
    except OSError as error:
        raise unwritable(path, error) from error
    with held:
        yield
