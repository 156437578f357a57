"""OME-TIFF (and .mha) in, OME-TIFF out: one 2-D plane of uint16 a file."""

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .. import __version__
from ..files import atomic_write
from ..labels import Modality
from ..naming import modality_token
from .ome_xml import (
    PROVENANCE_NAMESPACE,
    OmeMetadata,
    looks_like_ome,
    read_map_annotation,
    read_ome_metadata,
)
from .tiff import read_description, read_tiff

TILE_PX = 128
# Without a resolution tag the platform's importer refuses a TIFF, so a plane of unknown pixel size gets this
# one. Only the tag: the OME-XML then states no size, and the provenance says that the tag is made up.
FALLBACK_PIXEL_SIZE_UM = 0.1
FALLBACK_PROVENANCE = (
    "pixel size in the TIFF tags",
    f"unknown in the input; {FALLBACK_PIXEL_SIZE_UM} µm stands in for it",
)


@dataclass(frozen=True)
class Plane:
    """One plane as read: (Y, X) uint16, pixel size as (y, x) in µm, contrast and channel name if told."""

    pixels: np.ndarray[Any, np.dtype[np.uint16]]
    pixel_size_um: tuple[float, float] | None
    modality: Modality | None
    channel: str | None


def read_plane(path: Path) -> Plane:
    """Read one plane from a TIFF, OME-TIFF or .mha file.

    uint16 is taken as it is, uint8 is stretched (x257) to the same range. The modality comes from
    Channel@Name, else Channel@ContrastMethod, else the token in the file's name; None where nothing tells
    it. The pixel size comes from the OME-XML; only a file without any is asked for its resolution tags.
    Raises UserError, one sentence, where the file is not one readable plane of grey values.
    """
    if path.suffix.lower() == ".mha":
        from .mha import read_mha  # SimpleITK is slow to import, and rarely needed

        pixels, pixel_size_um = read_mha(path)
        metadata = OmeMetadata(pixel_size_um)
    else:
        tiff = read_tiff(path)
        pixels, metadata = tiff.pixels, OmeMetadata(tiff.tag_pixel_size_um)
        if looks_like_ome(tiff.description):
            # The tags do not count here: our own outputs have a made-up one where the pixel size is unknown.
            metadata = read_ome_metadata(tiff.description, str(path))
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    pixels = np.ascontiguousarray(pixels, dtype=np.uint16)
    modality = metadata.modality or modality_token(path.name)
    return Plane(pixels, metadata.pixel_size_um, modality, metadata.channel)


def read_provenance(path: Path) -> dict[str, str]:
    """Read what write_plane recorded in a file; empty for files of other origin. Raises UserError."""
    description = read_description(path)
    return read_map_annotation(description, str(path)) if looks_like_ome(description) else {}


def write_plane(
    path: Path,
    pixels: np.ndarray[Any, Any],
    *,
    channel: str,
    pixel_size_um: tuple[float, float] | None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write (Y, X) uint16 pixels as a tiled, deflated OME-TIFF; the file is whole or absent.

    channel: the OME channel name. pixel_size_um: (y, x) in µm; None: unknown, see FALLBACK_PIXEL_SIZE_UM.
    provenance: kept in its order as a MapAnnotation among the StructuredAnnotations.
    The same arguments give the same bytes: no time stands in the file, and its UUID is made from its content.
    Missing folders are made. Raises UserError where the file cannot be written.
    """
    if pixels.dtype != np.uint16 or pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a plane is (Y, X) uint16 and not empty, this is {pixels.shape} {pixels.dtype}")
    if pixel_size_um is not None and not all(0 < um < np.inf for um in pixel_size_um):
        raise ValueError(f"a pixel size is positive, this is {pixel_size_um}")
    recorded = {_xml_text(key): _xml_text(value) for key, value in (provenance or {}).items()}
    if pixel_size_um is None:
        recorded.update([FALLBACK_PROVENANCE])
    y_um, x_um = pixel_size_um or (FALLBACK_PIXEL_SIZE_UM, FALLBACK_PIXEL_SIZE_UM)
    metadata: dict[str, Any] = {
        "axes": "YX",
        "Creator": f"in-silico-labelling {__version__}",
        "Channel": {"Name": _xml_text(channel)},
    }
    if pixel_size_um is not None:
        metadata |= {"PhysicalSizeX": float(x_um), "PhysicalSizeXUnit": "µm"}
        metadata |= {"PhysicalSizeY": float(y_um), "PhysicalSizeYUnit": "µm"}
    if recorded:
        metadata["MapAnnotation"] = {"Namespace": PROVENANCE_NAMESPACE, "Value": recorded}
    metadata["UUID"] = _content_uuid(pixels, metadata)
    with atomic_write(path) as file:
        tifffile.imwrite(
            file,
            pixels,
            ome=True,
            photometric="minisblack",
            tile=(TILE_PX, TILE_PX),
            compression="zlib",
            predictor=True,
            resolution=(1e4 / x_um, 1e4 / y_um),
            resolutionunit="CENTIMETER",
            software=f"in-silico-labelling {__version__}",
            metadata=metadata,
        )


def _content_uuid(pixels: np.ndarray[Any, Any], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes())
    digest.update(repr((pixels.shape, metadata)).encode())
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())}"


def _xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot carry."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(text))
