"""OME-Zarr in and out: the planes that are there, by zarr's own reader and by others; what is no image is named."""

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import bioio
import bioio_ome_zarr
import ngff_zarr
import numpy as np
import pytest
import zarr

from model.errors import UserError
from model.images.ome_zarr_writer import write_ome_zarr
from model.images.open_stack import open_stack
from model.images.stack import OutputChannel
from model.labels import Modality

STACK = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 70, 50)).astype(np.uint16)  # TCZYX
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SCALE = {"t": 30.0, "c": 1.0, "z": 0.5, "y": 0.2, "x": 0.25}
CHANNELS = [
    OutputChannel("Input", "FFFFFF", (10, 4000)),
    OutputChannel("Nucleus", "2090FF", (0, 9)),
    OutputChannel("Actin", "FF9020", (1, 2)),
]


def image(path: Path, axes: str = "tczyx", version: str = "0.4", pixels: np.ndarray = STACK, **changes: Any) -> Path:
    """Write an image as other programs do, with `zarr` alone; `changes` are laid over the attributes."""
    stored = pixels.transpose(["tczyx".index(axis) for axis in axes]) if pixels.ndim == 5 else pixels
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    chunks = (1,) * (stored.ndim - 2) + (32, 32)
    group.create_array("0", data=np.ascontiguousarray(stored), chunks=chunks)
    multiscale = {
        "version": version,
        "axes": [
            {"name": axis, "type": KINDS[axis], **({"unit": UNITS[axis]} if axis in UNITS else {})} for axis in axes
        ],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [SCALE[axis] for axis in axes]}]}
        ],
    }
    labels = [{"label": label} for label in ("DAPI", "Phase", "GFP")]
    metadata = {"multiscales": [multiscale], "omero": {"channels": labels}} | changes
    group.attrs.update({"ome": {"version": "0.5", **metadata}} if version == "0.5" else metadata)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_stack(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "tzcyx"])
def test_every_plane_is_the_files_own(tmp_path: Path, version: str, axes: str) -> None:
    with open_stack(image(tmp_path / "a.ome.zarr", axes, version)) as stack:
        info = stack.info
        assert (info.times, len(info.channels), info.focal_planes, *info.shape) == STACK.shape
        assert (info.pixel_size_um, info.z_step_um, info.time_increment_s) == ((0.2, 0.25), 0.5, 30.0)
        assert [(c.name, c.transmitted) for c in info.channels] == [("DAPI", False), ("Phase", True), ("GFP", False)]
        assert info.channels[1].modality is Modality.PC
        assert info.warnings == ()
        for position in product(range(2), range(3), range(2)):
            np.testing.assert_array_equal(stack.read_plane(*position), STACK[position])


@pytest.mark.parametrize(
    ("axes", "index"), [("yx", (0, 0, 0)), ("zyx", (0, 0)), ("cyx", (0, slice(None), 0)), ("tyx", (slice(None), 0, 0))]
)
def test_axes_that_are_absent_have_one_plane(tmp_path: Path, axes: str, index: Any) -> None:
    pixels = STACK[index]
    with open_stack(image(tmp_path / "a.zarr", axes, pixels=pixels)) as stack:
        sizes = {"t": stack.info.times, "c": len(stack.info.channels), "z": stack.info.focal_planes}
        assert np.prod(list(sizes.values())) == (1 if axes == "yx" else len(pixels))
        last = {axis: sizes[axis] - 1 for axis in "tcz"}
        np.testing.assert_array_equal(stack.read_plane(**last), pixels if axes == "yx" else pixels[-1])


def test_an_independent_writers_image(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    source = ngff_zarr.to_ngff_image(
        STACK[0, 0],
        dims=["z", "y", "x"],
        scale={"z": 2.0, "y": 0.3, "x": 0.3},
        axes_units={a: "micrometer" for a in "zyx"},
    )
    ngff_zarr.to_ngff_zarr(str(path), ngff_zarr.to_multiscales(source, scale_factors=[]), version="0.4")
    with open_stack(path) as stack:
        assert (stack.info.focal_planes, stack.info.pixel_size_um, stack.info.z_step_um) == (2, (0.3, 0.3), 2.0)
        np.testing.assert_array_equal(stack.read_plane(0, 0, 1), STACK[0, 0, 1])


def test_the_scales_of_image_and_array_multiply(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", "yx", pixels=STACK[0, 0, 0])
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2.0, 2.0]}]
    (path / ".zattrs").write_text(json.dumps(attributes))
    with open_stack(path) as stack:
        assert stack.info.pixel_size_um == (0.4, 0.5)


