"""Write planes of several times, channels and focal planes as one OME-TIFF, plane by plane."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .. import __version__
from ..files import atomic_write
from .ome_writer import SOFTWARE, TILE_PX, pixel_size_entries, provenance_entries, resolution, xml_text
from .stack import OutputChannel


def write_ome_tiff_stack(
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
    """Write a tiled, deflated OME-TIFF with the axes TCZYX; the file is whole or absent.

    The same planes and metadata give the same bytes.

    Parameters
    ----------
    path : Path
        Missing folders are made.
    planes : iterable of ndarray of uint16, shape (Y, X)
        In the order of T, then C, then Z; one is in memory at a time.
    shape : (int, int, int, int, int)
        Lengths of T, C, Z, Y, X.
    channels : sequence of OutputChannel
        One each along C. OME-TIFF has no place for their display ranges.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: unknown.
    z_step_um, time_increment_s : float or None
    provenance : mapping of str to str
        Kept in its order as a MapAnnotation.

    Raises
    ------
    UserError
        Where the file cannot be written.
    """
    metadata: dict[str, Any] = {
        "axes": "TCZYX",
        "Creator": f"{SOFTWARE} {__version__}",
        "Channel": {
            "Name": [xml_text(channel.name) for channel in channels],
            "Color": [_ome_colour(channel.colour) for channel in channels],
        },
        **pixel_size_entries(pixel_size_um),
        **provenance_entries(provenance, pixel_size_um),
    }
    if z_step_um is not None:
        metadata |= {"PhysicalSizeZ": float(z_step_um), "PhysicalSizeZUnit": "µm"}
    if time_increment_s is not None:
        metadata |= {"TimeIncrement": float(time_increment_s), "TimeIncrementUnit": "s"}
    metadata["UUID"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, repr((shape, metadata)))}"
    with atomic_write(path) as file:
        tifffile.imwrite(
            file,
            _tiles(planes),
            shape=shape,
            dtype=np.uint16,
            ome=True,
            bigtiff=np.prod(shape, dtype=np.int64) * 2 > 2**31,
            photometric="minisblack",
            tile=(TILE_PX, TILE_PX),
            compression="zlib",
            predictor=True,
            software=f"{SOFTWARE} {__version__}",
            metadata=metadata,
            **resolution(pixel_size_um),
        )


def _tiles(planes: Iterable[NDArray[np.uint16]]) -> Iterator[NDArray[np.uint16]]:
    for plane in planes:
        for y in range(0, plane.shape[0], TILE_PX):
            for x in range(0, plane.shape[1], TILE_PX):
                yield np.ascontiguousarray(plane[y : y + TILE_PX, x : x + TILE_PX])


def _ome_colour(rgb: str) -> int:
    """OME's colour: RGBA as a signed integer of 32 bits."""
    return int.from_bytes(bytes.fromhex(f"{rgb}FF"), "big", signed=True)
