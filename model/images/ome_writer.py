"""Write one 2-D plane of uint16 as an OME-TIFF."""

import hashlib
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .. import __version__
from ..files import atomic_write
from .ome_xml import PROVENANCE_NAMESPACE

SOFTWARE = "in-silico-labelling"
TILE_PX = 128
# Without a resolution tag the platform's importer refuses a TIFF, so a plane of unknown pixel size gets this
# one. Only the tag: the OME-XML then states no size, and the provenance says that the tag is made up.
FALLBACK_PIXEL_SIZE_UM = 0.1
FALLBACK_PROVENANCE = (
    "pixel size in the TIFF tags",
    f"unknown in the input; {FALLBACK_PIXEL_SIZE_UM} µm stands in for it",
)


def write_plane(
    path: str | Path,
    pixels: np.ndarray[Any, Any],
    *,
    channel: str,
    pixel_size_um: tuple[float, float] | None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write one plane as a tiled, deflated OME-TIFF; the file is whole or absent.

    The same arguments give the same bytes: no time stands in the file, and its UUID is made from its content.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    pixels : ndarray of uint16, shape (Y, X)
    channel : str
        The OME channel name.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: unknown, see `FALLBACK_PIXEL_SIZE_UM`.
    provenance : mapping of str to str, optional
        Kept in its order as a MapAnnotation.

    Raises
    ------
    ValueError
        For other pixels, or a pixel size that is not positive.
    UserError
        Where the file cannot be written.
    """
    if pixels.dtype != np.uint16 or pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a plane is (Y, X) uint16 and not empty, this is {pixels.shape} {pixels.dtype}")
    if pixel_size_um is not None and not all(0 < um < np.inf for um in pixel_size_um):
        raise ValueError(f"a pixel size is positive, this is {pixel_size_um}")
    metadata: dict[str, Any] = {
        "axes": "YX",
        "Creator": f"{SOFTWARE} {__version__}",
        "Channel": {"Name": xml_text(channel)},
        **pixel_size_entries(pixel_size_um),
        **provenance_entries(provenance or {}, pixel_size_um),
    }
    metadata["UUID"] = _content_uuid(pixels, metadata)
    with atomic_write(Path(path)) as file:
        tifffile.imwrite(
            file,
            pixels,
            ome=True,
            photometric="minisblack",
            tile=(TILE_PX, TILE_PX),
            compression="zlib",
            predictor=True,
            software=f"{SOFTWARE} {__version__}",
            metadata=metadata,
            **resolution(pixel_size_um),
        )


def pixel_size_entries(pixel_size_um: tuple[float, float] | None) -> dict[str, Any]:
    """OME attributes of a pixel size (y, x) in µm; none where it is unknown."""
    if pixel_size_um is None:
        return {}
    y_um, x_um = pixel_size_um
    return {
        **{"PhysicalSizeX": float(x_um), "PhysicalSizeXUnit": "µm"},
        **{"PhysicalSizeY": float(y_um), "PhysicalSizeYUnit": "µm"},
    }


def provenance_entries(provenance: Mapping[str, str], pixel_size_um: tuple[float, float] | None) -> dict[str, Any]:
    """OME annotation of a provenance; it says where the resolution tags hold a stand-in."""
    recorded = {xml_text(key): xml_text(value) for key, value in provenance.items()}
    if pixel_size_um is None:
        recorded.update([FALLBACK_PROVENANCE])
    return {"MapAnnotation": {"Namespace": PROVENANCE_NAMESPACE, "Value": recorded}} if recorded else {}


def resolution(pixel_size_um: tuple[float, float] | None) -> dict[str, Any]:
    """TIFF's resolution tags for a pixel size (y, x) in µm, see `FALLBACK_PIXEL_SIZE_UM`."""
    y_um, x_um = pixel_size_um or (FALLBACK_PIXEL_SIZE_UM, FALLBACK_PIXEL_SIZE_UM)
    return {"resolution": (1e4 / x_um, 1e4 / y_um), "resolutionunit": "CENTIMETER"}


def _content_uuid(pixels: np.ndarray[Any, Any], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes())
    digest.update(repr((pixels.shape, metadata)).encode())
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}"


def xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot carry."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(text))
