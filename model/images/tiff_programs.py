"""Pixel size and channel as microscope programs write them into TIFFs without OME-XML.

Micro-Manager (JSON in tag 51123), MetaMorph and MetaXpress (XML in the ImageDescription, or the UIC tags of a stack),
Olympus cellSens (tag 33560).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .channels import describe_channel
from .limits import refuse
from .stack import Channel, Position, describing_scene
from .units import plausible_pixel_size, um_per_unit

_MICRO_MANAGER = 51123
_INDICES = ("FrameIndex", "Frame"), ("ChannelIndex",), ("SliceIndex", "Slice")
_AXES = ("time", "channel", "z")  # of NDTiff, the format of Pycro-Manager; an axis of one plane may be absent


@dataclass(frozen=True)
class ProgramMetadata:
    """What a program states.

    Attributes
    ----------
    pixel_size_um : (float, float) or None
        Pixel size (y, x) in µm.
    channel : Channel
        Of the first plane.
    """

    pixel_size_um: tuple[float, float] | None = None
    channel: Channel = field(default_factory=Channel)


def read_program_metadata(tif: tifffile.TiffFile) -> ProgramMetadata:
    """Read what the program that wrote a TIFF states of its first plane; nothing where that makes no sense."""
    try:
        page = tif.pages.first
        if _MICRO_MANAGER in page.tags:
            return _of_micro_manager(page.tags[_MICRO_MANAGER].value)
        if page.description.startswith("<MetaData>") and "<!" not in page.description:  # entities may expand
            return _of_metaxpress(tifffile.tifffile.metaseries_description_metadata(page.description)["PlaneInfo"])
        if tif.is_stk:
            return _of_metamorph(tif.stk_metadata or {})
        if page.is_sis:
            return _of_cellsens(tif.sis_metadata or {})
    except Exception:  # tags and texts that lie can raise any; the resolution tags may still tell
        return ProgramMetadata()
    return ProgramMetadata()


def is_micro_manager(tif: tifffile.TiffFile) -> bool:
    """Whether Micro-Manager or Pycro-Manager wrote a TIFF."""
    return _MICRO_MANAGER in tif.pages.first.tags


@dataclass(frozen=True)
class MicroManagerPlanes:
    """The planes of one scene.

    Attributes
    ----------
    positions : mapping of int to (int, int, int)
        (t, c, z) of each plane by its number in the file.
    channels : mapping of int to Channel
    scenes : int
        Of how many stage positions the file has planes; other axes of NDTiff count as such.
    scene_name : str or None
    """

    positions: Mapping[int, Position]
    channels: Mapping[int, Channel]
    scenes: int
    scene_name: str | None


def read_micro_manager_planes(path: Path, pages: Sequence[Any], scene: int) -> MicroManagerPlanes | None:
    """Read which time, channel and focal plane each plane of a scene is by its own tag; None where one does not tell.

    Neither their order tells it, which is that of the acquisition, nor the index in the file, which an acquisition
    that was stopped lacks. tifffile's series would take in other files of the data set.

    Raises
    ------
    UserError
        Where two are the same.
    """
    stated = [page.tags.valueof(_MICRO_MANAGER) for page in pages]
    labels = [label for metadata in stated if isinstance(metadata, Mapping) and (label := _label(metadata))]
    if len(labels) < len(pages):
        return None
    places = [_place(metadata) for metadata in stated]
    scenes = sorted(dict.fromkeys(places), key=lambda place: [number for _, number, _ in place])
    names = list(dict.fromkeys(c for _, c, _ in labels if isinstance(c, str)))
    positions, channels = {}, {}
    with describing_scene(path, scene, len(scenes)):
        for number, ((t, name, z), metadata) in enumerate(zip(labels, stated, strict=True)):
            if places[number] == scenes[scene]:
                c = names.index(name) if isinstance(name, str) else name
                positions[number] = t, c, z
                channels[c] = describe_channel(_text(metadata.get("Channel", name)))
        if len(set(positions.values())) < len(positions):
            refuse(path, "two planes of the same time, channel and focal plane", "another one for each")
    scene_name = _place_name(stated[places.index(scenes[scene])])
    return MicroManagerPlanes(positions, channels, len(scenes), scene_name)


def _label(metadata: Mapping[str, Any]) -> tuple[int, int | str, int] | None:
    """Time, channel (of NDTiff its name) and focal plane; None where one is not stated."""
    if isinstance(axes := metadata.get("Axes"), Mapping):
        t, c, z = (axes.get(axis, 0) for axis in _AXES)
    else:
        t, c, z = (next((metadata[key] for key in keys if key in metadata), None) for keys in _INDICES)
    return (t, c, z) if isinstance(t, int) and isinstance(c, int | str) and isinstance(z, int) else None


def _place(metadata: Mapping[str, Any]) -> tuple[tuple[str, int, str], ...]:
    """Stage position, and other axes of NDTiff: their name, number (-1: none) and text."""
    axes = metadata.get("Axes")
    stated = axes if isinstance(axes, Mapping) else {"position": metadata.get("PositionIndex")}
    others = sorted((str(axis), value) for axis, value in stated.items() if axis not in _AXES)
    return tuple((axis, value if isinstance(value, int) else -1, str(value)) for axis, value in others)


def _place_name(metadata: Mapping[str, Any]) -> str | None:
    if _text(metadata.get("PositionName")) or not isinstance(metadata.get("Axes"), Mapping):
        return _text(metadata.get("PositionName"))
    return ", ".join(f"{axis} {text}" for axis, _, text in _place(metadata)) or None


def read_stk_planes(tif: tifffile.TiffFile, planes: int) -> tuple[tuple[Position, ...], Mapping[int, Channel]]:
    """Read from the tags of a MetaMorph stack which time, channel and focal plane each plane is.

    Wavelengths, where they differ, are channels in ascending order; the planes of each are focal planes where one is
    any distance from another, else times.
    """
    metadata = tif.stk_metadata or {}
    stated = [float(length) for length in metadata.get("Wavelengths", ())]
    lengths = stated if len(stated) == planes else [0.0] * planes
    order = sorted(set(lengths))
    focal = bool(np.any(metadata.get("ZDistance", 0)))
    seen: Counter[float] = Counter()
    positions = []
    for length in lengths:
        number, seen[length] = seen[length], seen[length] + 1
        c = order.index(length)
        positions.append((0, c, number) if focal else (number, c, 0))
    names = [f"{length:g} nm" for length in order] if len(order) > 1 else []
    return tuple(positions), {c: describe_channel(name) for c, name in enumerate(names)}


def _of_micro_manager(metadata: Mapping[str, Any]) -> ProgramMetadata:
    size = metadata.get("PixelSizeUm")
    return ProgramMetadata(_size(size, size, "µm"), describe_channel(_text(metadata.get("Channel"))))


def _of_metaxpress(metadata: Mapping[str, Any]) -> ProgramMetadata:
    size = None
    if metadata.get("spatial-calibration-state", True):
        y, x = (metadata.get(f"spatial-calibration-{axis}") for axis in "yx")
        size = _size(y, x, str(metadata.get("spatial-calibration-units", "")))
    return ProgramMetadata(size, describe_channel(_text(metadata.get("_IllumSetting_"))))


def _of_metamorph(metadata: Mapping[str, Any]) -> ProgramMetadata:
    if not metadata.get("SpatialCalibration"):
        return ProgramMetadata()
    y, x = (metadata.get(f"{axis}Calibration") for axis in "YX")
    return ProgramMetadata(_size(y, x, str(metadata.get("CalibrationUnits", ""))))


def _of_cellsens(metadata: Mapping[str, Any]) -> ProgramMetadata:
    return ProgramMetadata(_size(metadata.get("pixelsizey"), metadata.get("pixelsizex"), "m"))


def _size(y: object, x: object, unit: str) -> tuple[float, float] | None:
    um = um_per_unit(unit)
    if um is None or not isinstance(y, int | float) or not isinstance(x, int | float) or math.isnan(y + x):
        return None
    return plausible_pixel_size((y * um, x * um))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
