"""Open an image file of any kind that is read here: TIFF, OME-TIFF, .mha, OME-Zarr, ND2, CZI, LIF."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..naming import UNREAD_SUFFIXES
from .limits import refuse
from .ome_zarr_collection import is_zarr_group
from .reader import inspect, is_mha, read_image
from .stack import Stack, check_index, check_scene
from .tiff_stack import TiffStack

_EXPORTING_PROGRAMS = {".lsm": "ZEN"}


def open_stack(path: str | Path, scene: int | None = None) -> Stack:
    """Open a file of one or more planes; its planes are read when they are asked for.

    Parameters
    ----------
    path : str or Path
        A file, or the folder of an OME-Zarr image.
    scene : int or None
        Which of the stage positions or series of a file, from 0; None: the first. `StackInfo.scenes` tells how many
        there are.

    Returns
    -------
    Stack
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    UserError
        One sentence, where it cannot be read, holds something else than planes of grey values or RGB, or does
        not say which plane is which.
    """
    path, scene = Path(path), scene or 0
    suffix = path.suffix.lower()
    if suffix == ".zarr" or is_zarr_group(path):
        from .ome_zarr import open_ome_zarr

        check_scene(path, scene, 1)
        return open_ome_zarr(path)
    if suffix == ".nd2":
        from .nd2_reader import open_nd2

        return open_nd2(path, scene)
    if suffix == ".czi":
        from .czi_reader import open_czi

        return open_czi(path, scene)
    if suffix == ".lif":
        from .lif_reader import open_lif

        return open_lif(path, scene)
    if suffix in UNREAD_SUFFIXES:
        program = _EXPORTING_PROGRAMS.get(suffix, "Fiji (Bio-Formats Exporter)")
        refuse(path, f"the unsupported format {suffix[1:].upper()}", f"OME-TIFF, exported by {program}")
    if is_mha(path):
        check_scene(path, scene, 1)
        return _MhaStack(path)
    return TiffStack(path, scene)


class _MhaStack(Stack):
    """The only plane of a MetaImage file."""

    def __init__(self, path: Path) -> None:
        self.info = inspect(path).as_stack()

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        check_index(self.info, t, c, z)
        return read_image(self.info.path).pixels

    def close(self) -> None:
        pass
