"""Write planes of several times, channels and focal planes as one OME-Zarr image, plane by plane."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import atomic_folder
from .limits import refuse
from .ome_zarr import PROVENANCE_KEY
from .stack import OutputChannel

_VERSION = "0.4"
_CHUNK_PX = 1024
_SMALLEST_LEVEL_PX = 256


def write_ome_zarr(
    path: Path,
    planes: Iterable[NDArray[np.uint16]],
    *,
    shape: tuple[int, int, int, int, int],
    channels: Sequence[OutputChannel],
    pixel_size_um: tuple[float, float] | None,
    z_step_um: float | None,
    time_increment_s: float | None,
    provenance: Mapping[str, str],
) -> None:
    """Write an OME-Zarr 0.4 image with the axes TCZYX and its pyramid; the folder is whole or absent.

    The same planes and metadata give the same bytes.

    Parameters
    ----------
    path : Path
        Missing folders are made; an image that this program wrote is replaced.
    planes : iterable of ndarray of uint16, shape (Y, X)
        In the order of T, then C, then Z; one is in memory at a time.
    shape : (int, int, int, int, int)
        Lengths of T, C, Z, Y, X.
    channels : sequence of OutputChannel
        One each along C.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: unknown.
    z_step_um, time_increment_s : float or None
    provenance : mapping of str to str

    Raises
    ------
    ValueError
        For other planes, fewer or more of them, or channels that are not those of `shape`.
    UserError
        Where it cannot be written, the package zarr is missing, or a folder of somebody else is in the way.
    """
    try:
        import numcodecs
        import zarr
    except ImportError as error:
        raise UserError(
            f"{path}: OME-Zarr cannot be written, expected the package that does it (pip install 'zarr==3.1.*')."
        ) from error
    *stacked, height, width = shape
    if len(channels) != stacked[1]:
        raise ValueError(f"{len(channels)} channels are described, the shape has {stacked[1]}")
    levels = _level_shapes(height, width)
    with atomic_folder(path) as folder:
        _check_may_be_replaced(path)
        group = zarr.create_group(folder, zarr_format=2)
        arrays = [
            group.create_array(
                str(level),
                shape=(*stacked, *level_shape),
                chunks=(1, 1, 1, *(min(_CHUNK_PX, side) for side in level_shape)),
                dtype="uint16",
                compressors=numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE),
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0,
                config={"write_empty_chunks": True},  # a missing chunk then always is a loss
            )
            for level, level_shape in enumerate(levels)
        ]
        for position, plane in zip(product(*map(range, stacked)), planes, strict=True):
            if plane.shape != (height, width) or plane.dtype != np.uint16:
                raise ValueError(f"a plane is {(height, width)} uint16, this is {plane.shape} {plane.dtype}")
            for array in arrays:
                array[position] = plane
                plane = _halved(plane)
        scale = (time_increment_s or 1.0, 1.0, z_step_um or 1.0, *(pixel_size_um or (1.0, 1.0)))
        group.attrs.update(
            {
                "multiscales": [_multiscale(path, scale, levels, pixel_size_um, z_step_um, time_increment_s)],
                "omero": {"channels": [_omero_channel(channel) for channel in channels], "rdefs": {"model": "color"}},
                PROVENANCE_KEY: dict(provenance),
            }
        )


def keeps_all_chunks(path: Path) -> bool:
    """Whether an image of this program has lost no level and no chunk since it was written."""
    import zarr

    group = zarr.open_group(path, mode="r", zarr_format=2, use_consolidated=False)
    levels = [group.get(str(level)) for level in range(len(group.attrs["multiscales"][0]["datasets"]))]
    return all(level is not None and level.nchunks_initialized == level.nchunks for level in levels)


def _check_may_be_replaced(path: Path) -> None:
    """Refuse a folder that another program or a person made: replacing it would delete it."""
    if not os.path.lexists(path):
        return
    attributes = path / ".zattrs"
    ours = attributes.is_file() and PROVENANCE_KEY in attributes.read_text(errors="replace")
    if path.is_symlink() or not ours:
        refuse(path, "something that this program did not write", "nothing, or an image of an earlier run")


def _level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    shapes = [(height, width)]
    while max(shapes[-1]) > _SMALLEST_LEVEL_PX:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def _halved(plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Means of 2 x 2 pixels; the last row and column are repeated where their number is odd."""
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge").astype(np.float32)
    means = even.reshape(-(-height // 2), 2, -(-width // 2), 2).mean(axis=(1, 3))
    halved: NDArray[np.uint16] = np.rint(means).astype(np.uint16)
    return halved


def _multiscale(
    path: Path,
    scale: Sequence[float],
    levels: Sequence[tuple[int, int]],
    pixel_size_um: tuple[float, float] | None,
    z_step_um: float | None,
    time_increment_s: float | None,
) -> dict[str, Any]:
    known = {"t": time_increment_s, "z": z_step_um, "y": pixel_size_um, "x": pixel_size_um}
    axes: list[dict[str, str]] = []
    for name, kind in zip("tczyx", ("time", "channel", "space", "space", "space"), strict=True):
        unit = {"time": "second", "space": "micrometer"}.get(kind)
        axes.append({"name": name, "type": kind, **({"unit": unit} if unit and known.get(name) else {})})
    datasets = []
    for level in range(len(levels)):
        shrunk = [*scale[:3], *(side * 2.0**level for side in scale[3:])]
        # The centre of the first pixel moves as pixels are put together.
        moved = [0.0, 0.0, 0.0, *(side * (2.0**level - 1) / 2 for side in scale[3:])]
        transformations = [{"type": "scale", "scale": shrunk}, {"type": "translation", "translation": moved}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {
        "version": _VERSION,
        "name": path.name.removesuffix(".zarr").removesuffix(".ome"),
        "axes": axes,
        "datasets": datasets,
    }


def _omero_channel(channel: OutputChannel) -> dict[str, Any]:
    start, end = channel.display_range
    window = {"min": 0, "max": 65535, "start": start, "end": end}
    return {"label": channel.name, "color": channel.colour, "window": window, "active": True}
