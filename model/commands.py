"""Conventions of all commands: exit codes, logging, number types of the command line, one sentence for an error.

Imports nothing but the standard library and `UserError`, so that a command can use it before anything slow is loaded.
"""

import argparse
import io
import logging
import re
import sys
import traceback
from collections.abc import Callable

from .errors import UserError

DONE = 0
SOME_FAILED = 1
NOT_BEGUN = 2
"""Wrong options, missing input, unusable checkpoints: nothing was computed."""
INTERRUPTED = 130
"""By Ctrl-C or SIGTERM."""

log = logging.getLogger(__package__)
"""The logger of this package's commands."""


def log_to_standard_streams(*packages: str) -> None:
    r"""Send progress to stdout, warnings and errors to stderr.

    Grand Challenge shows its users whatever a container writes to stderr. Text that a stream cannot encode, such as
    a file name that is not UTF-8, is written with escapes (``\\xff``); a stream that was closed is ignored.

    Parameters
    ----------
    *packages : str
        Packages whose log is shown, beside this one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    to_stdout, to_stderr = _Handler(sys.stdout), _Handler(sys.stderr)
    to_stdout.addFilter(lambda record: record.levelno < logging.WARNING)
    to_stderr.setLevel(logging.WARNING)
    for name in (log.name, *packages):
        logger = logging.getLogger(name)
        logger.handlers = [to_stdout, to_stderr]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def printable(text: str) -> str:
    r"""Replace what UTF-8 cannot encode, such as the bytes of a file name in another encoding, by escapes.

    Parameters
    ----------
    text : str
        May hold surrogates, as Python puts them into names that are not UTF-8 (PEP 383).

    Returns
    -------
    str
        Text that any UTF-8 stream takes: the byte 0xff reads ``\\xff``.
    """
    bytes_escaped = re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return bytes_escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: str) -> str:
    """Make text `printable`, with single spaces for line breaks and all other white space."""
    return " ".join(printable(text).split())


def one_sentence(error: BaseException) -> str:
    """Say what went wrong, in one line; for an unexpected error, also log the traceback.

    Parameters
    ----------
    error : BaseException
        `UserError`, `OSError` and `MemoryError` are expected and carry their own sentence.

    Returns
    -------
    str
        Without line breaks.
    """
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, OSError | MemoryError):
        message = str(error) or "not enough memory"
    else:
        log.error("".join(traceback.format_exception(error)).rstrip())
        message = f"unexpected {type(error).__name__}: {error}"
    return one_line(message)


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Make an argparse type for whole numbers in a range.

    Parameters
    ----------
    minimum, maximum : int
        Both are allowed values; without a maximum there is no upper limit.

    Returns
    -------
    callable
        Maps text to int; raises `argparse.ArgumentTypeError`, one sentence, for other text.
    """
    expected = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number {expected}")
        return value

    return whole_number


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """Make an argparse type for numbers in a range.

    Parameters
    ----------
    minimum, maximum : float
        Both are allowed values.

    Returns
    -------
    callable
        Maps text to float; raises `argparse.ArgumentTypeError`, one sentence, for other text.
    """

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from {minimum:g} to {maximum:g}")
        return value

    return number


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic for type checkers alone
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore a closed pipe or a full disk behind the stream; the work does not depend on it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
