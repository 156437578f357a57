"""Pixel size and channel as microscope programs write them into TIFFs without OME-XML.

Micro-Manager (JSON in tag 51123), MetaMorph and MetaXpress (XML in the ImageDescription, or the UIC tags of a stack),
Olympus cellSens (tag 33560).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tifffile

from .channels import describe_channel
from .stack import Channel
from .units import plausible_pixel_size, um_per_unit

_MICRO_MANAGER = 51123


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


def _of_micro_manager(metadata: Mapping[str, Any]) -> ProgramMetadata:
    size = metadata.get("PixelSizeUm")
    return ProgramMetadata(_size(size, size, "µm"), describe_channel(_text(metadata.get("Channel"))))


def _of_metaxpress(metadata: Mapping[str, Any]) -> ProgramMetadata:
    size = None
    if metadata.get("spatial-calibration-state", True):
        y, x = (metadata.get(f"spatial-calibration-{axis}") for axis in "yx")
        size = _size(y, x, str(metadata.get("spatial-calibration-units", "")))
    name = _text(metadata.get("_IllumSetting_")) or _text(metadata.get("image-name"))
    return ProgramMetadata(size, describe_channel(name))


def _of_metamorph(metadata: Mapping[str, Any]) -> ProgramMetadata:
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
