"""Pixel size and channel of TIFFs without OME-XML, as the programs of microscopes write them."""

import json
import struct
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from model.errors import UserError
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


def micro_manager_stack(path: Path, planes: list[dict[str, Any]]) -> Path:
    """Each plane with a tag of its own, n added to its pixels."""
    with tifffile.TiffWriter(path) as tiff:
        for n, metadata in enumerate(planes):
            tags = [(51123, "s", 0, json.dumps({"PixelSizeUm": 0.325} | metadata), True)]
            options: dict[str, Any] = {"metadata": None, "contiguous": False, "photometric": "minisblack"}
            tiff.write(PIXELS // 2 + np.uint16(n), extratags=tags, **options)
    return path


def indexed(t: int, c: int, z: int) -> dict[str, Any]:
    return {"FrameIndex": t, "ChannelIndex": c, "SliceIndex": z, "Channel": ["DAPI", "Brightfield"][c]}


def ndtiff(t: int, c: int, z: int) -> dict[str, Any]:
    return {"Axes": {"time": t, "channel": ["DAPI", "Brightfield"][c], "z": z}}


@pytest.mark.parametrize("stated", [indexed, ndtiff])
@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("left", [12, 11])
def test_a_micro_manager_stack_in_any_order(tmp_path: Path, stated: Any, order: tuple[int, ...], left: int) -> None:
    sizes = 2, 2, 3
    positions = sorted(product(*map(range, sizes)), key=lambda position: [position[axis] for axis in order])[:left]
    path = micro_manager_stack(tmp_path / "e_MMStack_Pos0.tif", [stated(*position) for position in positions])
    (tmp_path / "e_MMStack_Pos0_1.tif").write_bytes(b"damaged")  # what is beside it does not matter
    with open_stack(path) as stack:
        info = stack.info
        assert (info.times, len(info.channels), info.focal_planes, info.pixel_size_um) == (*sizes, (0.325, 0.325))
        assert [channel.name for channel in info.channels] == ["DAPI", "Brightfield"]
        assert info.channels[1].modality is Modality.BF and info.warnings == ()
        for n, position in enumerate(positions):
            np.testing.assert_array_equal(stack.read_plane(*position), PIXELS // 2 + np.uint16(n))


@pytest.mark.parametrize(
    ("planes", "found"),
    [
        ([indexed(0, 0, 0), indexed(0, 0, 0)], "two planes of the same time"),
    ],
)
def test_micro_manager_planes_that_cannot_be_told_apart(
    tmp_path: Path, planes: list[dict[str, Any]], found: str
) -> None:
    with pytest.raises(UserError, match=found):
        open_stack(micro_manager_stack(tmp_path / "a.tif", planes))


def test_micro_manager_planes_that_say_nothing_are_focal_planes_with_a_warning(tmp_path: Path) -> None:
    with open_stack(micro_manager_stack(tmp_path / "a.tif", [{}, {}])) as stack:
        assert stack.info.focal_planes == 2
        assert stack.info.warnings == ("nothing tells what its 2 planes are, so they are taken as focal planes",)


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


def metamorph(
    path: Path,
    unit: bytes = b"um\0",
    calibrated: int = 1,
    z: Sequence[float] = (0, 0, 0),
    wavelengths: Sequence[int] = (),
) -> Path:
    """A stack of three planes behind one directory, n added to the pixels of each."""
    planes = np.stack([PIXELS // 2 + np.uint16(n) for n in range(3)])
    content = bytearray(8) + planes.tobytes()

    def put(data: bytes) -> int:
        content.extend(data + bytes(len(data) % 2))
        return len(content) - len(data) - len(data) % 2

    scale, name = put(struct.pack("<4I", 1, 4, 1, 2)), put(struct.pack("<I", len(unit)) + unit)
    uic1 = put(struct.pack("<8I", 3, calibrated, 4, scale, 5, scale + 8, 6, name))
    uic2 = put(b"".join(struct.pack("<6I", int(distance * 1000), 1000, 2451545, 0, 2451545, 0) for distance in z))
    height, width = PIXELS.shape
    tags = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, height * width * 2)]
    tags += [(33628, 4, 4, uic1), (33629, 5, 3, uic2)]
    if wavelengths:
        tags.append((33630, 5, 3, put(b"".join(struct.pack("<2I", length, 1) for length in wavelengths))))
    start = put(struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4))
    content[:8] = struct.pack("<2sHI", b"II", 42, start)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("unit", "calibrated", "size"), [(b"um\0", 1, (0.5, 0.25)), (b"pixel\0", 1, None), (b"um\0", 0, None)]
)
def test_the_calibration_of_a_metamorph_stack(tmp_path: Path, unit: bytes, calibrated: int, size: Any) -> None:
    with open_stack(metamorph(tmp_path / "a.stk", unit, calibrated)) as stack:
        assert stack.info.pixel_size_um == size


@pytest.mark.parametrize(
    ("z", "wavelengths", "positions"),
    [
        ((0, 0, 0), (), [(0, 0, 0), (1, 0, 0), (2, 0, 0)]),
        ((0, 0.5, 1), (), [(0, 0, 0), (0, 0, 1), (0, 0, 2)]),
        ((0, 0, 0), (500, 500, 500), [(0, 0, 0), (1, 0, 0), (2, 0, 0)]),
        ((0, 0, 0), (525, 460, 525), [(0, 1, 0), (0, 0, 0), (1, 1, 0)]),
    ],
)
def test_the_planes_of_a_metamorph_stack(
    tmp_path: Path, z: tuple[float, ...], wavelengths: tuple[int, ...], positions: list[tuple[int, int, int]]
) -> None:
    with open_stack(metamorph(tmp_path / "a.stk", z=z, wavelengths=wavelengths)) as stack:
        if len(set(wavelengths)) > 1:
            names = [(channel.name, channel.transmitted) for channel in stack.info.channels]
            assert names == [("460 nm", False), ("525 nm", False)]
        for n, position in enumerate(positions):
            np.testing.assert_array_equal(stack.read_plane(*position), PIXELS // 2 + np.uint16(n))


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
