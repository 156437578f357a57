"""Zeiss's CZI, written by Zeiss's own package: every plane of every scene, and what is wrong in one sentence."""

import struct
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pylibCZIrw import czi

from model.errors import UserError
from model.images import czi_reader
from model.images.grey import to_grey
from model.images.open_stack import open_stack
from model.labels import Modality

STACK = np.random.default_rng(0).integers(0, 60000, (2, 2, 3, 40, 36)).astype(np.uint16)  # TCZYX
ALL = list(product(range(2), range(2), range(3)))


def write(
    path: Path, scenes: Sequence[np.ndarray] = (STACK,), planes: Any = ALL, first: int = 0, **metadata: Any
) -> Path:
    """Each scene at a stage position of its own; `first` is the index of the first time."""
    with czi.create_czi(str(path)) as document:
        for scene, pixels in enumerate(scenes):
            for t, c, z in planes:
                plane, location = {"T": t + first, "C": c, "Z": z}, (1000 * scene, 20)
                document.write(pixels[t, c, z], plane=plane, scene=scene, location=location)
        names = {"channel_names": {0: "DAPI", 1: "TL Brightfield"}, "scale_x": 1.1e-7, "scale_y": 1e-7, "scale_z": 5e-7}
        document.write_metadata("name", **(names | metadata))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught, open_stack(path) as stack:
        stack.read_plane(0, 0, 0)
    return str(caught.value)


@pytest.mark.parametrize("first", [0, 3])
def test_every_plane_of_every_scene(tmp_path: Path, first: int) -> None:
    scenes = [STACK, np.pad(STACK, [(0, 0)] * 3 + [(0, 8), (0, 4)], mode="reflect")]
    path = write(tmp_path / "a.czi", scenes, first=first)
    for scene, expected in enumerate(scenes):
        with open_stack(path, scene) as stack:
            info = stack.info
            assert (info.times, len(info.channels), info.focal_planes, *info.shape) == expected.shape
            assert (info.scenes, info.stored, info.warnings) == (2, None, ())
            assert (info.pixel_size_um, info.z_step_um) == ((0.1, 0.11), 0.5)
            assert [(c.name, c.modality, c.transmitted) for c in info.channels] == [
                ("DAPI", None, False),
                ("TL Brightfield", Modality.BF, True),
            ]
            for t, c, z in ALL:
                np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[t, c, z])
    with pytest.raises(UserError, match="found no scene 2, expected an index of 0 to 1"):
        open_stack(path, 2)


def test_tiles_of_a_scene_are_one_plane(tmp_path: Path) -> None:
    path, plane = tmp_path / "a.czi", STACK[0, 0, 0]
    with czi.create_czi(str(path)) as document:
        for x, y in product((0, 18), (0, 20)):
            document.write(np.ascontiguousarray(plane[y : y + 20, x : x + 18]), location=(x - 7, y - 300))
    with open_stack(path) as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), plane)
        assert stack.info.channels[0].name is None and "its pixel size is missing" in stack.info.warnings[0]


def write_tiles(path: Path, planes: dict[tuple[int, int], list[int]]) -> Path:
    """Planes (t, c) of 2 x 2 tiles each, of which those are written that are listed."""
    with czi.create_czi(str(path)) as document:
        for (t, c), tiles in planes.items():
            for tile in tiles:
                y, x = divmod(tile, 2)
                piece = np.ascontiguousarray(STACK[t, c, 0, 20 * y : 20 * y + 20, 18 * x : 18 * x + 18])
                document.write(piece, plane={"T": t, "C": c}, location=(18 * x, 20 * y))
    return path


def test_planes_that_lack_tiles_are_left_out(tmp_path: Path) -> None:
    path = write_tiles(tmp_path / "a.czi", {(0, 0): [0, 1, 2, 3], (1, 0): [0, 1, 2]})
    with open_stack(path) as stack:
        assert stack.info.times == 1 and "1 of its 2 planes lack tiles and are left out" in stack.info.warnings
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), STACK[0, 0, 0])


def test_a_channel_with_fewer_tiles_is_warned_of(tmp_path: Path) -> None:
    with open_stack(write_tiles(tmp_path / "a.czi", {(0, 0): [0, 1, 2, 3], (0, 1): [0, 3]})) as stack:
        assert "1 of its 2 planes have tiles for a part of the image only, and 0 elsewhere" in stack.info.warnings
        assert not stack.read_plane(0, 1, 0)[:20, 18:].any()


def test_each_plane_has_a_pixel_type_of_its_own(tmp_path: Path) -> None:
    path, planes = tmp_path / "a.czi", [STACK[0, 0, 0], (STACK[0, 0, 1] % 256).astype(np.uint8)]
    with czi.create_czi(str(path)) as document:
        for t, plane in enumerate(planes):
            document.write(plane, plane={"T": t, "C": 0})
    with open_stack(path) as stack:
        for t, plane in enumerate(planes):
            np.testing.assert_array_equal(stack.read_plane(t, 0, 0), to_grey(plane))
    mixed = tmp_path / "b.czi"
    with czi.create_czi(str(mixed)) as document:
        for n, plane in enumerate(planes):
            document.write(plane, location=(36 * n, 0))
    assert "found tiles of several pixel types in one plane" in refusal(mixed)


