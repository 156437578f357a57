"""Entry points of the commands: signals are handled before torch and the rest, which take seconds, are imported.

Until then a signal ends the process at once. The first process of a container would otherwise ignore SIGTERM,
because Linux sends it only signals that it has a handler for.
"""

import importlib.util
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from .commands import INTERRUPTED, NOT_BEGUN

FINISHING_S = 10.0
"""Seconds in which further signals are ignored, so that the image being written gets all its outputs."""

_last_interrupt = -math.inf
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def inference() -> int:
    """Run ``inference.py``; returns its exit code."""
    return run(f"{__package__}.command_line")


def serve() -> int:
    """Run ``serve.py``; returns its exit code."""
    return run(f"{__package__}.server")


def distribute() -> int:
    """Run ``distribute.py``; returns its exit code."""
    needed = "distribute.py needs Dask: pip install dask dask-jobqueue distributed"
    return run(f"{__package__}.distribution.command_line", needed)


def run(module: str, needed: str = "This command needs {package}: `make test` installs it.") -> int:
    """Run a command so that it answers SIGINT and SIGTERM at any moment.

    Parameters
    ----------
    module : str
        Full name of a module with a function ``main() -> int``.
    needed : str
        What is said where a package that it imports is not installed.

    Returns
    -------
    int
        The command's exit code.
    """
    for number in _SIGNALS:
        signal.signal(number, _leave_at_once)
    try:
        command = importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or __package__).partition(".")[0]
        if importlib.util.find_spec(package) is not None:  # a module within it: no matter of installing
            raise
        sys.stderr.write(needed.format(package=package) + "\n")
        return NOT_BEGUN
    try:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        code = int(command.main())
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _end_process()  # a thread may still be reading an image, or torch computing: wait for neither
    return code


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Let a loop end between two steps: the first SIGINT or SIGTERM is only noted.

    A second one raises KeyboardInterrupt; not within `FINISHING_S`, as for `run`.

    Yields
    ------
    callable
        Says whether there was a signal.
    """
    noted = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        global _last_interrupt
        if noted.is_set():
            _interrupt(number, frame)
        else:
            _last_interrupt = time.monotonic()
            noted.set()

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield noted.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    # Not by an exception, which an import may catch.
    os.write(2, b"Interrupted; nothing was begun.\n")
    os._exit(INTERRUPTED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt in the main thread; once, as signals are often sent twice while outputs are finished."""
    global _last_interrupt
    if time.monotonic() - _last_interrupt > FINISHING_S:
        _last_interrupt = time.monotonic()
        raise KeyboardInterrupt


def _end_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)
