"""Read one plane from an image file: the only reader, for prediction, training and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..labels import Modality
from ..naming import modality_token
from .ome_writer import SOFTWARE
from .ome_xml import (
    OmeMetadata,
    PlaneLocation,
    companion_name,
    looks_like_ome,
    parse_ome,
    read_plane_metadata,
    read_provenance,
)
from .tiff import TiffInfo, inspect_tiff, read_tiff

_MAX_COMPANION_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ImageInfo:
    """What a file says about its plane.

    Attributes
    ----------
    path : Path
    shape : (int, int)
        Rows and columns.
    axes : str
        Axes as stored: "YX", or more letters where there are axes of length 1.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: not stated, or not to be trusted (see `warnings`).
    modality : Modality or None
        By channel name, contrast method, or the token in the file's name; None: nothing tells it.
    channel : str or None
        Channel name as the file states it.
    provenance : mapping of str to str
        What `write_plane` recorded; empty for files of other programs.
    warnings : tuple of str
        What was ignored or contradictory, one clause each, without the file's name.
    """

    path: Path
    shape: tuple[int, int]
    axes: str = "YX"
    pixel_size_um: tuple[float, float] | None = None
    modality: Modality | None = None
    channel: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """One plane as read: `pixels` (Y, X) uint16, and what the file says about it."""

    pixels: NDArray[np.uint16]
    info: ImageInfo


def inspect(path: str | Path) -> ImageInfo:
    """Read what a TIFF, OME-TIFF or .mha file holds, without decoding its pixels.

    Raises
    ------
    UserError
        One sentence, where the file holds no single plane of grey values; `read_image` says the same.
    """
    path = Path(path)
    if _is_mha(path):
        from .mha import inspect_mha  # SimpleITK is slow to import, and rarely needed

        return _mha_info(path, *inspect_mha(path))
    return _tiff_info(path, inspect_tiff(path))


def read_image(path: str | Path) -> Image:
    """Read the plane of a TIFF, OME-TIFF or .mha file.

    uint16 is taken as it is, uint8 is stretched (x257) to the same range.

    Raises
    ------
    UserError
        One sentence, where the file is not one readable plane of grey values.
    """
    path = Path(path)
    if _is_mha(path):
        from .mha import read_mha

        pixels, pixel_size_um = read_mha(path)
        info = _mha_info(path, (pixels.shape[0], pixels.shape[1]), pixel_size_um)
    else:
        pixels, tiff = read_tiff(path)
        info = _tiff_info(path, tiff)
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    return Image(np.ascontiguousarray(pixels, dtype=np.uint16), info)


def _is_mha(path: Path) -> bool:
    return path.suffix.lower() == ".mha"


def _mha_info(path: Path, shape: tuple[int, int], pixel_size_um: tuple[float, float] | None) -> ImageInfo:
    return ImageInfo(path, shape, pixel_size_um=pixel_size_um, modality=modality_token(path.name))


def _tiff_info(path: Path, tiff: TiffInfo) -> ImageInfo:
    metadata, provenance = OmeMetadata(), dict[str, str]()
    if looks_like_ome(tiff.description):
        metadata, provenance = _read_ome(path, tiff)
    size, ours = metadata.pixel_size_um, tiff.software.startswith(SOFTWARE)
    if size is None and not metadata.states_size and not (ours and looks_like_ome(tiff.description)):
        # Of our own files the tags do not count: where the pixel size is unknown, they hold a stand-in.
        size = tiff.tag_pixel_size_um
    named, warnings = modality_token(path.name), [*tiff.warnings, *metadata.warnings]
    if named and metadata.modality and named is not metadata.modality:
        warnings.append(f"its name says {named}, its metadata {metadata.modality}: taken as {metadata.modality}")
    modality = metadata.modality or named
    return ImageInfo(path, tiff.shape, tiff.axes, size, modality, metadata.channel, provenance, tuple(warnings))


def _read_ome(path: Path, tiff: TiffInfo) -> tuple[OmeMetadata, dict[str, str]]:
    """Read the plane's metadata and our own provenance from the OME-XML; neither is known where it is broken."""
    try:
        root = parse_ome(tiff.description, path)
        file_uuid, provenance = (root.get("UUID") or "").strip().lower() or None, read_provenance(root)
        if companion := companion_name(root):
            text = _companion_text(path, companion)
            if text is None:
                return _nothing_known(f"its metadata are in {companion!r}, which is not beside it"), provenance
            root = parse_ome(text, path)
    except ValueError as error:
        return _nothing_known(f"its OME-XML is broken ({error})"), {}
    where = PlaneLocation(path.name, tiff.directory, tiff.planes, tiff.shape)
    return read_plane_metadata(root, where, file_uuid), provenance


def _nothing_known(why: str) -> OmeMetadata:
    """Metadata that are lost; the pixels may be fine."""
    return OmeMetadata(states_size=True, warnings=(f"{why}, so pixel size and channel are unknown",))


def _companion_text(path: Path, name: str) -> str | None:
    """Text of a companion file in the same folder; None where there is none, or none that may be one."""
    companion = path.parent / name
    try:
        if companion.parent != path.parent or companion.stat().st_size > _MAX_COMPANION_BYTES:
            return None
        return companion.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
