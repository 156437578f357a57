"""Read what an OME-XML says about one plane of one file: pixel size, channel, modality; and our own provenance.

Read attribute by attribute with the standard library's parser: one invalid value costs no other. A data set of many
files repeats one XML in each of them, so the Image that means *this* plane is found by its TiffData (UUID, file name,
directory), else by its size in pixels.
"""

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..labels import Modality
from .limits import refuse
from .units import plausible_pixel_size, um_per_unit

PROVENANCE_NAMESPACE = "in-silico-labelling/provenance"

_ROOT = re.compile(r"<(\w+:)?OME[\s>/]")
_MODALITY_OF_CONTRAST = {"brightfield": Modality.BF, "phase": Modality.PC, "dic": Modality.DIC}
_OTHER_CONTRASTS = {
    "hoffmanmodulation", "obliqueillumination", "polarizedlight", "darkfield", "fluorescence", "other",
}  # fmt: skip
_XML_ENTITIES = {"amp", "lt", "gt", "quot", "apos"}


@dataclass(frozen=True)
class PlaneLocation:
    """Which plane of which file is meant.

    Attributes
    ----------
    file_name : str
        Base name of the file.
    directory : int
        Number of the plane's directory in the file's chain, from 0.
    planes : int
        How many directories hold planes of full resolution.
    shape : (int, int)
        Rows and columns of the plane.
    """

    file_name: str
    directory: int
    planes: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class OmeMetadata:
    """What an OME-XML says about one plane.

    Attributes
    ----------
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm.
    states_size : bool
        Whether the XML speaks of the pixel size at all, be it sound or not; where not, resolution tags may tell.
    channel : str or None
    modality : Modality or None
    warnings : tuple of str
        What was ignored, and why.
    """

    pixel_size_um: tuple[float, float] | None = None
    states_size: bool = False
    channel: str | None = None
    modality: Modality | None = None
    warnings: tuple[str, ...] = ()


def looks_like_ome(description: str) -> bool:
    """Whether a TIFF's ImageDescription means to be OME-XML, be it sound or broken."""
    return _ROOT.search(description) is not None


def parse_ome(description: str, path: Path) -> ElementTree.Element:
    """Parse the OME element of a description of the file `path`, whatever text stands around it.

    Raises
    ------
    UserError
        Where it defines entities, which OME never needs and which expand a few lines to gigabytes.
    ValueError
        Where it is not well-formed; the reason in one line.
    """
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", description, re.IGNORECASE):
        refuse(path, "XML with DOCTYPE or ENTITY declarations", "plain OME-XML")
    start = _ROOT.search(description)
    if start is None:
        raise ValueError("no OME element")
    text = description[start.start() :]
    end = text.rfind(f"</{start[1] or ''}OME>")
    text = text if end < 0 else text[: end + len(f"</{start[1] or ''}OME>")]
    try:
        return ElementTree.fromstring(_well_formed(text))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0][:200]) from error


def companion_name(root: ElementTree.Element) -> str | None:
    """Name of the file that holds the metadata instead (``BinaryOnly``); None where this XML holds them itself."""
    for element in _children(root, "BinaryOnly"):
        return element.get("MetadataFile")
    return None


def read_provenance(root: ElementTree.Element) -> dict[str, str]:
    """Read what `write_plane` recorded as a MapAnnotation, in its order; empty where there is none."""
    for annotations in _children(root, "StructuredAnnotations"):
        for annotation in _children(annotations, "MapAnnotation"):
            if annotation.get("Namespace") == PROVENANCE_NAMESPACE:
                entries = (entry for value in _children(annotation, "Value") for entry in _children(value, "M"))
                return {entry.get("K", ""): entry.text or "" for entry in entries}
    return {}


def read_plane_metadata(root: ElementTree.Element, where: PlaneLocation, file_uuid: str | None) -> OmeMetadata:
    """Read what the XML says about the plane at `where`; `file_uuid` is the file's own, where it states one."""
    images = [_Image.read(pixels) for image in _children(root, "Image") for pixels in _children(image, "Pixels")]
    if not images:
        lost = "its OME-XML describes no image, so pixel size and channel are unknown"
        return OmeMetadata(states_size=True, warnings=(lost,))
    if file_uuid not in {data.uuid for image in images for data in image.tiff_data}:
        file_uuid = None  # a copy that was given a new one: only the file's name can tell
    meant = _images_meant(images, where, file_uuid)
    if len({(image.size_attributes, tuple(image.channels)) for image in meant}) != 1:
        found = f"its OME-XML describes {len(images)} images and does not say which of them this plane is"
        return OmeMetadata(states_size=True, warnings=(f"{found}, so pixel size and channel are unknown",))
    return meant[0].describe(where, file_uuid)


