"""Read one plane from an image file: the only reader, for prediction, training and evaluation."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..labels import Modality
from ..naming import modality_token
from .grey import conversion_warnings, to_grey
from .limits import refuse
from .ome_image import OmeMetadata, PlaneLocation
from .ome_writer import SOFTWARE
from .ome_xml import check_levels, companion_name, looks_like_ome, parse_ome, read_plane_metadata, read_provenance
from .stack import Channel, StackInfo
from .tiff import TiffInfo, TiffReader, is_tiff, read_description

if TYPE_CHECKING:
    from .mha import MhaInfo

_MAX_COMPANION_BYTES = 64 * 2**20


class LostCompanionError(ValueError):
    """The file that holds the metadata of another (``BinaryOnly``) is not to be had; the reason as a clause."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"its metadata are in {name!r}, which {reason}")


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
    transmitted : bool or None
        Whether its channel is transmitted light; None: nothing tells.
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
    transmitted: bool | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_stack(self) -> StackInfo:
        """Describe the plane as a stack of one."""
        return StackInfo(
            self.path,
            self.shape,
            channels=(Channel(self.channel, self.modality, self.transmitted),),
            pixel_size_um=self.pixel_size_um,
            provenance=self.provenance,
            warnings=self.warnings,
        )


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
    if is_mha(path):
        from .mha import inspect_mha  # SimpleITK is slow to import, and rarely needed

        return _mha_info(path, inspect_mha(path))
    with closing(TiffReader(path)) as tiff:
        return plane_info(path, _only_plane(path, tiff))


def read_image(path: str | Path) -> Image:
    """Read the plane of a TIFF, OME-TIFF or .mha file.

    uint16 is taken as it is, uint8 is stretched (x257) to the same range, other kinds as `grey.to_grey` does.

    Raises
    ------
    UserError
        One sentence, where the file is not one readable plane of grey values.
    """
    path = Path(path)
    if is_mha(path):
        from .mha import read_mha

        pixels, mha = read_mha(path)
        return Image(to_grey(pixels), _mha_info(path, mha))
    with closing(TiffReader(path)) as tiff:
        info = plane_info(path, _only_plane(path, tiff))
        return Image(to_grey(tiff.read()), info)


def is_mha(path: Path) -> bool:
    """Whether a file is MetaImage, by its name."""
    return path.suffix.lower() == ".mha"


def plane_info(path: Path, reader: TiffReader) -> ImageInfo:
    """Check and describe the only plane of a TIFF by its tags, its OME-XML and its name."""
    tiff, converted = reader.info, reader.check()
    metadata, provenance = OmeMetadata(channel=tiff.program.channel), dict[str, str]()
    if looks_like_ome(tiff.description):
        metadata, provenance = _read_ome(path, tiff)
    size = trusted_pixel_size(tiff, metadata.pixel_size_um, metadata.states_size)
    modality, contradiction = reconcile_modality(path, metadata.channel)
    warnings = (*tiff.warnings, *converted, *metadata.warnings, *contradiction)
    name, transmitted = metadata.channel.name, metadata.channel.transmitted
    return ImageInfo(path, tiff.shape, tiff.axes, size, modality, name, transmitted, provenance, warnings)


def reconcile_modality(path: Path, channel: Channel) -> tuple[Modality | None, tuple[str, ...]]:
    """Take the modality from a channel's metadata, else from the file's name; warn where they contradict."""
    named = modality_token(path.name)
    if named and channel.modality and named is not channel.modality:
        return channel.modality, (
            f"its name says {named}, its metadata {channel.modality}: taken as {channel.modality}",
        )
    return channel.modality or named, ()


def trusted_pixel_size(
    tiff: TiffInfo, size: tuple[float, float] | None, states_size: bool
) -> tuple[float, float] | None:
    """Pixel size (y, x) in µm by the OME-XML; where it does not speak of it, by other metadata or resolution tags."""
    if size is not None or states_size:
        return size
    # Of our own files the tags do not count: where the pixel size is unknown, they hold a stand-in.
    ours = tiff.software.startswith(SOFTWARE) and looks_like_ome(tiff.description)
    return None if ours else tiff.program.pixel_size_um or tiff.tag_pixel_size_um


def parse_description(path: Path, description: str) -> tuple[ElementTree.Element, str | None, dict[str, str]]:
    """Parse the OME-XML of a TIFF, or of the companion file that it names.

    Returns
    -------
    Element, str or None, dict of str to str
        The root, the file's own UUID, what this program recorded.

    Raises
    ------
    ValueError
        Where it is broken; the reason as a clause.
    LostCompanionError
        Where its companion file does not hold the metadata.
    """
    try:
        root = parse_ome(description, path)
    except ValueError as error:
        raise ValueError(f"its OME-XML is broken ({error})") from error
    file_uuid, provenance = (root.get("UUID") or "").strip().lower() or None, read_provenance(root)
    if companion := companion_name(root):
        root = _parse_companion(path, companion)
    return root, file_uuid, provenance


def _only_plane(path: Path, tiff: TiffReader) -> TiffReader:
    if tiff.info.planes > 1:
        refuse(path, f"{tiff.info.planes} planes")
    return tiff


def _mha_info(path: Path, mha: "MhaInfo") -> ImageInfo:
    return ImageInfo(
        path,
        mha.shape,
        pixel_size_um=mha.pixel_size_um,
        modality=modality_token(path.name),
        warnings=conversion_warnings(mha.dtype),
    )


def _read_ome(path: Path, tiff: TiffInfo) -> tuple[OmeMetadata, dict[str, str]]:
    """Read the plane's metadata and our own provenance from the OME-XML; neither is known where it is broken."""
    try:
        root, file_uuid, provenance = parse_description(path, tiff.description)
    except ValueError as error:
        lost = f"{error}, so pixel size and channel are unknown"
        return OmeMetadata(states_size=True, warnings=(lost,)), {}
    where = PlaneLocation(path.name, tiff.directories[0], tiff.chain, tiff.shape)
    metadata = read_plane_metadata(root, where, file_uuid)
    copies = check_levels(root, path, tiff.shape, tiff.unmarked_levels, file_uuid)
    return replace(metadata, warnings=(*metadata.warnings, *copies)), provenance


def _parse_companion(path: Path, name: str) -> ElementTree.Element:
    text = _companion_text(path, name)
    try:
        root = parse_ome(text, path)
    except ValueError as error:
        raise LostCompanionError(name, f"holds no sound OME-XML ({error})") from error
    if companion_name(root):
        raise LostCompanionError(name, "names another file for them")
    return root


def _companion_text(path: Path, name: str) -> str:
    """Text of a companion file in the same folder; of another TIFF of the set, the description in it."""
    companion = path.parent / name
    try:
        if companion.parent != path.parent or not companion.is_file():
            raise LostCompanionError(name, "is not beside it")
        if is_tiff(companion):
            return read_description(companion)
        if companion.stat().st_size > _MAX_COMPANION_BYTES:
            raise LostCompanionError(name, f"is larger than {_MAX_COMPANION_BYTES // 2**20} MiB")
        return companion.read_text(encoding="utf-8", errors="replace")
    except (OSError, UserError) as error:
        raise LostCompanionError(name, "cannot be read") from error
