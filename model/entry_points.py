"""Where the commands start: signals are handled before torch and the rest, which take seconds, are imported.

Until then a signal ends the process at once. The first process of a container would otherwise ignore SIGTERM,
because Linux sends it only signals that it has a handler for.
"""

import importlib
import math
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

from .commands import INTERRUPTED

FINISHING_S = 10.0
"""For so long further signals are ignored, so that the image being written gets all its outputs."""

_last_interrupt = -math.inf
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def inference() -> int:
    """Run ``inference.py``; returns its exit code."""
    return _run("command_line")


def serve() -> int:
    """Run ``serve.py``; returns its exit code."""
    return _run("server")


def _run(module: str) -> int:
    for number in _SIGNALS:
        signal.signal(number, _leave_at_once)
    command = importlib.import_module(f".{module}", __package__)
    try:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        code = int(command.main())
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _end_process()  # a thread may still be reading an image, or torch computing: wait for neither
    return code


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
