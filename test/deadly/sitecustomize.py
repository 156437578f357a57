"""With this folder in PYTHONPATH, a process is killed when it opens an image of a folder `in` with one of two names.

``killer.tiff`` kills always, ``once.tiff`` one time. The product knows nothing of it.
"""

import os
import signal
import sys


def _kill(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str):
        return
    folder, name = os.path.split(arguments[0])
    if os.path.basename(folder) != "in" or name not in ("killer.tiff", "once.tiff"):
        return
    if name == "once.tiff":
        try:
            os.close(os.open(f"{arguments[0]}.killed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_kill)
