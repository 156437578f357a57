"""Read Leica's LIF files plane by plane: the package liffile finds the images, their description says where pixels are.

liffile's own frames take the pixels as they lie one behind the other, whatever lies between them.
"""

import logging
import math
import mmap
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .channels import describe_channel
from .grey import conversion_warnings, to_grey
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, missing_package, refuse
from .stack import Channel, Stack, StackInfo, check_index, describing_scene
from .units import plausible_pixel_size, plausible_z_step, um_per_unit

# What liffile has to say of strange files is said by UserError; without this it lands on stderr as well.
logging.getLogger("liffile").addHandler(logging.NullHandler())

_DESCRIPTION = "Data/Image/ImageDescription"
_AXES = {"1": "X", "2": "Y", "3": "Z", "4": "T", "10": "M"}  # M: tiles of a scan that was not merged
_COLOURS = {"1": 0, "2": 1, "3": 2}  # red, green and blue by ChannelTag; 0 is grey
_FLOAT = "1"
_CONTRASTS = {"BF": "brightfield", "PH": "phase", "DIC": "dic", "FLUO": "fluorescence"}
_TRANSMITTED = "TL-"
_MAX_SCENES = 100_000


def open_lif(path: Path, scene: int) -> "LifStack":
    """Open a scene of a LIF file, counted from 0: an image, or a tile of one that was not merged.

    Raises
    ------
    UserError
        Where it cannot be read, the package liffile is missing, or the scene is something else than planes of grey
        values or RGB along times, channels and focal planes.
    """
    check_is_file(path)
    try:
        import liffile
    except ImportError as error:
        raise missing_package(path, "a LIF file", "liffile") from error
    damaged = f"{path}: found a damaged or truncated LIF file, expected {EXPECTED_PLANE}."
    try:
        file = liffile.LifFile(path, mode="r")
    except Exception as error:  # struct, value, index: a file that lies can raise any
        raise UserError(damaged) from error
    with file:
        try:
            if file.type is not liffile.LifFileType.LIF:  # its relatives lead to other files
                refuse(path, f"a file of type {file.type.name}", "a LIF file")
            return LifStack(path, [image for image in file.images if not image.is_flim], scene)
        except UserError:
            raise
        except Exception as error:
            raise UserError(damaged) from error


class LifStack(Stack):
    """The planes of a scene of a LIF file; `images` are those of liffile."""

    def __init__(self, path: Path, images: Sequence[Any], scene: int) -> None:
        if not images:
            refuse(path, "no image")
        tiles = [_count_tiles(image) for image in images]
        ends = list(accumulate(tiles))
        if (scenes := ends[-1]) > _MAX_SCENES:
            refuse(path, f"{scenes} images and tiles", f"at most {_MAX_SCENES}")
        with describing_scene(path, scene, scenes):
            number = bisect(ends, scene)
            tile = scene - ends[number] + tiles[number]
            self._layout = _read_layout(path, images[number], tile)
            name = f"{images[number].name}, tile {tile}" if tiles[number] > 1 else str(images[number].name)
            self.info = self._describe(path, images[number].xml_element, name, scenes)
        with path.open("rb") as file:
            self._pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        plane = self._layout.plane(self._pixels, t, c, z)
        return to_grey(np.ascontiguousarray(plane))

    def close(self) -> None:
        """Close the file."""
        self._pixels.close()

    def _describe(self, path: Path, element: ElementTree.Element, name: str, scenes: int) -> StackInfo:
        layout = self._layout
        size = _pixel_size(layout.dimensions)
        warnings = [text for c in layout.channels for text in conversion_warnings(c.dtype, len(c.offsets))]
        if size is None:
            warnings.append("its pixel size is missing or not one of a light microscope")
        return StackInfo(
            path,
            (layout.dimensions["Y"].length, layout.dimensions["X"].length),
            times=layout.length("T"),
            channels=_channels(element, layout.channels),
            focal_planes=layout.length("Z"),
            pixel_size_um=size,
            z_step_um=plausible_z_step(_step_um(layout.dimensions, "Z")),
            time_increment_s=layout.dimensions["T"].step(1.0) if "T" in layout.dimensions else None,
            warnings=tuple(dict.fromkeys(warnings)),
            scenes=scenes,
            scene_name=name,
        )


