"""Read Zeiss's CZI files plane by plane, with the package pylibCZIrw.

The tiles of a scene are put together as they were recorded, overlaps and all; pyramid levels are left out.
"""

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .grey import conversion_warnings, to_grey
from .limits import EXPECTED_PLANE, check_claimed_size, check_is_file, missing_package, refuse
from .ome_image import channel_of
from .stack import Channel, Position, Stack, StackInfo, check_index, describing_scene, in_grid
from .units import plausible_pixel_size, plausible_z_step

_PIXEL_TYPES = {
    "Gray8": (np.uint8, 1), "Gray16": (np.uint16, 1), "Gray32Float": (np.float32, 1),
    "Bgr24": (np.uint8, 3), "Bgr48": (np.uint16, 3),
}  # fmt: skip
_UM_PER_M = 1e6
_DIRECTORY_POSITION = 84  # in the file's header
_CHANNELS = "Metadata/Information/Image/Dimensions/Channels/Channel"
_INTERVAL = "Metadata/Information/Image/Dimensions/T/Positions/Interval/Increment"
_SCENES = "Metadata/Information/Image/Dimensions/S/Scenes/Scene"
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
        raise missing_package(path, "a CZI file", "pylibCZIrw") from error
    damaged = f"{path}: found a damaged or truncated CZI file, expected {EXPECTED_PLANE}."
    try:
        _check_directory(path)
        with ExitStack() as stack:
            document = stack.enter_context(opened(str(path)))
            return CziStack(path, document, scene, stack.pop_all())
    except UserError:
        raise
    except Exception as error:  # libCZI raises RuntimeError for most, numbers that lie any
        raise UserError(damaged) from error


class CziStack(Stack):
    """The planes of a scene of an open CZI file."""

    def __init__(self, path: Path, document: Any, scene: int, opened: ExitStack) -> None:
        self._document, self._opened = document, opened
        try:
            self.info = self._describe(path, scene)
        except BaseException:
            self.close()
            raise

    def read_plane(self, t: int, c: int, z: int) -> NDArray[np.uint16]:
        """Read one plane (Y, X); what its tiles leave open is 0."""
        check_index(self.info, t, c, z)
        at = self._coordinates[self._numbers[t, c, z]]
        wanted = {"roi": self._rectangle, "plane": dict(zip("TCZ", at, strict=True)), "scene": self._scene}
        try:
            pixels = self._document.read(**wanted, pixel_type=self._types[at])
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

    def _describe(self, path: Path, scene: int) -> StackInfo:
        tiles = _read_tiles(self._document)
        scenes = sorted({tile.scene or 0 for tile in tiles})
        if not scenes:
            refuse(path, "no image")
        with describing_scene(path, scene, len(scenes)):
            return self._describe_scene(
                path, [tile for tile in tiles if (tile.scene or 0) == scenes[scene]], len(scenes)
            )

    def _describe_scene(self, path: Path, tiles: Sequence["_Tile"], scenes: int) -> StackInfo:
        self._scene = tiles[0].scene
        self._rectangle = _around(tiles)
        self._types = {tile.plane: tile.pixel_type for tile in tiles}
        warnings = _check_kind(path, tiles, self._rectangle)
        root = ElementTree.fromstring(self._document.raw_metadata)
        self._coordinates = _whole_planes(tiles, warnings)
        self._numbers, kept = in_grid(dict(enumerate(self._coordinates)))
        described = {element.get("Id"): element for element in root.iterfind(_CHANNELS)}
        channels = [
            _channel(described[name], warnings) if (name := f"Channel:{c}") in described else Channel() for c in kept[1]
        ]
        size = _pixel_size(root)
        if size is None:
            warnings.append("its pixel size is missing or not one of a light microscope")
        names = {element.get("Index"): element.get("Name") for element in root.iterfind(_SCENES)}
        return StackInfo(
            path,
            (self._rectangle[3], self._rectangle[2]),
            times=len(kept[0]),
            channels=tuple(channels),
            focal_planes=len(kept[2]),
            stored=frozenset(self._numbers) if len(self._numbers) < math.prod(map(len, kept)) else None,
            pixel_size_um=size,
            z_step_um=plausible_z_step(_distance_um(root, "Z")),
            time_increment_s=_positive(root.findtext(_INTERVAL)),
            warnings=tuple(dict.fromkeys(warnings)),
            scenes=scenes,
            scene_name=names.get(str(self._scene)),
        )


@dataclass(frozen=True)
class _Tile:
    """A piece of a plane at full resolution: its plane (t, c, z), its other indices, its place (left, top, …)."""

    scene: int | None
    plane: Position
    others: tuple[tuple[str, int], ...]
    rectangle: tuple[int, int, int, int]
    pixel_type: str