def test_scenes_and_channels_are_counted_as_they_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as document:
        for scene in (2, 5):
            document.write(STACK[0, 0, scene % 3], plane={"C": 1}, scene=scene, location=(100 * scene, 0))
        document.write_metadata("name", channel_names={0: "DAPI", 1: "TL Phase"}, scale_x=1e-7, scale_y=1e-7)
    for number, scene in enumerate((2, 5)):
        with open_stack(path, number) as stack:
            assert (stack.info.scenes, stack.info.channels[0].modality) == (2, Modality.PC)
            np.testing.assert_array_equal(stack.read_plane(0, 0, 0), STACK[0, 0, scene % 3])


@pytest.mark.parametrize("dimensions", [-1, 2**31 - 1, 10_000])
def test_a_directory_that_leads_beyond_itself_ends_no_process(tmp_path: Path, dimensions: int) -> None:
    path = write(tmp_path / "a.czi")
    content = bytearray(path.read_bytes())
    content[(at := content.index(b"DV", content.index(b"ZISRAWDIRECTORY")) + 28) : at + 4] = struct.pack(
        "<i", dimensions
    )
    path.write_bytes(content)
    assert "damaged or truncated CZI" in refusal(path)


def test_a_file_without_an_image_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as document:
        document.write_metadata("name")
    assert "found no image" in refusal(path)


def test_planes_that_were_not_recorded_are_not_black(tmp_path: Path) -> None:
    kept = [(t, c, z) for t, c, z in ALL if (t, z) != (1, 2)]
    with open_stack(write(tmp_path / "a.czi", planes=kept)) as stack:
        assert stack.info.stored == frozenset(kept)
        with pytest.raises(IndexError):
            stack.read_plane(1, 0, 2)


@pytest.mark.parametrize(("dtype", "colours"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 3), (np.float32, 1)])
def test_other_pixels_are_taken_as_grey(tmp_path: Path, dtype: Any, colours: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 36, colours)).astype(dtype)
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as document:
        document.write(pixels)
    with open_stack(path) as stack:
        expected = to_grey(pixels[..., 0] if colours == 1 else pixels[..., ::-1])  # CZI holds blue, green, red
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), expected)
        assert len(stack.info.warnings) == (1 if (dtype, colours) == (np.uint8, 1) else 2)


@pytest.mark.parametrize("compression", ["uncompressed:", "zstd0:ExplicitLevel=3", "zstd1:ExplicitLevel=3"])
def test_compressions(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path), compression_options=compression) as document:
        document.write(STACK[0, 0, 0])
    with open_stack(path) as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), STACK[0, 0, 0])


def test_what_zen_says_of_a_channel() -> None:
    """ZEN writes OME's words as elements; the writing package has names alone."""
    warnings: list[str] = []
    element = ElementTree.fromstring(
        '<Channel Id="Channel:1" Name="Cam1-T2"><ContrastMethod>Phase</ContrastMethod>'
        "<IlluminationType>Transmitted</IlluminationType><AcquisitionMode>WideField</AcquisitionMode></Channel>"
    )
    found = czi_reader._channel(element, warnings)
    assert (found.name, found.modality, found.transmitted, warnings) == ("Cam1-T2", Modality.PC, True, [])
    element = ElementTree.fromstring(
        '<Channel Name="EGFP"><Fluor>EGFP</Fluor><EmissionWavelength>509</EmissionWavelength></Channel>'
    )
    assert czi_reader._channel(element, warnings).transmitted is False


def test_an_axis_that_is_no_time_channel_or_focal_plane_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.czi")  # the writing package knows no other axes
    tiles = [czi_reader._Tile(0, (0, 0, 0), (("H", phase),), (0, 0, 36, 40), "Gray16") for phase in range(5)]
    monkeypatch.setattr(czi_reader, "_read_tiles", lambda document: tiles)
    assert "found 5 images along H, expected times, channels and focal planes" in refusal(path)


@pytest.mark.parametrize("kept", [0, 3, 100, 1000, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "a.czi")
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert "empty file" in refusal(path) if kept == 0 else "damaged or truncated CZI" in refusal(path)


def test_damaged_bytes_are_read_or_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", planes=ALL[:2])
    whole, random = path.read_bytes(), np.random.default_rng(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            with open_stack(path) as stack:
                for t, z in stack.info.positions(0):
                    stack.read_plane(t, 0, z)
        except UserError as error:
            assert str(path) in str(error)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.czi")
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    assert "(pip install pylibCZIrw), or the image exported as OME-TIFF" in refusal(path)