def test_a_pixel_size_without_a_unit_is_warned_of(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", "yx", pixels=STACK[0, 0, 0])
    text = (path / ".zattrs").read_text().replace("micrometer", "")
    (path / ".zattrs").write_text(text)
    with open_stack(path) as stack:
        assert "no unit" in stack.info.warnings[0] and stack.info.pixel_size_um == (0.2, 0.25)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"plate": {}, "multiscales": []}, "a plate of wells"),
        ({"well": {}, "multiscales": []}, "a well of several fields"),
        ({"image-label": {}}, "labels of segmented objects"),
        ({"multiscales": []}, "without an image"),
        ({"multiscales": [{"datasets": [{"path": "nowhere"}]}]}, "no array 'nowhere'"),
        ({"multiscales": [{"datasets": [{"path": "../b/0"}]}]}, "an array outside of it"),
        ({"multiscales": [{"axes": ["t", "c", "z", "x", "y"], "datasets": [{"path": "0"}]}]}, "axes t, c, z, x, y"),
        ({"multiscales": "nonsense"}, "damaged or incomplete metadata"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    assert found in refusal(image(tmp_path / "a.zarr", **changes))


def test_other_folders_and_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    assert "without a Zarr group" in refusal(tmp_path / "empty.zarr")
    (tmp_path / "zipped.zarr").write_bytes(b"PK")
    assert "a file" in refusal(tmp_path / "zipped.zarr")
    assert "pixels of type float32" in refusal(image(tmp_path / "f.zarr", pixels=STACK.astype(np.float32)))
    assert "pixels of type int16" in refusal(image(tmp_path / "i.zarr", pixels=STACK.astype(np.int16)))
    huge = zarr.create_group(tmp_path / "h.zarr", zarr_format=2)
    huge.create_array("0", shape=(1, 1, 1, 10**6, 10), chunks=(1, 1, 1, 10**6, 10), dtype="uint16")
    huge.attrs["multiscales"] = [{"axes": list("tczyx"), "datasets": [{"path": "0"}]}]
    assert "10 x 1000000 px" in refusal(tmp_path / "h.zarr")


def test_series_of_bioformats2raw(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    image(tmp_path / "a.zarr/0")
    with open_stack(tmp_path / "a.zarr") as stack:
        np.testing.assert_array_equal(stack.read_plane(1, 2, 1), STACK[1, 2, 1])
    image(tmp_path / "a.zarr/1")
    assert "2 images (series)" in refusal(tmp_path / "a.zarr")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    (tmp_path / "secret").write_bytes(b"secret")
    (path / "0/link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="a link that leads out of"):
        open_stack(path)


def test_missing_and_damaged_chunks(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", "yx", pixels=STACK[0, 0, 0])
    chunks = [file for file in (path / "0").rglob("*") if file.is_file() and not file.name.startswith(".")]
    chunks[0].unlink()
    with open_stack(path) as stack:
        assert f"1 of its {len(chunks)} chunks are missing" in stack.info.warnings[0]
    chunks[1].write_bytes(b"\xff" * 9)
    with open_stack(path) as stack, pytest.raises(UserError, match="damaged pixel data at t 0, c 0, z 0"):
        stack.read_plane(0, 0, 0)


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert 'pip install "in-silico-labelling[zarr]"' in refusal(path)


def write(path: Path, pixels: np.ndarray = STACK, planes: Iterator[np.ndarray] | None = None) -> Path:
    write_ome_zarr(
        path,
        iter(pixels.reshape(-1, *pixels.shape[-2:])) if planes is None else planes,
        shape=pixels.shape,  # type: ignore[arg-type]
        channels=CHANNELS,
        pixel_size_um=(0.2, 0.25),
        z_step_um=0.5,
        time_increment_s=30.0,
        provenance={"checkpoint": "pix2pix-bf", "trained_on": "simulated cells"},
    )
    return path


def test_what_is_written_is_valid_and_reads_alike_elsewhere(tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 60000, (2, 3, 2, 600, 301)).astype(np.uint16)
    path = write(tmp_path / "a.ome.zarr", large)
    multiscales = ngff_zarr.from_ngff_zarr(str(path), validate=True)
    first = multiscales.images[0]
    np.testing.assert_array_equal(np.asarray(first.data), large)
    assert first.scale == SCALE and [level.data.shape[-2:] for level in multiscales.images] == [
        (600, 301),
        (300, 151),
        (150, 76),
    ]
    read = bioio.BioImage(path, reader=bioio_ome_zarr.Reader)
    np.testing.assert_array_equal(read.data, large)
    assert read.channel_names == ["Input", "Nucleus", "Actin"]
    assert (read.physical_pixel_sizes.Z, read.physical_pixel_sizes.Y, read.physical_pixel_sizes.X) == (0.5, 0.2, 0.25)
    omero = json.loads((path / ".zattrs").read_text())["omero"]["channels"]
    assert [(c["color"], c["window"]["start"], c["window"]["end"]) for c in omero] == [
        ("FFFFFF", 10, 4000),
        ("2090FF", 0, 9),
        ("FF9020", 1, 2),
    ]


def test_levels_are_means_of_two_by_two(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 1, 300, 301), np.uint16)
    pixels[0, 0, 0, :4, :4] = np.arange(16).reshape(4, 4) * 100
    level = zarr.open_array(write(tmp_path / "a.ome.zarr", pixels) / "1", mode="r")
    assert level.shape[-2:] == (150, 151)
    np.testing.assert_array_equal(np.asarray(level[0, 0, 0])[:2, :2], [[250, 450], [1050, 1250]])


def test_what_is_written_is_read_back_the_same_twice(tmp_path: Path) -> None:
    path, again = write(tmp_path / "a.ome.zarr"), write(tmp_path / "b/a.ome.zarr")
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert files == sorted(str(file.relative_to(again)) for file in again.rglob("*") if file.is_file())
    assert all((path / file).read_bytes() == (again / file).read_bytes() for file in files)
    with open_stack(path) as stack:
        assert stack.info.provenance["trained_on"] == "simulated cells"
        np.testing.assert_array_equal(stack.read_plane(1, 2, 1), STACK[1, 2, 1])


def test_an_image_is_replaced_whole_or_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.zarr")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    def fails() -> Any:
        yield STACK[0, 0, 0]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_ome_zarr(
            path,
            fails(),
            shape=STACK.shape,
            channels=CHANNELS,
            pixel_size_um=None,
            z_step_um=None,
            time_increment_s=None,
            provenance={},
        )  # type: ignore[arg-type]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    write(path, STACK[:1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    with open_stack(path) as stack:
        assert stack.info.times == 1
    shutil.rmtree(path)
