"""Read Zeiss's CZI files plane by plane, with the package pylibCZIrw.

The tiles of a scene are put together as they were recorded, overlaps and all; pyramid levels are left out.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .grey import conversion_warnings, to_grey
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, missing_package, refuse
from .ome_image import channel_of
from .stack import Channel, StackInfo, check_index, describing_scene, in_grid
from .units import PLAUSIBLE_Z_STEP_UM, plausible_pixel_size

_PIXEL_TYPES = {
    "Gray8": (np.uint8, 1), "Gray16": (np.uint16, 1), "Gray32Float": (np.float32, 1),
    "Bgr24": (np.uint8, 3), "Bgr48": (np.uint16, 3),
}  # fmt: skip
_UM_PER_M = 1e6
_CHANNELS = "Metadata/Information/Image/Dimensions/Channels/Channel"
_INTERVAL = "Metadata/Information/Image/Dimensions/T/Positions/Interval/Increment"
_DISTANCE = "Metadata/Scaling/Items/Distance"


def open_czi(path: Path, scene: int) -> "CziStack":
    """Open a scene of a CZI file, counted from 0.

    Raises
    ------
    UserError
        Where it cannot be read, the package pylibCZIrw is missing, or it holds something else than planes of grey
        values or RGB along times, channels and focal planes.
    """
    check_is_file(path)
    try:
        from pylibCZIrw.czi import open_czi as opened
    except ImportError as error:
        raise missing_package(path, "a CZI file", "czi") from error
    with ExitStack() as stack:
        try:
            document = stack.enter_context(opened(str(path)))
            return CziStack(path, document, scene, stack.pop_all())
        except UserError:
            raise
        except Exception as error:  # libCZI raises RuntimeError for most, numbers that lie any
            raise UserError(f"{path}: found a damaged or truncated CZI file, expected {EXPECTED_PLANE}.") from error


class CziStack:
    """The planes of a scene of an open CZI file."""

    def __init__(self, path: Path, document: Any, scene: int, opened: ExitStack) -> None:
        self._document, self._opened = document, opened
        try:
            self.info = self._describe(path, scene)
        except BaseException:
            self.close()
            raise

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X)."""
        check_index(self.info, t, c, z)
        at = dict(zip("TCZ", self._coordinates[self._numbers[t, c, z]], strict=True))
        try:
            pixels = self._document.read(roi=self._rectangle, plane=at, scene=self._scene)
        except MemoryError as error:
            raise UserError(f"{self.info.path}: there is not enough memory for one of its planes.") from error
        except Exception as error:
            raise UserError(
                f"{self.info.path}: found damaged pixel data at t {t}, z {z}, expected {EXPECTED_PLANE}."
            ) from error
        return to_grey(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., ::-1])  # stored as BGR

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        """Return the stack itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.close()

    def _describe(self, path: Path, scene: int) -> StackInfo:
        blocks = self._blocks()
        scenes = sorted({block.get("S", 0) for block in blocks})
        with describing_scene(path, scene, len(scenes)):
            return self._describe_scene(path, blocks, scenes[scene], len(scenes))

    def _describe_scene(self, path: Path, blocks: Sequence[Mapping[str, int]], scene: int, scenes: int) -> StackInfo:
        mine = [block for block in blocks if block.get("S", 0) == scene]
        self._scene = mine[0].get("S")
        self._rectangle = _rectangle(self._document, self._scene)
        for axis in set().union(*mine) - set("TCZS"):
            if (length := len({block.get(axis) for block in mine})) > 1:
                refuse(path, f"an axis {axis} of {length}", "times, channels and focal planes")
        self._coordinates = sorted({(block.get("T", 0), block.get("C", 0), block.get("Z", 0)) for block in mine})
        self._numbers, kept = in_grid(dict(enumerate(self._coordinates)))
        shape = self._rectangle[3], self._rectangle[2]
        warnings = self._check_pixels(path, kept[1], shape)
        root = ElementTree.fromstring(self._document.raw_metadata)
        described = root.findall(_CHANNELS)
        channels = [_channel(described[c], warnings) if c < len(described) else Channel() for c in kept[1]]
        size = _pixel_size(root)
        if size is None:
            warnings.append("its pixel size is missing or not one of a light microscope")
        return StackInfo(
            path,
            shape,
            times=len(kept[0]),
            channels=tuple(channels),
            focal_planes=len(kept[2]),
            stored=frozenset(self._numbers) if len(self._numbers) < np.prod([len(axis) for axis in kept]) else None,
            pixel_size_um=size,
            z_step_um=_z_step(root),
            time_increment_s=_positive(root.findtext(_INTERVAL)),
            warnings=tuple(dict.fromkeys(warnings)),
            scenes=scenes,
        )

    def _blocks(self) -> list[dict[str, int]]:
        """List the coordinates of all tiles of full resolution."""
        found: list[dict[str, int]] = []

        def note(_: int, block: Any) -> bool:
            found.append({axis: int(index) for axis, index in block.coordinate.to_dict().items()})
            return True

        self._document.enumerate_subblocks_subset(note, only_layer0=True)
        return found

    def _check_pixels(self, path: Path, channels: Sequence[int], shape: tuple[int, int]) -> list[str]:
        """Check the types of the channels' pixels and the size of a plane; says how they are taken as grey."""
        warnings: list[str] = []
        for c in channels:
            name = self._document.get_channel_pixel_type(c)
            if name not in _PIXEL_TYPES:
                refuse(path, f"pixels of type {name}", "grey values or RGB")
            dtype, samples = _PIXEL_TYPES[name]
            check_claimed_size(path, *shape, np.dtype(dtype).itemsize * samples, of="a plane")
            warnings += conversion_warnings(dtype, samples)
        return warnings


def _rectangle(document: Any, scene: int | None) -> tuple[int, int, int, int]:
    """Left, top, width and height of a scene at full resolution."""
    if scene is None:
        return tuple(document.total_bounding_rectangle_no_pyramid)
    return tuple(document.scenes_bounding_rectangle_no_pyramid[scene])


def _channel(element: ElementTree.Element, warnings: list[str]) -> Channel:
    """Describe a channel: ZEN uses OME's words, as elements."""
    stated = {child.tag: child.text for child in element if child.text and child.text.strip()}
    return channel_of({**stated, **element.attrib}, warnings)


def _pixel_size(root: ElementTree.Element) -> tuple[float, float] | None:
    y, x = (_distance_um(root, axis) for axis in "YX")
    return plausible_pixel_size((y, x)) if y and x else None


def _z_step(root: ElementTree.Element) -> float | None:
    low, high = PLAUSIBLE_Z_STEP_UM
    step = _distance_um(root, "Z")
    return step if step and low <= step <= high else None


def _distance_um(root: ElementTree.Element, axis: str) -> float | None:
    stated = next((distance for distance in root.iterfind(_DISTANCE) if distance.get("Id") == axis), None)
    metres = None if stated is None else _positive(stated.findtext("Value"))
    return None if metres is None else float(f"{metres * _UM_PER_M:.9g}")


def _positive(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
