"""RGB, float and whole numbers of other sizes are taken as grey values of 16 bits, in every format that stores them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from model.errors import UserError
from model.images import read_image
from model.images.grey import to_grey
from model.images.open_stack import open_stack

rng = np.random.default_rng(0)
COUNTS = rng.integers(0, 60000, (24, 32))
KINDS = ["<i2", ">i2", "<u4", "<i4", "<i8", "<f2", "<f4", ">f4", "<f8"]


@given(hnp.arrays(np.uint16, (5, 7)), st.sampled_from(["i4", "u4", "i8", "f4", "f8", ">f4"]))
def test_whole_numbers_that_fit_stay_as_they_are(pixels: np.ndarray, kind: str) -> None:
    np.testing.assert_array_equal(to_grey(pixels.astype(kind)), pixels)


@given(
    hnp.arrays(np.float64, (5, 7), elements=st.floats(-1e6, 1e6)),
    st.sampled_from(["f4", "f8", "i4"]),
    st.floats(1e-3, 1e3),
)
def test_all_else_is_scaled(pixels: np.ndarray, kind: str, gain: float) -> None:
    values = pixels.astype(kind).astype(float)
    grey = to_grey(pixels.astype(kind))
    low, high = min(0, values.min()), values.max()
    assume(low < high and not (low == 0 and high <= 65535 and (values == np.rint(values)).all()))
    assert grey.dtype == np.uint16 and grey[values == high].min() == 65535
    assert low == 0 or grey[values == low].max() == 0
    np.testing.assert_allclose(grey, (values - low) / (high - low) * 65535, atol=0.51)


def test_large_planes_are_converted_in_parts() -> None:
    pixels = np.linspace(0, 1, 2500 * 3).reshape(2500, 3)
    np.testing.assert_array_equal(to_grey(pixels), np.rint(pixels * 65535))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_black(bad: float) -> None:
    pixels = np.array([[bad, 0.5], [0.25, 1]], np.float32)
    np.testing.assert_array_equal(to_grey(pixels), [[0, 32768], [16384, 65535]])
    assert not to_grey(np.full((3, 3), bad)).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}])
def test_tiff_of_other_kinds(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    pixels = (COUNTS // 30).astype(kind)
    if kind == "<i8":  # for which tifffile writes no predictor
        options = options | {"predictor": False}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", byteorder=kind[0], **options)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, COUNTS // 30)
    (warning,) = image.info.warnings
    assert f"its {np.dtype(kind).newbyteorder('=')} pixels are taken as 16 bits" in warning
    tifffile.imwrite(
        tmp_path / "b.tif", np.stack([pixels, pixels // 2]), metadata={"axes": "ZYX"}, imagej=kind == ">f4"
    )
    with open_stack(tmp_path / "b.tif") as stack:
        np.testing.assert_array_equal(
            stack.read_plane(0, 0, 1), np.trunc(pixels / 2) if kind[1] == "f" else COUNTS // 60
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"planarconfig": "separate"}]
)
def test_rgb_tiff(tmp_path: Path, dtype: type[np.generic], samples: int, options: dict[str, Any]) -> None:
    path, full = tmp_path / "a.tif", 257 if dtype is np.uint8 else 1
    grey = (COUNTS // full).astype(dtype)
    for colours in (np.stack([grey] * 3, -1), rng.integers(0, 65535 // full, (24, 32, 3)).astype(dtype)):
        pixels = np.concatenate([colours, np.full((24, 32, samples - 3), 9, dtype)], -1)
        stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
        tifffile.imwrite(path, stored, photometric="rgb", metadata=None, **options)
        image = read_image(path)
        assert image.info.warnings == ("its colours are taken as grey (luminance)",)
        if (colours[..., 0] == colours[..., 1]).all():
            np.testing.assert_array_equal(image.pixels, grey.astype(np.uint16) * np.uint16(full))
        elif dtype is np.uint8:
            luminance = np.asarray(PillowImage.fromarray(colours).convert("L")).astype(int)
            assert np.abs(image.pixels / 257 - luminance).max() <= 1


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"metadata": {"axes": "TYXS"}}])
def test_stacks_of_rgb(tmp_path: Path, options: dict[str, Any]) -> None:
    planes = np.stack([np.stack([COUNTS // 300 + n] * 3, -1) for n in range(3)]).astype(np.uint8)
    options = {"metadata": {"axes": "TYXS"}} | options
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", **options)
    with open_stack(tmp_path / "a.tif") as stack:
        assert (stack.info.times, len(stack.info.channels), stack.info.focal_planes) == (3, 1, 1)
        assert stack.info.warnings == ("its colours are taken as grey (luminance)",)
        for n, plane in enumerate(planes):
            np.testing.assert_array_equal(stack.read_plane(n, 0, 0), plane[..., 0] * np.uint16(257))


def test_a_single_rgb_plane_of_ome_tiff(tmp_path: Path) -> None:
    pixels = np.stack([COUNTS // 300] * 3, -1).astype(np.uint8)
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2, "Channel": {"Name": "Brightfield"}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True, metadata=metadata)
    info = read_image(tmp_path / "a.ome.tif").info
    assert (info.pixel_size_um, info.channel) == ((0.2, 0.2), "Brightfield")
    assert info.warnings == ("its colours are taken as grey (luminance)",)


@pytest.mark.parametrize("kind", ["i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_mha_of_other_kinds(tmp_path: Path, kind: str, compressed: bool) -> None:
    pixels = (COUNTS // 30).astype(kind)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(tmp_path / "a.mha"), useCompression=compressed)
    image = read_image(tmp_path / "a.mha")
    np.testing.assert_array_equal(image.pixels, COUNTS // 30)
    assert "pixels are taken as 16 bits" in image.info.warnings[0]


@pytest.mark.parametrize("kind", KINDS)
def test_ome_zarr_of_other_kinds(tmp_path: Path, kind: str) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", data=(COUNTS // 30).astype(kind))
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    with open_stack(tmp_path / "a.zarr") as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), COUNTS // 30)
        assert any("pixels are taken as 16 bits" in warning for warning in stack.info.warnings)


@pytest.mark.parametrize("configuration", [0, 3, 65535])
def test_colours_that_are_stored_in_no_known_way_are_refused(tmp_path: Path, configuration: int) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 24, 32)).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig="separate")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PlanarConfiguration"].overwrite(configuration)
    with pytest.raises(UserError, match=f"colours in planar configuration {configuration}"):
        read_image(path)
