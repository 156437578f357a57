"""Fetch files over HTTP from servers that fail: a file is whole or absent, and what has arrived is not fetched again.

Bytes go to ``NAME.part`` beside the file, which takes its name when its size is right. A new attempt, of this process
or of a later one, asks for the bytes that are missing (``Range``, RFC 9110, section 14).
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util import Retry

from model import __version__
from model.errors import UserError

RETRY = Retry(total=8, other=2, backoff_factor=1.0, backoff_max=60.0, backoff_jitter=1.0, retry_after_max=600)
"""At once, then after about 2, 4, 8, 16, 32, 60 and 60 s, or when the server says; `other` counts wrong lengths."""

TIMEOUT_S = (30.0, 60.0)
"""To connect, and between two pieces of an answer."""

TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""

_CHUNK = 1 << 16  # bytes
_LOGGED_WAIT_S = 5.0

log = logging.getLogger(__name__)


class TransferError(UserError):
    """A file was not fetched though it was tried again and again."""


class RefusedError(TransferError):
    """The server answers, but has no such file or one of another size."""


class StoppedError(TransferError):
    """The caller stopped the transfer; what has arrived stays for the next one."""


class _BrokenError(ProtocolError):
    """The answer did not come, or not all of it."""

    def __init__(self, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _WrongLengthError(HTTPError):  # Retry counts it as "other"
    """The answer is not of the size that is expected."""

    retry_after = None


def partial_path(path: Path) -> Path:
    """Where the bytes of a file are until all have arrived: ``NAME.part`` beside it."""
    return path.with_name(f"{path.name}.part")


class Client:
    """Fetches files of one server; threads may share it.

    Parameters
    ----------
    connections : int
        How many are kept open.
    wait : callable
        Called with seconds to wait, 0 between pieces of a file; returns whether to stop. `threading.Event.wait` is one.
    timeout_s : tuple of float
        To connect, and between two pieces of an answer.
    """

    def __init__(
        self, connections: int, wait: Callable[[float], bool], timeout_s: tuple[float, float] = TIMEOUT_S
    ) -> None:
        self.received = 0
        """Bytes of files that came over the network."""
        self._lock = threading.Lock()
        self._wait = wait
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"in-silico-labelling/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"  # lengths are those of the file
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))

    def fetch(self, url: str, path: Path, size: int | None = None, retry: Retry = RETRY) -> None:
        """Fetch one file, resuming what an earlier call left; replaces what stands at `path`.

        Parameters
        ----------
        url : str
        path : Path
            Its folder is made. Only one call at a time may write to it.
        size : int or None
            In bytes; None where it is unknown: then it is fetched from the beginning.
        retry : Retry
            How often, and after which waits, it is tried again.

        Raises
        ------
        TransferError
            One sentence: the address, what was found and what was expected.
        OSError
            Where the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = partial_path(path)
        while True:
            try:
                self._attempt(url, part, size)
                break
            except (_BrokenError, _WrongLengthError) as failure:
                try:
                    retry = retry.increment("GET", url, error=failure)
                except MaxRetryError:
                    kind = RefusedError if isinstance(failure, _WrongLengthError) else TransferError
                    raise kind(f"{url}: {failure}.") from failure
                delay_s = _asked_wait(retry, failure.retry_after) or retry.get_backoff_time()
                if delay_s >= _LOGGED_WAIT_S:
                    log.warning("%s: %s; trying again in %.0f s.", url, failure, delay_s)
            if self._wait(delay_s):
                raise StoppedError(f"{url}: stopped.")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)

    def _attempt(self, url: str, part: Path, size: int | None) -> None:
        """Make one request for what is missing; what arrives is kept, whether it is all or not."""
        have = part.stat().st_size if part.exists() else 0
        if have and have == size:
            return
        if size is None or have > size:
            have = 0
        with self._get(url, have) as response:
            position = _first_byte(response, part, have, size)
            with part.open("r+b" if position else "wb") as file:
                file.seek(position)
                for piece in _pieces(response):
                    self._count(len(piece))
                    position += len(piece)
                    if size is not None and position > size:
                        file.truncate(0)  # another file
                        raise _WrongLengthError(f"found more than {size} bytes, expected {size} by the archive's list")
                    file.write(piece)
                    if self._wait(0):
                        raise StoppedError(f"{url}: stopped.")
        if size is not None and position < size:
            raise _BrokenError(f"found {position} bytes, expected {size}")

    def _get(self, url: str, start: int) -> requests.Response:
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            return self._session.get(url, headers=headers, stream=True, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise _BrokenError(_no_answer(error)) from error

    def _count(self, received: int) -> None:
        with self._lock:
            self.received += received


def _first_byte(response: requests.Response, part: Path, have: int, size: int | None) -> int:
    """Where in the file the answer's body begins; raises where it is not the wanted part of the wanted file."""
    status = response.status_code
    if status in TEMPORARY:
        found = f"the server answers {status} {response.reason}, expected the file"
        raise _BrokenError(found, response.headers.get("Retry-After"))
    if status == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)
        raise _WrongLengthError(f"the server has less than {have} bytes, expected {size}")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise RefusedError(f"{response.url}: the server answers {status} {response.reason}, expected the file.")
    start = have if status == requests.codes.partial_content else 0
    if start and not _continues(response, part, have, size):
        part.unlink()
        raise _WrongLengthError(f"the server sent another part than was asked for, expected bytes {have} to {size}")
    length = response.headers.get("Content-Length", "")
    if size is not None and length.isdecimal() and start + int(length) != size:
        raise _WrongLengthError(f"found {start + int(length)} bytes, expected {size} by the archive's list")
    return start


def _continues(response: requests.Response, part: Path, have: int, size: int | None) -> bool:
    """Whether a partial answer goes on where the part ends, in a file that has not changed since."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have or match[2] not in (str(size), "*"):
        return False
    changed = response.headers.get("Last-Modified")
    try:
        return changed is None or parsedate_to_datetime(changed).timestamp() <= part.stat().st_mtime
    except ValueError:  # no date
        return True


def _asked_wait(retry: Retry, retry_after: str | None) -> float | None:
    """Seconds that the server asks to wait, at most `retry_after_max`; None where it does not say."""
    try:
        return retry.parse_retry_after(retry_after) if retry_after else None
    except InvalidHeader:
        return None


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it arrives: where the connection breaks, nothing that came before is lost."""
    try:
        while piece := response.raw.read1(_CHUNK, decode_content=False):
            yield piece
    except HTTPError as error:
        raise _BrokenError(_no_answer(error)) from error


def _no_answer(error: Exception) -> str:
    """What the innermost error says: ``Connection refused`` instead of three nested representations."""
    innermost: BaseException = error
    while innermost.__context__ is not None:
        innermost = innermost.__context__
    reason = getattr(innermost, "strerror", None) or str(innermost)
    return f"the connection failed ({reason}), expected an answer over the network"
