"""One image file in, one plane of grey values out: the only reader, for prediction, training and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..labels import Modality
from ..naming import modality_token
from .ome_xml import OmeMetadata, looks_like_ome, read_map_annotation, read_ome_metadata
from .tiff import read_tiff


@dataclass(frozen=True)
class ImageInfo:
    """What a file says about its plane.

    Attributes
    ----------
    path : Path
    shape : (int, int)
        Rows and columns.
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm; None: not stated, or not to be trusted (see `warnings`).
    modality : Modality or None
        By channel name, contrast method, or the token in the file's name; None: nothing tells it.
    channel : str or None
        Channel name as the file states it.
    provenance : mapping of str to str
        What `write_plane` recorded; empty for files of other programs.
    warnings : tuple of str
        What was ignored or contradictory, one sentence each, without the file's name.
    """

    path: Path
    shape: tuple[int, int]
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


def inspect(path: Path) -> ImageInfo:
    """Read what a file holds without decoding its pixels; UserError for what `read_image` refuses by its header."""
    return read_image(path).info


def read_image(path: Path) -> Image:
    """Read the plane of a TIFF, OME-TIFF or .mha file.

    uint16 is taken as it is, uint8 is stretched (x257) to the same range. Raises UserError, one sentence, where the
    file is not one readable plane of grey values.
    """
    provenance: Mapping[str, str] = {}
    if path.suffix.lower() == ".mha":
        from .mha import read_mha  # SimpleITK is slow to import, and rarely needed

        pixels, pixel_size_um = read_mha(path)
        metadata = OmeMetadata(pixel_size_um)
    else:
        tiff = read_tiff(path)
        pixels, metadata = tiff.pixels, OmeMetadata(tiff.tag_pixel_size_um)
        if looks_like_ome(tiff.description):
            metadata = read_ome_metadata(tiff.description, str(path))
            provenance = read_map_annotation(tiff.description, str(path))
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    pixels = np.ascontiguousarray(pixels, dtype=np.uint16)
    modality = metadata.modality or modality_token(path.name)
    shape = (pixels.shape[0], pixels.shape[1])
    info = ImageInfo(path, shape, metadata.pixel_size_um, modality, metadata.channel, provenance)
    return Image(pixels, info)
