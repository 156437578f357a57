"""One Image of an OME-XML: its size, its channels, and which directories of which file hold its planes.

Nothing that it states is trusted: one invalid attribute costs no other.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from ..labels import Modality
from .channels import describe_channel
from .stack import Channel, Position
from .units import plausible_pixel_size, plausible_z_step, seconds_per_unit, um_per_unit

_MODALITY_OF_CONTRAST = {"brightfield": Modality.BF, "phase": Modality.PC, "dic": Modality.DIC}
_OTHER_CONTRASTS = {
    "hoffmanmodulation", "obliqueillumination", "polarizedlight", "darkfield", "fluorescence", "other",
}  # fmt: skip
_CHANNEL_ATTRIBUTES = (
    "Name", "ContrastMethod", "IlluminationType", "AcquisitionMode", "Fluor", "EmissionWavelength",
)  # fmt: skip


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
    channel : Channel
    warnings : tuple of str
        What was ignored, and why.
    """

    pixel_size_um: tuple[float, float] | None = None
    states_size: bool = False
    channel: Channel = field(default_factory=Channel)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TiffData:
    """Which directories of which file hold planes of an Image; `count` None means as many as the Image has."""

    file_name: str | None
    uuid: str | None
    first_directory: int
    count: int | None
    first: Mapping[str, int]  # Z, C, T
    states_channel: bool

    @classmethod
    def read(cls, element: ElementTree.Element) -> "TiffData":
        """Read a TiffData element."""
        uuid = next(children(element, "UUID"), None)
        directory, count = _whole(element.get("IFD")), _whole(element.get("PlaneCount", element.get("NumPlanes")))
        return cls(
            file_name=None if uuid is None else uuid.get("FileName"),
            uuid=None if uuid is None else (uuid.text or "").strip().lower(),
            first_directory=directory or 0,
            count=1 if count is None and directory is not None else count,
            first={axis: _whole(element.get(f"First{axis}")) or 0 for axis in "ZCT"},
            states_channel="FirstC" in element.attrib,
        )

    def names_file(self, file_name: str, file_uuid: str | None) -> bool:
        """Whether the file is meant. Its own UUID decides, where it has one: a file may have been renamed."""
        if self.uuid is None:
            return True
        if file_uuid is not None:
            return self.uuid == file_uuid
        return self.file_name is None or re.split(r"[/\\]", self.file_name)[-1] == file_name