@dataclass(frozen=True)
class _TiffData:
    """Which directories of which file hold planes of an Image; `count` None means as many as the Image has."""

    file_name: str | None
    uuid: str | None
    first_directory: int
    count: int | None
    first: Mapping[str, int]  # Z, C, T
    states_channel: bool

    @classmethod
    def read(cls, element: ElementTree.Element) -> "_TiffData":
        uuid = next(_children(element, "UUID"), None)
        directory, count = _whole(element.get("IFD")), _whole(element.get("PlaneCount"))
        return cls(
            file_name=None if uuid is None else uuid.get("FileName"),
            uuid=None if uuid is None else (uuid.text or "").strip().lower(),
            first_directory=directory or 0,
            count=1 if count is None and directory is not None else count,
            first={axis: _whole(element.get(f"First{axis}")) or 0 for axis in "ZCT"},
            states_channel="FirstC" in element.attrib,
        )

    def names_file(self, where: PlaneLocation, file_uuid: str | None) -> bool:
        """Whether the file is meant. Its own UUID decides, where it has one: a file may have been renamed."""
        if self.uuid is None:
            return True
        if file_uuid is not None:
            return self.uuid == file_uuid
        return self.file_name is None or re.split(r"[/\\]", self.file_name)[-1] == where.file_name


@dataclass(frozen=True)
class _Image:
    """One Image of the XML, of which nothing is trusted yet."""

    shape: tuple[int | None, int | None]
    sizes: Mapping[str, int]  # Z, C, T
    order: str
    size_attributes: tuple[str | None, ...]  # PhysicalSizeY, its unit, PhysicalSizeX, its unit
    channels: Sequence[tuple[str | None, str | None]]  # name and contrast method
    tiff_data: Sequence[_TiffData]

    @classmethod
    def read(cls, pixels: ElementTree.Element) -> "_Image":
        channels = [(element.get("Name"), element.get("ContrastMethod")) for element in _children(pixels, "Channel")]
        sizes = {axis: max(1, _whole(pixels.get(f"Size{axis}")) or 1) for axis in "ZCT"}
        return cls(
            shape=(_whole(pixels.get("SizeY")), _whole(pixels.get("SizeX"))),
            sizes=sizes | {"C": max(sizes["C"], len(channels))},
            order=pixels.get("DimensionOrder", "XYCZT"),
            size_attributes=tuple(
                pixels.get(name) for axis in "YX" for name in (f"PhysicalSize{axis}", f"PhysicalSize{axis}Unit")
            ),
            channels=channels,
            tiff_data=[_TiffData.read(element) for element in _children(pixels, "TiffData")],
        )

    @property
    def planes(self) -> int:
        return math.prod(self.sizes.values())

    def data_of(self, where: PlaneLocation, file_uuid: str | None) -> _TiffData | None:
        """Find the TiffData element of the plane."""
        for data in self.tiff_data:
            offset = where.directory - data.first_directory
            if data.names_file(where, file_uuid) and 0 <= offset < self._count(data):
                return data
        return None

    def _count(self, data: _TiffData) -> int:
        return self.planes if data.count is None else data.count

    def agrees(self, shape: tuple[int, int]) -> bool:
        return all(stated in (None, found) for stated, found in zip(self.shape, shape, strict=True))

    def describe(self, where: PlaneLocation, file_uuid: str | None) -> OmeMetadata:
        warnings: list[str] = []
        name, contrast = self._channel(where, file_uuid, warnings)
        if not self.agrees(where.shape):
            stated, found = (f"{x} x {y} px" for y, x in (self.shape, where.shape))
            warnings.append(f"its OME-XML states {stated}, the plane has {found}, so the pixel size is unknown")
            size, states_size = None, True
        else:
            size, states_size = _pixel_size(self.size_attributes, warnings)
        return OmeMetadata(size, states_size, name or None, _modality(name, contrast, warnings), tuple(warnings))

    def _channel(
        self, where: PlaneLocation, file_uuid: str | None, warnings: list[str]
    ) -> tuple[str | None, str | None]:
        """Name and contrast method of the plane's channel; None where the XML does not tell which one it is."""
        here = [data for data in self.tiff_data if data.names_file(where, file_uuid)]
        promised = sum(self._count(data) for data in here) if self.tiff_data else self.planes
        if promised > where.planes:
            warnings.append("its OME-XML describes more planes than the one it holds")
        number = 0
        if self.sizes["C"] > 1:
            data = self.data_of(where, file_uuid)
            complete = sum(self._count(data) for data in self.tiff_data) >= self.planes
            if data is None or promised > where.planes or not (complete or data.states_channel):
                warnings.append("its OME-XML does not say which channel this plane is")
                return None, None
            number = self._position(where.directory - data.first_directory, data.first)["C"]
        return self.channels[number] if number < len(self.channels) else (None, None)

    def _position(self, offset: int, first: Mapping[str, int]) -> dict[str, int]:
        """Compute the indices (Z, C, T) of the plane `offset` planes after `first`, in the dimension order."""
        axes = [axis for axis in self.order if axis in "ZCT"]
        axes += [axis for axis in "CZT" if axis not in axes]
        number, stride = offset, 1
        for axis in axes:
            number += first[axis] * stride
            stride *= self.sizes[axis]
        position = {}
        for axis in axes:
            number, position[axis] = divmod(number, self.sizes[axis])
        return position


