"""Tune how the C library handles freed memory."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
_ONE_GB, _NEVER = 1 << 30, (1 << 31) - 1


def tune_malloc() -> bool:
    """Have this process keep freed blocks of up to 1 GB for its next ones; whether that could be arranged.

    glibc gives large blocks back to the system at once, and has every page of the next one zeroed by it anew: with
    networks' intermediate images a quarter of the time. Only the heap of the main thread can hold large blocks, so that
    all threads share it. For commands, once, before their threads; peak memory hardly grows.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or no such thing as the process's own
        return False
    settings = {_M_MMAP_THRESHOLD: _ONE_GB, _M_TRIM_THRESHOLD: _NEVER, _M_ARENA_MAX: 1}
    return all(bool(mallopt(name, value)) for name, value in settings.items())
