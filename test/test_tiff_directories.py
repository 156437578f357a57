"""Which directory of a TIFF is the image; and what is no plane of grey values is refused by what is wrong with it."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from model.errors import UserError
from model.images import inspect, read_image

PIXELS = np.random.default_rng(0).integers(1, 65536, (64, 80)).astype(np.uint16)


def refusal(path: Path) -> str:
    messages = []
    for read in (inspect, read_image):  # what the one refuses by the header, the other does, in the same words
        with pytest.raises(UserError) as caught:
            read(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and str(path) in messages[0] and "\n" not in messages[0]
    return messages[0]


def write_pages(path: Path, *pages: tuple[np.ndarray, dict[str, Any]]) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in pages:
            tiff.write(pixels, metadata=None, photometric="minisblack", **options)
    return path


def raw_tiff(path: Path, pixels: np.ndarray, packed: bytes | None = None, **changes: Any) -> Path:
    """One strip, any tag changed or (None) left out; tags by number, as `t262=None`."""
    height, width = pixels.shape
    packed = pixels.tobytes() if packed is None else packed
    values: dict[int, Any] = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 8, 277: 1}
    values |= {278: height, 279: len(packed), 339: 1} | {int(name[1:]): value for name, value in changes.items()}
    tags = [(tag, value) for tag, value in sorted(values.items()) if value is not None]
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 65535 else 3, 1, value) for tag, value in tags)
    packed += b"\0" * (len(packed) % 2)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + directory)
    return path


SMALL = {"subfiletype": 1}


@pytest.mark.parametrize(
    "pages",
    [
        [(PIXELS, {})],
        [(PIXELS[::4, ::4], SMALL), (PIXELS, {})],  # a thumbnail first
        [(PIXELS[::4, ::4], SMALL), (PIXELS[::2, ::2], SMALL), (PIXELS, {})],
        [(PIXELS, {}), (PIXELS[::2, ::2], SMALL), (PIXELS[::4, ::4], SMALL)],
        [(PIXELS, {}), (PIXELS[::2, ::2], {}), (PIXELS[::4, ::4], {})],  # a flat pyramid that marks nothing
        [(PIXELS[::4, ::4], {}), (PIXELS[::2, ::2], {}), (PIXELS, {})],  # and its reverse
        [(PIXELS[::2, ::2], {}), (PIXELS, {})],
    ],
)
def test_the_plane_of_full_resolution_is_read(tmp_path: Path, pages: list[tuple[np.ndarray, dict[str, Any]]]) -> None:
    path = write_pages(tmp_path / "a.tif", *pages)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)
    assert inspect(path).shape == (64, 80)


@pytest.mark.parametrize("shape", [(5000, 500), (500, 5000), (37, 4099)])
@pytest.mark.parametrize("up", [0, 1])
def test_levels_of_a_long_image(tmp_path: Path, shape: tuple[int, int], up: int) -> None:
    pixels = np.random.default_rng(0).integers(1, 65536, shape).astype(np.uint16)
    levels = [np.resize(pixels, [max(1, (side + up * (2**n - 1)) >> n) for side in shape]) for n in range(1, 5)]
    path = write_pages(tmp_path / "a.tif", (pixels, {}), *((level, {}) for level in levels))
    np.testing.assert_array_equal(read_image(path).pixels, pixels)


def test_a_transparency_mask_is_no_plane(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (PIXELS, {}), ((PIXELS > 9).astype(np.uint8), SMALL))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[1].tags["NewSubfileType"].overwrite(4)  # type: ignore[union-attr]
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


def test_levels_in_subifds_are_no_planes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(PIXELS, subifds=2, metadata={"axes": "YX", "Channel": {"Name": "PC"}})
        tiff.write(PIXELS[::2, ::2], subfiletype=1)
        tiff.write(PIXELS[::4, ::4], subfiletype=1)
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels, PIXELS)
    assert found.info.channel == "PC"


def test_the_image_may_lie_in_a_subifd_of_its_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS[::4, ::4], subifds=1, subfiletype=1, metadata=None)
        tiff.write(PIXELS, metadata=None)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ([(PIXELS, {}), (PIXELS, {})], "2 planes"),
        ([(PIXELS, {}), (PIXELS[::2, ::2], SMALL), (PIXELS, {}), (PIXELS[::2, ::2], SMALL)], "2 planes"),
        ([(PIXELS[:32, :32], {}), (PIXELS, {})], "several images"),  # a macro image, not marked as anything
        ([(PIXELS, {}), (PIXELS[:60], {})], "several images"),
        ([(PIXELS, SMALL), (PIXELS[::2, ::2], {})], "marked as a reduced copy"),
        ([(PIXELS, SMALL), (PIXELS, SMALL)], "2 directories"),
    ],
)
def test_several_images_are_refused(tmp_path: Path, pages: list[tuple[np.ndarray, dict[str, Any]]], found: str) -> None:
    assert found in refusal(write_pages(tmp_path / "a.tif", *pages))


def test_an_only_image_marked_as_reduced_is_warned_of(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (PIXELS, SMALL))
    assert "reduced copy" in inspect(path).warnings[0]


STACK = np.stack([PIXELS, PIXELS + 1, PIXELS + 2])


@pytest.mark.parametrize("options", [{"imagej": True}, {"imagej": True, "metadata": {"axes": "TYX"}}, {}])
def test_stacks_are_refused_however_many_directories_they_have(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", **options)
    assert "3 planes" in refusal(path)
    tifffile.imwrite(path, STACK, photometric="minisblack", truncate=True, **options)
    assert "3 planes" in refusal(path)


def test_imagej_stack_behind_one_directory(tmp_path: Path) -> None:
    """ImageJ writes stacks of more than 4 GB so: the count stands in the description alone."""
    description = "ImageJ=1.54f\nimages=3\nslices=3\nunit=micron\n"
    path = raw_tiff(tmp_path / "a.tif", STACK[0], STACK.tobytes())
    tifffile.imwrite(path, PIXELS, description=description, metadata=None)
    assert "3 planes" in refusal(path)


def test_metamorph_stack_behind_one_directory(tmp_path: Path) -> None:
    path = tmp_path / "a.stk"
    height, width = PIXELS.shape
    packed = STACK.tobytes()
    uic2, uic1 = struct.pack("<6I", 0, 1, 2451545, 0, 2451545, 0) * 3, bytes(24)
    at = 8 + len(packed)
    tags = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, height * width * 2)]
    tags += [(33628, 4, 3, at + len(uic2)), (33629, 5, 3, at)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, at + len(uic2) + len(uic1)) + packed + uic2 + uic1 + directory)
    assert "3 planes" in refusal(path)


def test_shaped_description_of_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, description=json.dumps({"shape": [1, 64, 80]}), metadata=None)
    assert inspect(path).axes == "QYX"  # one plane to us, three axes to others
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_chain_that_leads_beyond_the_end_is_a_truncated_file(tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as tiff:  # type: ignore[arg-type]
        for _ in range(2):
            tiff.write(PIXELS, metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as whole:
        second = whole.pages[1].offset  # type: ignore[union-attr]
        between = whole.pages[1].dataoffsets[0]  # type: ignore[union-attr]
    content = path.read_bytes()
    path.write_bytes(content[: min(second, between)])  # the first plane is whole, the second is gone
    assert "truncated" in refusal(path)


def test_a_chain_in_a_circle_is_damaged(tmp_path: Path) -> None:
    path = raw_tiff(tmp_path / "a.tif", PIXELS)
    content = bytearray(path.read_bytes())
    content[-4:] = content[4:8]
    path.write_bytes(content)
    assert "circle" in refusal(path)


def test_directories_that_share_their_subifds_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(PIXELS, subifds=2, metadata=None)
            tiff.write(PIXELS[::2, ::2], subfiletype=1, metadata=None)
            tiff.write(PIXELS[::4, ::4], subfiletype=1, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as whole:
        first, second = (page.tags["SubIFDs"] for page in whole.pages)  # type: ignore[union-attr]
        second.overwrite(first.value)
    assert "several of whose directories are the same" in refusal(path)


# Tags


@pytest.mark.parametrize("compression", [1, 32773])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_predictor_without_a_codec_that_has_one_means_nothing(
    tmp_path: Path, compression: int, dtype: type[np.generic]
) -> None:
    pixels = PIXELS.astype(dtype)
    rows = (row.tobytes() for row in pixels)
    packed = b"".join(bytes([79]) + row[k : k + 80] for row in rows for k in range(0, len(row), 80))
    path = raw_tiff(tmp_path / "a.tif", pixels, packed if compression > 1 else None, t259=compression, t317=2)
    expected = pixels.astype(np.uint16) * (257 if dtype is np.uint8 else 1)
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    with PillowImage.open(path) as other_reader:
        np.testing.assert_array_equal(np.asarray(other_reader), pixels)


@pytest.mark.parametrize("codec", ["zlib", "lzw", "zstd"])
def test_a_predictor_with_a_codec_that_has_one_is_undone(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, compression=codec, predictor=True)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"t262": None}, "no photometric interpretation"),
        ({"t262": 0}, "MINISWHITE"),
        ({"t262": 3}, "PALETTE"),
        ({"t262": 9999}, "photometric interpretation 9999"),
        ({"t339": 4}, "VOID"),
        ({"t339": 3, "t258": 8}, "8 bits in sample format IEEEFP"),
        ({"t339": 77}, "sample format 77"),
        ({"t258": 12}, "12 bits"),
        ({"t274": 3}, "orientation BOTRIGHT"),
        ({"t274": 6}, "orientation RIGHTTOP"),
        ({"t274": 99}, "orientation 99"),
        ({"t259": 12345}, "compression 12345"),
        ({"t259": 8, "t317": 3}, "predictor FLOATINGPOINT"),
        ({"t259": 8, "t317": 99}, "predictor 99"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    path = raw_tiff(tmp_path / "a.tif", PIXELS, **changes)
    message = refusal(path)
    assert found in message and "damaged" not in message


@pytest.mark.parametrize("changes", [{"t339": None}, {"t274": 1}, {"t254": 0}, {"t317": 1}])
def test_tags_that_say_what_is_so_anyway(tmp_path: Path, changes: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read_image(raw_tiff(tmp_path / "a.tif", PIXELS, **changes)).pixels, PIXELS)


@pytest.mark.parametrize(
    ("unit", "per_unit", "size"),
    [
        ("micron", 10, 0.1), ("um", 10, 0.1), ("microns", 10, 0.1), ("micrometer", 10, 0.1), ("µm", 10, 0.1),
        ("\\u00B5m", 10, 0.1), ("nm", 0.01, 0.1), ("nanometers", 0.01, 0.1), ("mm", 10_000, 0.1),
        ("cm", 100_000, 0.1), ("inch", 254_000, 0.1), ("pixel", 10, None), ("foo", 10, None),
    ],
)  # fmt: skip
def test_units_of_imagej(tmp_path: Path, unit: str, per_unit: float, size: float | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, PIXELS, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit.replace("µ", "\\u00B5")}
    )
    found = inspect(path).pixel_size_um
    assert found == (None if size is None else pytest.approx((size, size), rel=1e-6))


def test_imagej_may_have_another_unit_along_y(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(10, 0.005), metadata={"unit": "micron", "yunit": "nm"})
    assert inspect(path).pixel_size_um == (0.2, 0.1)