@dataclass(frozen=True)
class OmeImage:
    """One Image of the XML."""

    name: str | None
    shape: tuple[int | None, int | None]
    sizes: Mapping[str, int]  # Z, C, T
    order: str
    size_attributes: tuple[str | None, ...]  # PhysicalSizeY, its unit, PhysicalSizeX, its unit
    z_step_um: float | None
    time_increment_s: float | None
    channels: Sequence[Mapping[str, str]]  # what their attributes tell
    tiff_data: Sequence[TiffData]

    @classmethod
    def read(cls, image: ElementTree.Element, pixels: ElementTree.Element) -> "OmeImage":
        """Read the Pixels element of an Image element."""
        elements = list(children(pixels, "Channel"))
        sizes = {axis: max(1, _whole(pixels.get(f"Size{axis}")) or 1) for axis in "ZCT"}
        samples = sum(max(1, _whole(element.get("SamplesPerPixel")) or 1) for element in elements)
        of_colours = samples > len(elements) and samples == sizes["C"]  # SizeC counts red, green and blue
        return cls(
            name=image.get("Name"),
            shape=(_whole(pixels.get("SizeY")), _whole(pixels.get("SizeX"))),
            sizes=sizes | {"C": len(elements) if of_colours else _whole(pixels.get("SizeC")) or len(elements) or 1},
            order=pixels.get("DimensionOrder", "XYCZT"),
            size_attributes=tuple(
                pixels.get(name) for axis in "YX" for name in (f"PhysicalSize{axis}", f"PhysicalSize{axis}Unit")
            ),
            z_step_um=_z_step(pixels),
            time_increment_s=_time_increment(pixels),
            channels=[
                {key: element.attrib[key] for key in _CHANNEL_ATTRIBUTES if key in element.attrib}
                for element in elements
            ],
            tiff_data=[data for data in map(TiffData.read, children(pixels, "TiffData")) if data.first_directory >= 0],
        )

    @property
    def planes(self) -> int:
        """How many planes it has, in all its files."""
        return math.prod(self.sizes.values())

    def data_of(self, where: PlaneLocation, file_uuid: str | None) -> TiffData | None:
        """Find the TiffData element of the plane."""
        for data in self.tiff_data:
            offset = where.directory - data.first_directory
            if data.names_file(where.file_name, file_uuid) and 0 <= offset < self._count(data):
                return data
        return None

    def positions(self, file_name: str, directories: int, file_uuid: str | None) -> dict[int, Position]:
        """Find the position of each directory of a file that holds one of this Image's planes."""
        found: dict[int, Position] = {}
        for data in self.tiff_data or [TiffData(None, None, 0, None, dict.fromkeys("ZCT", 0), False)]:
            if not data.names_file(file_name, file_uuid):
                continue
            end = min(data.first_directory + self._count(data), directories)
            for directory in range(data.first_directory, end):
                at = self._position(directory - data.first_directory, data.first)
                found.setdefault(directory, (at["T"], at["C"], at["Z"]))
        return found

    def promised(self, file_name: str, file_uuid: str | None) -> int:
        """How many planes it says the file holds."""
        if not self.tiff_data:
            return self.planes
        return sum(self._count(data) for data in self.tiff_data if data.names_file(file_name, file_uuid))

    def agrees(self, shape: tuple[int, int]) -> bool:
        """Whether it states this many rows and columns, or none."""
        return all(stated in (None, found) for stated, found in zip(self.shape, shape, strict=True))

    def describe(self, where: PlaneLocation, file_uuid: str | None) -> OmeMetadata:
        """Say what is known of one plane."""
        warnings: list[str] = []
        attributes = self._channel_attributes(where, file_uuid, warnings)
        size, states_size = self.pixel_size(where.shape, warnings)
        return OmeMetadata(size, states_size, channel_of(attributes, warnings), tuple(warnings))

    def pixel_size(self, shape: tuple[int, int], warnings: list[str]) -> tuple[tuple[float, float] | None, bool]:
        """Pixel size (y, x) in µm of planes of this shape, and whether it is spoken of; appends to `warnings`."""
        if self.agrees(shape):
            return _pixel_size(self.size_attributes, warnings)
        stated, found = (f"{x} x {y} px" for y, x in (self.shape, shape))
        warnings.append(f"its OME-XML states {stated}, the plane has {found}, so the pixel size is unknown")
        return None, True

    def _count(self, data: TiffData) -> int:
        return self.planes if data.count is None else data.count

    def _channel_attributes(
        self, where: PlaneLocation, file_uuid: str | None, warnings: list[str]
    ) -> Mapping[str, str]:
        """Attributes of the plane's channel; empty where the XML does not tell which one it is."""
        promised = self.promised(where.file_name, file_uuid)
        if promised > where.planes:
            warnings.append("its OME-XML describes more planes than the one it holds")
        number = 0
        if self.sizes["C"] > 1:
            data = self.data_of(where, file_uuid)
            complete = sum(self._count(data) for data in self.tiff_data) >= self.planes
            if data is None or promised > where.planes or not (complete or data.states_channel):
                warnings.append("its OME-XML does not say which channel this plane is")
                return {}
            number = self._position(where.directory - data.first_directory, data.first)["C"]
        return self.channels[number] if number < len(self.channels) else {}

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


def channel_of(attributes: Mapping[str, str], warnings: list[str]) -> Channel:
    """Describe a channel by its attributes; appends to `warnings` what is invalid or contradictory."""
    name, contrast = attributes.get("Name"), attributes.get("ContrastMethod")
    method = (contrast or "").strip().casefold()
    lit = _MODALITY_OF_CONTRAST.get(method)
    if method and lit is None and method not in _OTHER_CONTRASTS:
        warnings.append(f"its ContrastMethod {contrast!r} is not one of OME's and is ignored")
    channel = describe_channel(
        name,
        contrast_method=contrast,
        illumination=attributes.get("IlluminationType"),
        acquisition_mode=attributes.get("AcquisitionMode"),
        fluorescent="Fluor" in attributes or "EmissionWavelength" in attributes,
    )
    other_modality = lit and channel.modality and lit is not channel.modality
    if other_modality or (channel.transmitted and method == "fluorescence"):
        taken = channel.modality or "transmitted light"
        warnings.append(f"its channel is called {name}, but its ContrastMethod is {contrast}: taken as {taken}")
    return channel


def children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children by local name: older schemas have other namespaces and differ in nothing that is read here."""
    return (child for child in element if isinstance(child.tag, str) and child.tag.rpartition("}")[2] == name)


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


def _z_step(pixels: ElementTree.Element) -> float | None:
    """Distance of focal planes in µm; None where it is absent or senseless: nothing but the output's metadata."""
    step, unit = _number(pixels.get("PhysicalSizeZ")), um_per_unit(pixels.get("PhysicalSizeZUnit") or "µm")
    return None if step is None or unit is None else plausible_z_step(step * unit)


def _time_increment(pixels: ElementTree.Element) -> float | None:
    step, unit = _number(pixels.get("TimeIncrement")), seconds_per_unit(pixels.get("TimeIncrementUnit") or "s")
    return float(f"{step * unit:.9g}") if step is not None and unit is not None and step > 0 else None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