@dataclass(frozen=True)
class _Dimension:
    """An axis: how many elements, how many bytes from one to the next, how long from the first to the last."""

    length: int
    stride: int
    extent: float
    unit: str

    @classmethod
    def read(cls, element: ElementTree.Element) -> "_Dimension":
        get = element.get
        try:
            extent = float(get("Length", ""))
        except ValueError:
            extent = math.nan
        return cls(int(get("NumberOfElements", "")), int(get("BytesInc", "")), extent, get("Unit", ""))

    def step(self, factor: float | None) -> float | None:
        """Distance of neighbours."""
        if factor is None or self.length < 2 or not 0 < abs(self.extent) < math.inf:
            return None
        return float(f"{abs(self.extent) / (self.length - 1) * factor:.9g}")


@dataclass(frozen=True)
class _StoredChannel:
    """Type of a channel's values, and where in a pixel they are: one, or red, green and blue; `order` in the XML."""

    dtype: np.dtype[Any]
    offsets: tuple[int, ...]
    order: int


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of a scene are; `start` counts from the beginning of the file."""

    start: int
    dimensions: Mapping[str, _Dimension]
    channels: Sequence[_StoredChannel]

    def length(self, axis: str) -> int:
        return self.dimensions[axis].length if axis in self.dimensions else 1

    def stride(self, axis: str) -> int:
        return self.dimensions[axis].stride if axis in self.dimensions else 0

    def plane(self, pixels: mmap.mmap, t: int, c: int, z: int) -> NDArray[Any]:
        """Take one plane (Y, X), or (Y, X, S) of RGB, out of the file."""
        channel = self.channels[c]
        start = self.start + t * self.stride("T") + z * self.stride("Z")
        shape, strides = (self.length("Y"), self.length("X")), (self.stride("Y"), self.stride("X"))
        values = [np.ndarray(shape, channel.dtype, pixels, start + offset, strides) for offset in channel.offsets]
        return values[0].copy() if len(values) == 1 else np.stack(values, axis=-1)


def _dimensions(image: Any) -> dict[str, _Dimension]:
    """Describe the axes of more than one element, rows and columns; others by their number."""
    found = {}
    for element in image.xml_element.iterfind(f"{_DESCRIPTION}/Dimensions/DimensionDescription"):
        number, dimension = element.get("DimID", ""), _Dimension.read(element)
        axis = _AXES.get(number, f"DimID {number}")
        if axis in found:
            raise ValueError(f"two axes {axis}")
        if dimension.length != 1 or axis in ("Y", "X"):
            found[axis] = dimension
    return found


def _count_tiles(image: Any) -> int:
    """How many tiles an image has; one where they make no sense, which is said when it is opened."""
    try:
        tiles = _dimensions(image).get("M")
        return 1 if tiles is None or not 0 < tiles.length * tiles.stride <= image.memory_block.size else tiles.length
    except (ValueError, KeyError):
        return 1


def _read_layout(path: Path, image: Any, tile: int) -> _Layout:
    """Say where the pixels of an image's tile are; UserError where that is not in the file."""
    title = f"image {image.name!r}"
    dimensions = _dimensions(image)
    if not {"Y", "X"} <= dimensions.keys() <= set(_AXES.values()):
        refuse(path, f"axes {', '.join(dimensions)} in {title}", "times, channels, focal planes, rows and columns")
    channels = _stored_channels(path, image.xml_element, title)
    height, width = dimensions["Y"].length, dimensions["X"].length
    for channel in channels:
        check_claimed_size(path, height, width, channel.dtype.itemsize * len(channel.offsets), of="a plane")
    if any(dimension.length < 1 or dimension.stride < 1 for dimension in dimensions.values()):
        refuse(path, f"axes that make no sense in {title}")
    if _overlap(dimensions, channels):
        refuse(path, f"pixels that overlap in {title}", "each at a place of its own")
    block = image.memory_block
    needed = sum((dimension.length - 1) * dimension.stride for dimension in dimensions.values())
    needed += max(max(channel.offsets) + channel.dtype.itemsize for channel in channels)
    if block.size < needed or block.offset < 0 or block.offset + block.size > path.stat().st_size:
        there = max(0, min(block.size, path.stat().st_size - block.offset))
        refuse(path, f"a damaged or truncated LIF file with {there} bytes of {title}", f"{needed}")
    start = block.offset + (tile * dimensions["M"].stride if "M" in dimensions else 0)
    return _Layout(start, dimensions, channels)


