"""cuDNN's settings while networks run: the same bytes each time, and near what a CPU computes."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_flags = ExitStack()


@contextmanager
def deterministic_cudnn() -> Iterator[None]:
    """Switch TF32 and cuDNN's benchmarking off, until the last of all threads that are inside has left.

    The settings are the process's: a thread that restored them would change what the others compute.
    """
    global _inside
    with _lock:
        if _inside == 0:
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            _flags.enter_context(flags)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _flags.close()
