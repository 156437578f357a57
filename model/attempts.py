"""Markers of the images in progress: a batch that is started again goes on behind the image that ended it.

An image may end its process in ways that no program survives: the system kills it for its memory, or a library crashes.
Each case in progress has a file below OUTPUT/.attempts, locked for as long as its process lives. A marker without a
lock was left by a process that died; several images were in progress, so each of them may have been the reason.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from .case import Case
from .errors import UserError
from .files import open_for_writing, unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FOLDER = ".attempts"  # hidden, so that it is no input of a later run
_MOST = 2
"""Attempts of an image: the second one is made alone, so that a process that ends again ended by this image."""


class Attempts:
    """Marks cases as in progress, across processes that share an output folder.

    Methods raise UserError where a marker cannot be written.
    """

    def __init__(self) -> None:
        self._open: dict[Case, IO[str]] = {}
        self._closed = False

    def begin(self, case: Case) -> bool:
        """Mark a case; False where another process is predicting it, or died while it was."""
        if self._closed:
            return False
        marker = self._lock(case)
        if marker is None:
            return False
        if _count(marker):
            marker.close()
            return False
        self._begin(case, marker, 1)
        return True

    def begin_alone(self, case: Case) -> bool:
        """Mark a case that `begin` refused, now that nothing else is in progress.

        Returns
        -------
        bool
            False where another process is predicting it.

        Raises
        ------
        UserError
            Where it has ended its process twice.
        """
        if self._closed:
            return False
        marker = self._lock(case)
        if marker is None:
            return False
        attempts = _count(marker)
        if attempts >= _MOST:
            marker.close()
            raise UserError(
                f"{case.source}: {attempts} runs ended while they predicted it, so it is left out; "
                f"delete {_path(case)} to try it again."
            )
        self._begin(case, marker, attempts + 1)
        return True

    def progressed(self, case: Case) -> None:
        """Note that a plane of a stack was kept: where this process ends now, it does not end by the same plane."""
        marker = self._open.get(case)
        if marker is not None and _count(marker) > 1:
            _write(marker, case, 1)

    def end(self, case: Case) -> None:
        """Remove the marker, if there is one: the case was predicted, or failed without ending its process."""
        if (marker := self._open.pop(case, None)) is None:
            return
        with suppress(OSError):
            _path(case).unlink()
        marker.close()
        with suppress(OSError):  # other cases are marked
            _path(case).parent.rmdir()

    def close(self) -> None:
        """Remove all markers of this object and set no more; an interruption is no fault of an image."""
        self._closed = True
        for case in list(self._open):
            self.end(case)

    def _begin(self, case: Case, marker: IO[str], count: int) -> None:
        self._open[case] = marker
        try:
            _write(marker, case, count)
        except OSError as error:
            self.end(case)
            raise unwritable(_path(case), error) from error

    def _lock(self, case: Case) -> IO[str] | None:
        """Open the marker and lock it; None where another process has locked it."""
        path = _path(case)
        while True:
            try:
                marker = open_for_writing(path, "a+", encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise unwritable(path, error) from error
            if not _try_lock(marker):
                marker.close()
                return None
            if os.fstat(marker.fileno()).st_nlink:
                return marker
            marker.close()  # its process removed it in between


def _try_lock(marker: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: no process can be told to be alive
        return True
    return True


def _path(case: Case) -> Path:
    return case.output / _FOLDER / hashlib.sha256(case.output_name.encode(errors="surrogateescape")).hexdigest()[:32]


def _count(marker: IO[str]) -> int:
    marker.seek(0)
    first = marker.readline().strip()
    return int(first) if first.isdecimal() else 0


def _write(marker: IO[str], case: Case, count: int) -> None:
    marker.truncate(0)  # what is written is appended
    marker.write(f"{count}\n{case.source}\n")
    marker.flush()