def _overlap(dimensions: Mapping[str, _Dimension], channels: Sequence[_StoredChannel]) -> bool:
    """Whether a byte would belong to two pixels: each axis steps over all that the shorter steps make."""
    offsets = sorted(offset for channel in channels for offset in channel.offsets)
    steps = [(dimension.stride, dimension.length) for dimension in dimensions.values() if dimension.length > 1]
    if len(offsets) > 1:
        steps.append((min(after - before for before, after in pairwise(offsets)), len(offsets)))
    reach = max(channel.dtype.itemsize for channel in channels)
    for stride, length in sorted(steps):
        if stride < reach:
            return True
        reach = stride * length
    return False


def _stored_channels(path: Path, element: ElementTree.Element, title: str) -> list[_StoredChannel]:
    """Describe the channels in the order in which they are stored; three of red, green and blue are one."""
    described = element.findall(f"{_DESCRIPTION}/Channels/ChannelDescription")
    single = []
    for order, channel in enumerate(described):
        bits, kind = int(channel.get("Resolution", "")), "f" if channel.get("DataType") == _FLOAT else "u"
        size = next((size for size in (1, 2, 4, 8) if 0 < bits <= 8 * size), 0)
        if size == 0 or kind + str(size) == "f1":
            refuse(path, f"pixels of {bits} bits in {title}")
        offset = int(channel.get("BytesInc", ""))
        if offset < 0:
            refuse(path, f"channels that make no sense in {title}")
        single.append(_StoredChannel(np.dtype(f"<{kind}{size}"), (offset,), order))
    tags = [channel.get("ChannelTag", "0") for channel in described]
    if sorted(tags) == sorted(_COLOURS):
        colours = sorted(single, key=lambda channel: _COLOURS[tags[channel.order]])
        if len({channel.dtype for channel in colours}) == 1 and single[0].dtype.kind == "u":
            return [_StoredChannel(single[0].dtype, tuple(channel.offsets[0] for channel in colours), 0)]
    if not single or not set(tags) <= {"0"}:
        refuse(path, f"channels of colours {' '.join(tags)} in {title}", "grey values or RGB")
    return sorted(single, key=lambda channel: channel.offsets)


def _channels(element: ElementTree.Element, stored: Sequence[_StoredChannel]) -> tuple[Channel, ...]:
    """Describe the channels by their setting in a widefield microscope, where there is one for each, and their LUT."""
    described = element.findall(f"{_DESCRIPTION}/Channels/ChannelDescription")
    settings = list(element.iter("WideFieldChannelInfo"))
    nothing = ElementTree.Element("unknown")
    return tuple(
        _channel(settings[c.order] if len(settings) == len(stored) else nothing, described[c.order].get("LUTName"))
        for c in stored
    )


def _channel(setting: ElementTree.Element, lut: str | None) -> Channel:
    contrast = setting.get("ContrastingMethodName", "").upper()
    return describe_channel(
        setting.get("UserDefName") or lut or None,
        contrast_method=_CONTRASTS.get(contrast.removeprefix(_TRANSMITTED)),
        illumination="transmitted" if contrast.startswith(_TRANSMITTED) else None,
        fluorescent=contrast == "FLUO",
    )


def _pixel_size(dimensions: Mapping[str, _Dimension]) -> tuple[float, float] | None:
    y, x = (_step_um(dimensions, axis) for axis in "YX")
    return plausible_pixel_size((y, x)) if y and x else None


def _step_um(dimensions: Mapping[str, _Dimension], axis: str) -> float | None:
    return dimensions[axis].step(um_per_unit(dimensions[axis].unit)) if axis in dimensions else None
