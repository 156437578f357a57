"""Read Leica's LIF files plane by plane, with the package liffile."""

import logging
import math
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .channels import describe_channel
from .grey import conversion_warnings, is_convertible, to_grey
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, missing_package, refuse
from .stack import Channel, StackInfo, check_index, describing_scene
from .units import PLAUSIBLE_Z_STEP_UM, plausible_pixel_size, um_per_unit

# What liffile has to say of strange files is said by UserError; without this it lands on stderr as well.
logging.getLogger("liffile").addHandler(logging.NullHandler())

_AXES = ("T", "C", "Z")
_TILE = "M"  # of a tile scan: each is a stage position
_CHANNELS = "Data/Image/ImageDescription/Channels/ChannelDescription"
_DIMENSIONS = "Data/Image/ImageDescription/Dimensions/DimensionDescription"
_DIMENSION_IDS = {"X": "1", "Y": "2", "Z": "3", "T": "4", _TILE: "10"}
_CONTRASTS = {"BF": "brightfield", "PH": "phase", "DIC": "dic", "FLUO": "fluorescence"}
_TRANSMITTED = "TL-"


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
        raise missing_package(path, "a LIF file", "lif") from error
    damaged = f"{path}: found a damaged or truncated LIF file, expected {EXPECTED_PLANE}."
    try:
        file = liffile.LifFile(path, mode="r", squeeze=False)
    except Exception as error:  # struct, value, index: a file that lies can raise any
        raise UserError(damaged) from error
    try:
        if file.type is not liffile.LifFileType.LIF:  # its relatives lead to other files
            refuse(path, f"a file of type {file.type.name}", "a LIF file")
        return LifStack(path, file, scene)
    except UserError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise UserError(damaged) from error


class LifStack:
    """The planes of a scene of an open LIF file."""

    def __init__(self, path: Path, file: Any, scene: int) -> None:
        self._file = file
        tiles = [(image, tile) for image in file.images if not image.is_flim for tile in range(_tiles(image))]
        if not tiles:
            refuse(path, "no image")
        with describing_scene(path, scene, len(tiles)):
            self._image, self._tile = tiles[scene]
            self.info = self._describe(path, len(tiles))

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        at = {axis: index for axis, index in zip(_AXES, (t, c, z), strict=True) if axis in self._image.sizes}
        if _TILE in self._image.sizes:
            at[_TILE] = self._tile
        try:
            return to_grey(np.asarray(self._image.frame(**at)).reshape(*self.info.shape, *self._samples))
        except Exception as error:
            raise UserError(
                f"{self.info.path}: found damaged pixel data at t {t}, z {z}, expected {EXPECTED_PLANE}."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the stack itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def _describe(self, path: Path, scenes: int) -> StackInfo:
        image = self._image
        sizes = _sizes(image)
        others = {axis: n for axis, n in sizes.items() if axis not in ("Y", "X", "S", _TILE, *_AXES) and n > 1}
        axes = "".join(sizes)
        if others or not axes.removesuffix("S").endswith("YX"):
            refuse(path, f"axes {axes} in image {image.name!r}", "times, channels, focal planes, rows and columns")
        shape, samples = (sizes["Y"], sizes["X"]), sizes.get("S", 1)
        dtype = np.dtype(image.dtype)
        rows = _dimension(image.xml_element, "Y")
        if rows is None or int(rows.get("BytesInc", 0)) != shape[1] * samples * dtype.itemsize:
            refuse(path, f"rows with bytes between them in image {image.name!r}", "rows one behind the other")
        if samples not in (1, 3, 4) or not is_convertible(dtype):
            refuse(path, f"pixels of {samples} values of type {dtype} in image {image.name!r}")
        check_claimed_size(path, *shape, dtype.itemsize * samples, of="a plane")
        block = image.memory_block
        claimed = math.prod(sizes.values()) * dtype.itemsize
        if block.size < claimed or block.offset + block.size > path.stat().st_size:
            refuse(path, f"a damaged or truncated LIF file: less than {claimed} bytes of image {image.name!r}")
        self._samples = () if samples == 1 else (samples,)
        channels = _channels(image.xml_element, sizes.get("C", 1))
        size = _pixel_size(image.xml_element)
        warnings = list(conversion_warnings(dtype, samples))
        if size is None:
            warnings.append("its pixel size is missing or not one of a light microscope")
        return StackInfo(
            path,
            shape,
            times=sizes.get("T", 1),
            channels=channels,
            focal_planes=sizes.get("Z", 1),
            pixel_size_um=size,
            z_step_um=_z_step(image.xml_element),
            time_increment_s=_step(_dimension(image.xml_element, "T"), 1.0),
            warnings=tuple(warnings),
            scenes=scenes,
        )


def _sizes(image: Any) -> dict[str, int]:
    return {str(axis): int(length) for axis, length in image.sizes.items()}


def _tiles(image: Any) -> int:
    """How many tiles an image has; of those that liffile cannot describe, too."""
    element = _dimension(image.xml_element, _TILE)
    return 1 if element is None else max(1, int(element.get("NumberOfElements", 1)))


def _channels(element: ElementTree.Element, count: int) -> tuple[Channel, ...]:
    """Describe the channels by their setting in a widefield microscope, where there is one for each, and their LUT."""
    described = element.findall(_CHANNELS)
    names = [channel.get("LUTName") for channel in described] if len(described) == count else [None] * count
    settings = list(element.iter("WideFieldChannelInfo"))
    stated = settings if len(settings) == count else [ElementTree.Element("unknown")] * count
    return tuple(_channel(setting, name) for setting, name in zip(stated, names, strict=True))


def _channel(setting: ElementTree.Element, lut: str | None) -> Channel:
    contrast = setting.get("ContrastingMethodName", "").upper()
    return describe_channel(
        setting.get("UserDefName") or lut or None,
        contrast_method=_CONTRASTS.get(contrast.removeprefix(_TRANSMITTED)),
        illumination="transmitted" if contrast.startswith(_TRANSMITTED) else None,
        fluorescent=contrast == "FLUO",
    )


def _pixel_size(element: ElementTree.Element) -> tuple[float, float] | None:
    y, x = (_step_um(element, axis) for axis in "YX")
    return plausible_pixel_size((y, x)) if y and x else None


def _z_step(element: ElementTree.Element) -> float | None:
    low, high = PLAUSIBLE_Z_STEP_UM
    step = _step_um(element, "Z")
    return step if step and low <= step <= high else None


def _step_um(element: ElementTree.Element, axis: str) -> float | None:
    dimension = _dimension(element, axis)
    um = None if dimension is None else um_per_unit(dimension.get("Unit", ""))
    return None if um is None else _step(dimension, um)


def _step(dimension: ElementTree.Element | None, factor: float) -> float | None:
    """Distance of neighbours along an axis, whose length is that from the first to the last."""
    if dimension is None:
        return None
    try:
        length, steps = float(dimension.get("Length", "")), int(dimension.get("NumberOfElements", "")) - 1
    except ValueError:
        return None
    return float(f"{abs(length) / steps * factor:.9g}") if steps > 0 and 0 < abs(length) < math.inf else None


def _dimension(element: ElementTree.Element, axis: str) -> ElementTree.Element | None:
    return next((found for found in element.iterfind(_DIMENSIONS) if found.get("DimID") == _DIMENSION_IDS[axis]), None)