def _read_tiles(document: Any) -> list[_Tile]:
    found: list[_Tile] = []

    def note(_: int, block: Any) -> bool:
        at = {axis: int(index) for axis, index in block.coordinate.to_dict().items()}
        place = block.logicalRect
        plane = at.pop("T", 0), at.pop("C", 0), at.pop("Z", 0)
        scene, rectangle = at.pop("S", None), (place.x, place.y, place.w, place.h)
        found.append(_Tile(scene, plane, tuple(sorted(at.items())), rectangle, block.pixelType.name))
        return True

    document.enumerate_subblocks_subset(note, only_layer0=True)
    return found


def _around(tiles: Iterable[_Tile]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what holds all tiles."""
    left, top, width, height = zip(*(tile.rectangle for tile in tiles), strict=True)
    right = max(x + w for x, w in zip(left, width, strict=True))
    bottom = max(y + h for y, h in zip(top, height, strict=True))
    return min(left), min(top), right - min(left), bottom - min(top)


def _check_kind(path: Path, tiles: Sequence[_Tile], rectangle: tuple[int, int, int, int]) -> list[str]:
    """Refuse other axes, unknown pixels and planes that are too large; says how pixels are taken as grey."""
    others = sorted({tile.others for tile in tiles})
    if len(others) > 1:
        axes = sorted({axis for indices in others for axis, _ in indices})
        refuse(path, f"{len(others)} images along {' and '.join(axes)}", "times, channels and focal planes")
    if len({(tile.plane, tile.pixel_type) for tile in tiles}) > len({tile.plane for tile in tiles}):
        refuse(path, "tiles of several pixel types in one plane", "one type")
    warnings: list[str] = []
    for kind in sorted({tile.pixel_type for tile in tiles}):
        if kind not in _PIXEL_TYPES:
            refuse(path, f"pixels of type {kind}", "grey values or RGB")
        dtype, samples = _PIXEL_TYPES[kind]
        check_claimed_size(path, rectangle[3], rectangle[2], np.dtype(dtype).itemsize * samples, of="a plane")
        warnings += conversion_warnings(dtype, samples)
    return warnings


def _whole_planes(tiles: Sequence[_Tile], warnings: list[str]) -> list[Position]:
    """List the planes that have all tiles of their channel: an acquisition that was stopped lacks some."""
    counts = Counter(tile.plane for tile in tiles)
    most = {c: max(count for plane, count in counts.items() if plane[1] == c) for _, c, _ in counts}
    whole = sorted(plane for plane, count in counts.items() if count == most[plane[1]])
    if len(whole) < len(counts):
        warnings.append(f"{len(counts) - len(whole)} of its {len(counts)} planes lack tiles and are left out")
    of_plane: defaultdict[Position, list[_Tile]] = defaultdict(list)
    for tile in tiles:
        of_plane[tile.plane].append(tile)
    everything = _around(tiles)
    parts = [
        plane
        for plane in whole
        if _around(of_plane[plane]) != everything
        or sum(tile.rectangle[2] * tile.rectangle[3] for tile in of_plane[plane]) < everything[2] * everything[3]
    ]
    if parts:
        warnings.append(
            f"{len(parts)} of its {len(whole)} planes have tiles for a part of the image only, and 0 elsewhere"
        )
    return whole


def _check_directory(path: Path) -> None:
    """Refuse entries of the directory that lead beyond it, where libCZI would read: it ends the process."""
    with path.open("rb") as file:
        file.seek(_DIRECTORY_POSITION)
        (position,) = struct.unpack("<q", file.read(8))
        file.seek(position + 16)
        _, used, entries = struct.unpack("<qqi", file.read(20))
        file.seek(position + 32 + 128)
        directory = file.read(max(0, min(used - 128, path.stat().st_size)))
    at = 0
    for _ in range(entries):
        if directory[at : at + 2] != b"DV":  # not used any more
            return
        (dimensions,) = struct.unpack_from("<i", directory, at + 28)  # struct.error beyond the end
        at += 32 + 20 * dimensions
        if dimensions < 0 or at > len(directory):
            raise ValueError("an entry leads beyond the directory")


def _channel(element: ElementTree.Element, warnings: list[str]) -> Channel:
    """Describe a channel: ZEN uses OME's words, as elements."""
    stated = {child.tag: child.text for child in element if child.text and child.text.strip()}
    return channel_of({**stated, **element.attrib}, warnings)


def _pixel_size(root: ElementTree.Element) -> tuple[float, float] | None:
    y, x = (_distance_um(root, axis) for axis in "YX")
    return plausible_pixel_size((y, x)) if y and x else None


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
