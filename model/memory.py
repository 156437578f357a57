"""Tune how the C library handles freed memory."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_ONE_GB, _NEVER = 1 << 30, (1 << 31) - 1


def tune_malloc() -> bool:
    """Have this process keep freed blocks of up to 1 GB for its next ones; whether that could be arranged.

    glibc gives large blocks back to the system at once, and has every page of the next one zeroed by it anew: with
    networks' intermediate images a quarter of the time. For commands, once, at their start; peak memory hardly grows.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or no such thing as the process's own
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _ONE_GB)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
