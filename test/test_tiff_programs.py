"""Pixel size and channel of TIFFs without OME-XML, as the programs of microscopes write them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from model.images import inspect, read_image
from model.images.open_stack import open_stack
from model.labels import Modality

PIXELS = np.random.default_rng(0).integers(1, 65536, (24, 32)).astype(np.uint16)


def micro_manager(path: Path, **metadata: Any) -> Path:
    text = json.dumps({"Width": 32, "Height": 24, "PixelType": "GRAY16", "Binning": "1"} | metadata)
    tags = [(51123, "s", 0, text, True)]
    tifffile.imwrite(path, PIXELS, photometric="minisblack", metadata=None, extratags=tags)
    return path


@pytest.mark.parametrize(
    ("metadata", "size", "modality", "transmitted"),
    [
        ({"PixelSizeUm": 0.325, "Channel": "BF"}, (0.325, 0.325), Modality.BF, True),
        ({"PixelSizeUm": 1, "Channel": "Phase"}, (1.0, 1.0), Modality.PC, True),
        ({"PixelSizeUm": 0.1, "Channel": "DAPI"}, (0.1, 0.1), None, False),
        ({"PixelSizeUm": 0.0, "Channel": "Default"}, None, None, None),  # not calibrated
        ({"PixelSizeUm": "0.1", "Channel": 3}, None, None, None),
        ({}, None, None, None),
    ],
)
def test_micro_manager(
    tmp_path: Path, metadata: dict[str, Any], size: Any, modality: Modality | None, transmitted: bool | None
) -> None:
    info = inspect(micro_manager(tmp_path / "img_000000000_Default_000.tif", **metadata))
    assert (info.pixel_size_um, info.modality, info.transmitted) == (size, modality, transmitted)
    assert info.warnings == ()


def metaxpress(path: Path, plane_info: str, head: str = "") -> Path:
    text = f"{head}<MetaData><PlaneInfo>{plane_info}</PlaneInfo></MetaData>"
    tifffile.imwrite(path, PIXELS, photometric="minisblack", metadata=None, description=text, software="MetaSeries")
    return path


def prop(name: str, value: str, kind: str = "string") -> str:
    element = "custom-prop" if name.startswith("_") else "prop"
    return f'<{element} id="{name}" type="{kind}" value="{value}"/>'


CALIBRATION = (
    prop("spatial-calibration-state", "on", "bool")
    + prop("spatial-calibration-x", "0.65", "float")
    + prop("spatial-calibration-y", "0.66", "float")
    + prop("spatial-calibration-units", "um")
)


@pytest.mark.parametrize(
    ("plane_info", "size", "channel", "transmitted"),
    [
        (CALIBRATION + prop("_IllumSetting_", "Transmitted Light"), (0.66, 0.65), "Transmitted Light", True),
        (CALIBRATION + prop("_IllumSetting_", "DAPI"), (0.66, 0.65), "DAPI", False),
        (CALIBRATION + prop("image-name", "PC-3 well B2"), (0.66, 0.65), None, None),  # cells, not phase contrast
        (CALIBRATION.replace('"on"', '"off"'), None, None, None),
        (CALIBRATION.replace('"um"', '"pixel"'), None, None, None),
        (CALIBRATION.replace("0.65", "many"), None, None, None),
        ("<broken", None, None, None),
    ],
)
def test_metaxpress(tmp_path: Path, plane_info: str, size: Any, channel: str | None, transmitted: bool | None) -> None:
    info = inspect(metaxpress(tmp_path / "a.tif", plane_info))
    assert (info.pixel_size_um, info.channel, info.transmitted) == (size, channel, transmitted)


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    text = '<MetaData><!DOCTYPE a [<!ENTITY b "bbbbbbbb">]>' + CALIBRATION + "</MetaData>"
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack", metadata=None, description=text)
    assert inspect(tmp_path / "a.tif").pixel_size_um is None


@pytest.mark.parametrize(("unit", "size"), [(b"um\0", (0.5, 0.25)), (b"pixel\0", None)])
def test_metamorph_stack(tmp_path: Path, unit: bytes, size: Any) -> None:
    path, planes = tmp_path / "a.stk", np.stack([PIXELS, PIXELS + 1, PIXELS + 2])
    height, width = PIXELS.shape
    packed = planes.tobytes()
    uic2 = struct.pack("<6I", 0, 1, 2451545, 0, 2451545, 0) * 3
    at = 8 + len(packed)
    values = at + len(uic2)
    stored = struct.pack("<4I", 1, 4, 1, 2) + struct.pack("<I", len(unit)) + unit
    uic1 = struct.pack("<8I", 3, 1, 4, values, 5, values + 8, 6, values + 16)
    tags = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, height * width * 2)]
    tags += [(33628, 4, 4, values + len(stored)), (33629, 5, 3, at)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    start = struct.pack("<2sHI", b"II", 42, values + len(stored) + len(uic1))
    path.write_bytes(start + packed + uic2 + stored + uic1 + directory)
    with open_stack(path) as stack:
        assert stack.info.pixel_size_um == size
        assert stack.info.times * stack.info.focal_planes == 3


@pytest.mark.parametrize(("scale", "size"), [(-6, (0.5, 0.25)), (0, None)])
def test_cellsens(tmp_path: Path, scale: int, size: Any) -> None:
    path = tmp_path / "a.tif"
    general = struct.pack("<10xhdd8xd2x34s32s", scale, 0.25, 0.5, 20.0, b"camera", b"BF")
    head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 0, 0, 1, 0, 100, b"image", 1)
    tags = [(33560, "B", len(head) + 8, head + struct.pack("<hhI", 1, 1, 0), True)]
    tifffile.imwrite(path, PIXELS, photometric="minisblack", metadata=None, extratags=tags)
    content = path.read_bytes()
    at = content.index(head) + len(head) + 4
    path.write_bytes(content[:at] + struct.pack("<I", len(content)) + content[at + 4 :] + general)
    info = inspect(path)
    assert info.pixel_size_um == size
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)