def _images_meant(images: Sequence[_Image], where: PlaneLocation, file_uuid: str | None) -> Sequence[_Image]:
    """Find the Images that may be this plane's: by TiffData, among them by size; else by size; else the only one."""
    named = [image for image in images if image.data_of(where, file_uuid)]
    fitting = [image for image in named or images if image.agrees(where.shape)]
    if len(images) == 1 or (named and not fitting):
        return named or images
    return fitting or images


def _pixel_size(attributes: tuple[str | None, ...], warnings: list[str]) -> tuple[tuple[float, float] | None, bool]:
    """Pixel size (y, x) in µm, and whether it is spoken of."""
    y_text, y_unit, x_text, x_unit = attributes
    sizes = []
    for axis, text, unit in (("Y", y_text, y_unit), ("X", x_text, x_unit)):
        value = _number(text)
        if value is None and text is not None:
            warnings.append(f"its PhysicalSize{axis} is {text!r}, which is no number, so the pixel size is unknown")
            return None, True
        factor = um_per_unit(unit or "µm")
        sizes.append((value, factor))
    stated = " x ".join(f"{text} {unit or 'µm'}" for text, unit in ((y_text, y_unit), (x_text, x_unit)))
    ignored = f"its pixel size of {stated} is not one of a light microscope and is ignored"
    if any(value is not None and value < 0 for value, _ in sizes):
        warnings.append(ignored)
        return None, True
    if not all(value is not None and value > 0 for value, _ in sizes):
        # A size of zero means "unknown" to some writers; one axis alone does not tell the other.
        return None, any(value is not None and value > 0 for value, _ in sizes)
    values_um = [value * factor for value, factor in sizes if value is not None and factor is not None]
    size = plausible_pixel_size((values_um[0], values_um[1])) if len(values_um) == 2 else None
    if size is None:
        warnings.append(ignored)
    return size, True


def _modality(name: str | None, contrast: str | None, warnings: list[str]) -> Modality | None:
    token, method = (name or "").strip().upper(), (contrast or "").strip().casefold()
    named = Modality(token) if token in Modality.__members__ else None
    lit = _MODALITY_OF_CONTRAST.get(method)
    if method and lit is None and method not in _OTHER_CONTRASTS:
        warnings.append(f"its ContrastMethod {contrast!r} is not one of OME's and is ignored")
    if named and lit and named is not lit:
        warnings.append(f"its channel is called {name}, but its ContrastMethod is {contrast}: taken as {named}")
    return named or lit


def _well_formed(text: str) -> str:
    """Mend what would cost the whole document: characters that XML forbids, HTML's entities, bare ampersands."""

    def entity(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("#") or name in _XML_ENTITIES:
            return match[0]
        known = html.unescape(match[0])
        return known if known != match[0] else f"&amp;{name};"

    text = re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
    text = re.sub(r"&(?!#\d+;|#x[0-9a-fA-F]+;|\w+;)", "&amp;", text)
    return re.sub(r"&(#?\w+);", entity, text)


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children by local name: older schemas have other namespaces and differ in nothing that is read here."""
    return (child for child in element if isinstance(child.tag, str) and child.tag.rpartition("}")[2] == name)


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
