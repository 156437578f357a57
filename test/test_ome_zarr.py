"""OME-Zarr is read plane by plane as other programs write it; what is no image, or contradicts itself, is named."""

import json
import os
import re
import sys
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import ngff_zarr
import numcodecs
import numpy as np
import pytest
import zarr

from model.errors import UserError
from model.images.open_stack import open_stack
from model.labels import Modality

STACK = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 70, 50)).astype(np.uint16)  # TCZYX
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SCALE = {"t": 30.0, "c": 1.0, "z": 0.5, "y": 0.2, "x": 0.25}


def image(
    path: Path,
    axes: str = "tczyx",
    version: str = "0.4",
    pixels: np.ndarray = STACK,
    storage: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write an image as other programs do, with `zarr` alone; `changes` are laid over the attributes."""
    stored = pixels.transpose(["tczyx".index(axis) for axis in axes]) if pixels.ndim == 5 else pixels
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    chunks = (1,) * (stored.ndim - 2) + (32, 32)
    group.create_array("0", data=np.ascontiguousarray(stored), **({"chunks": chunks} | (storage or {})))
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


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_independent_writers_image(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.ome.zarr"
    source = ngff_zarr.to_ngff_image(
        STACK[0, 0],
        dims=["z", "y", "x"],
        scale={"z": 2.0, "y": 0.3, "x": 0.3},
        axes_units={a: "micrometer" for a in "zyx"},
    )
    ngff_zarr.to_ngff_zarr(str(path), ngff_zarr.to_multiscales(source, scale_factors=[]), version=version)
    with open_stack(path) as stack:
        info = stack.info
        assert (info.focal_planes, info.pixel_size_um, info.z_step_um, info.warnings) == (2, (0.3, 0.3), 2.0, ())
        np.testing.assert_array_equal(stack.read_plane(0, 0, 1), STACK[0, 0, 1])


@pytest.mark.parametrize(
    ("version", "storage"),
    [
        ("0.4", {"compressors": None}),
        ("0.4", {"order": "F", "chunk_key_encoding": {"name": "v2", "separator": "/"}}),
        ("0.4", {"chunks": (2, 3, 2, 64, 64)}),
        ("0.5", {"shards": (1, 1, 2, 64, 64), "chunks": (1, 1, 1, 32, 32)}),
        ("0.5", {"compressors": zarr.codecs.GzipCodec(), "dimension_names": tuple("tczyx")}),
        ("0.5", {"filters": zarr.codecs.TransposeCodec(order=(4, 3, 2, 1, 0))}),
    ],
)
@pytest.mark.parametrize("kind", ["<u2", ">u2", "|u1"])
def test_however_it_is_stored(tmp_path: Path, version: str, storage: dict[str, Any], kind: str) -> None:
    pixels = (STACK >> 8 if kind == "|u1" else STACK).astype(kind)
    path = image(tmp_path / "a.zarr", version=version, pixels=pixels, storage=storage)
    with open_stack(path) as stack:
        plane = stack.read_plane(1, 2, 1)
        assert plane.dtype == np.dtype("=u2") and stack.info.warnings == ()
        np.testing.assert_array_equal(plane, pixels[1, 2, 1].astype(np.uint16) * (257 if kind == "|u1" else 1))


def test_a_plane_is_read_from_its_own_chunks_alone(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    for chunk in (path / "0").glob("[01].*"):
        if not chunk.name.startswith("1.2.0."):
            chunk.write_bytes(b"damaged")
    with open_stack(path) as stack:
        np.testing.assert_array_equal(stack.read_plane(1, 2, 0), STACK[1, 2, 0])
        with pytest.raises(UserError, match="damaged pixel data at t 1, c 2, z 1"):
            stack.read_plane(1, 2, 1)


def test_the_scales_of_image_and_array_multiply(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", "yx", pixels=STACK[0, 0, 0])
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2.0, 2.0]}]
    (path / ".zattrs").write_text(json.dumps(attributes))
    with open_stack(path) as stack:
        assert stack.info.pixel_size_um == (0.4, 0.5)


def edited(path: Path, **changes: Any) -> Path:
    """Change what the first multiscale of an image of version 0.4 says."""
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0] |= changes
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


def scaled(*scale: float) -> list[dict[str, Any]]:
    return [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}]


NO_UNITS = [{"name": axis, "type": KINDS[axis]} for axis in "tczyx"]


@pytest.mark.parametrize(
    ("changes", "sizes", "warned"),
    [
        ({"axes": NO_UNITS}, ((0.2, 0.25), 0.5, None), "have no unit and are taken as µm"),
        ({"axes": NO_UNITS, "datasets": scaled(1, 1, 1, 1, 1)}, (None, None, None), ""),
        ({"axes": NO_UNITS, "datasets": scaled(1, 1, 1, 0.2, 0.2)}, ((0.2, 0.2), None, None), "have no unit"),
        ({"datasets": scaled(2, 1, 1, 1, 1)}, ((1, 1), 1, 2), ""),
        ({"datasets": scaled(2, 1, 0.5, 200, 200)}, (None, 0.5, 2), "its pixel size is not one of a light microscope"),
        ({"datasets": scaled(2, 1, 0.5, -0.2, 0.2)}, (None, 0.5, 2), "its pixel size is not one of a light microscope"),
        ({"datasets": scaled(2, 1, 0, 0.2, 0.2)}, ((0.2, 0.2), None, 2), "its distance of focal planes is not one"),
        ({"datasets": scaled(0.2, 0.2)}, (None, None, None), "'scale' does not fit its axes"),
        ({"coordinateTransformations": [{"type": "affine"}]}, (None, None, None), "'affine' does not fit its axes"),
        ({"datasets": [{"path": "0"}]}, (None, None, None), ""),
        ({"coordinateTransformations": [{"type": "identity"}]}, ((0.2, 0.25), 0.5, 30), ""),
    ],
)
def test_sizes_are_stated_warned_of_or_unknown(
    tmp_path: Path, changes: dict[str, Any], sizes: tuple[Any, ...], warned: str
) -> None:
    with open_stack(edited(image(tmp_path / "a.zarr"), **changes)) as stack:
        assert (stack.info.pixel_size_um, stack.info.z_step_um, stack.info.time_increment_s) == sizes
        assert len(stack.info.warnings) == bool(warned) and warned in "".join(stack.info.warnings)


def test_units_are_converted(tmp_path: Path) -> None:
    units = {"t": "minute", "z": "nanometer", "y": "millimeter", "x": "nanometer"}
    axes = [axis | {"unit": units.get(axis["name"], "")} for axis in NO_UNITS]
    with open_stack(edited(image(tmp_path / "a.zarr"), axes=axes, datasets=scaled(2, 1, 300, 2e-4, 200))) as stack:
        assert (stack.info.pixel_size_um, stack.info.z_step_um, stack.info.time_increment_s) == ((0.2, 0.2), 0.3, 120)


def test_names_of_too_few_channels_are_not_given_to_others(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", omero={"channels": [{"label": "Phase"}, {"label": "GFP"}]})
    with open_stack(path) as stack:
        assert [channel.name for channel in stack.info.channels] == [None] * 3
        assert stack.info.warnings == ("its metadata name 2 channels, it has 3: the names are ignored",)


def test_old_versions_have_five_axes_and_new_ones_are_refused(tmp_path: Path) -> None:
    old = {"version": "0.2", "datasets": [{"path": "0"}]}
    with open_stack(image(tmp_path / "a.zarr", multiscales=[old])) as stack:
        np.testing.assert_array_equal(stack.read_plane(1, 2, 1), STACK[1, 2, 1])
    path = image(tmp_path / "b.zarr", "cyx", pixels=STACK[0, :, 0], multiscales=[old])
    assert "axes t, c, z, y, x of an array of 3 dimensions" in refusal(path)
    new = {"version": "0.6", "datasets": [{"path": "0"}]}
    assert "found OME-Zarr 0.6, expected one of the versions 0.1" in refusal(
        image(tmp_path / "c.zarr", multiscales=[new])
    )


def test_a_second_image_is_warned_of(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    multiscale = json.loads((path / ".zattrs").read_text())["multiscales"][0]
    with open_stack(image(tmp_path / "b.zarr", multiscales=[multiscale] * 2)) as stack:
        assert stack.info.warnings == ("it holds 2 images, of which the first is read",)


def test_arrays_that_contradict_the_metadata_are_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", datasets=None)
    zarr.open_group(path).create_array("1", data=np.zeros((2, 3, 2, 140, 100), np.uint16))
    edited(path, datasets=[*scaled(30, 1, 0.5, 0.2, 0.25), {"path": "1"}, {"path": "absent"}])
    assert "found a larger array '1' behind '0'" in refusal(path)
    named = image(tmp_path / "b.zarr", version="0.5", storage={"dimension_names": tuple("tzcyx")})
    assert "found dimensions t, z, c, y, x of an array with axes t, c, z, y, x" in refusal(named)


def test_a_stale_copy_of_the_metadata_is_not_believed(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    zarr.consolidate_metadata(path)
    edited(path, datasets=scaled(30, 1, 0.5, 0.4, 0.4))
    with open_stack(path) as stack:
        assert stack.info.pixel_size_um == (0.4, 0.4)


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
    assert "pixels of type complex64" in refusal(image(tmp_path / "c.zarr", pixels=STACK.astype(np.complex64)))
    huge = zarr.create_group(tmp_path / "h.zarr", zarr_format=2)
    huge.create_array("0", shape=(1, 1, 1, 10**6, 10), chunks=(1, 1, 1, 10**6, 10), dtype="uint16")
    huge.attrs["multiscales"] = [{"axes": list("tczyx"), "datasets": [{"path": "0"}]}]
    assert "10 x 1000000 px" in refusal(tmp_path / "h.zarr")


def test_a_zipped_image_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zarr", "w") as archive:
        archive.writestr("zarr.json", "{}")
    assert "found a zipped OME-Zarr image, expected its folder, unzipped" in refusal(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("shape", "chunks", "found"),
    [
        ((10**9, 1, 1, 64, 64), (1, 1, 1, 64, 64), "1000000000 planes or chunks"),
        ((1, 1, 1, 4096, 4096), (1, 1, 1, 1, 1), "16777216 planes or chunks"),
        ((10**9, 1, 1, 8, 8), (10**7, 1, 1, 8, 8), "1000000000 planes or chunks"),
        ((4096, 1, 1, 2048, 2048), (4096, 1, 1, 2048, 2048), "chunks of 4096 x 1 x 1 x 2048 x 2048"),
        ((1, 1, 1, 32768, 32768), (1, 1, 1, 32768, 32768), "planes and chunks of 2147483648 bytes claimed in"),
        ((0, 1, 1, 64, 64), (1, 1, 1, 64, 64), "planes of 64 x 64 px"),
    ],
)
def test_hostile_sizes_are_refused_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], found: str
) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", shape=shape, chunks=chunks, dtype="uint16")
    group.attrs["multiscales"] = [{"axes": list("tczyx"), "datasets": [{"path": "0"}]}]
    (tmp_path / "a.zarr/0/0.0.0.0.0").write_bytes(b"a few bytes")
    assert found in refusal(tmp_path / "a.zarr")


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
    (path / "0/link").unlink()
    os.mkfifo(path / "0/pipe")
    with pytest.raises(UserError, match="pipe: found something that is no file"):
        open_stack(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_chunks_are_warned_of_and_damaged_ones_refused(tmp_path: Path, version: str) -> None:
    path = image(tmp_path / "a.zarr", "zyx", version, STACK[0, 0], {"compressors": None, "fill_value": 7}, omero={})
    chunks = sorted(file for file in (path / "0").rglob("*") if file.is_file() and "z" not in file.name)
    assert len(chunks) == 12
    for chunk in chunks[:6]:
        chunk.unlink()
    with open_stack(path) as stack:
        assert stack.info.warnings == ("6 of its 12 chunks are missing and taken as 7",)
        assert (stack.read_plane(0, 0, 0) == 7).all()
        chunks[6].write_bytes(chunks[6].read_bytes()[:-2])
        with pytest.raises(UserError, match="damaged pixel data at t 0, c 0, z 1"):
            stack.read_plane(0, 0, 1)
    for chunk in chunks[6:]:
        chunk.unlink()
    assert "no pixels (all chunks are missing)" in refusal(path)


@pytest.mark.parametrize(
    ("version", "storage"),
    [
        *[
            ("0.4", {"compressors": numcodecs.Blosc(cname, shuffle=mode)})
            for cname in ("lz4", "zstd")
            for mode in (0, 1)
        ],
        *[("0.5", {"compressors": zarr.codecs.BloscCodec(cname=cname)}) for cname in ("lz4", "zstd", "blosclz")],
        ("0.5", {"compressors": zarr.codecs.BloscCodec(), "shards": (1, 1, 2, 96, 64), "chunks": (1, 1, 1, 32, 32)}),
        ("0.4", {"compressors": numcodecs.Zlib()}),
        ("0.4", {"compressors": numcodecs.LZ4()}),
        ("0.5", {"compressors": zarr.codecs.ZstdCodec()}),
    ],
)
@pytest.mark.parametrize("kind", ["<u2", "|u1"])
@pytest.mark.parametrize("left", [0, 1, 10, 20, 0.5, 0.99])
def test_a_chunk_cut_short_is_refused(
    tmp_path: Path, version: str, storage: dict[str, Any], kind: str, left: float
) -> None:
    pixels = STACK.astype(kind)
    path = image(tmp_path / "a.zarr", version=version, pixels=pixels, storage=storage)
    chunk = max((file for file in (path / "0").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    t, c, z, *_ = (int(number) for number in re.findall(r"\d+", str(chunk.relative_to(path / "0"))))
    z *= 2 if "shards" in storage else 1
    with open_stack(path) as stack:
        np.testing.assert_array_equal(stack.read_plane(t, c, z) & 0xFF, pixels[t, c, z] & 0xFF)
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: int(left * len(whole)) if left < 1 else int(left)])
    with pytest.raises(UserError, match=r"damaged|no pixels"), open_stack(path) as stack:
        for index in range(z, 2):
            stack.read_plane(t, c, index)


def test_a_missing_shard_is_warned_of(tmp_path: Path) -> None:
    storage = {"shards": (1, 1, 2, 64, 64), "chunks": (1, 1, 1, 32, 32)}
    path = image(tmp_path / "a.zarr", version="0.5", storage=storage)
    (path / "0/c/1/0/0/1/0").unlink()
    with open_stack(path) as stack:
        assert stack.info.warnings == ("1 of its 12 chunks are missing and taken as 0",)
        np.testing.assert_array_equal(stack.read_plane(1, 0, 1)[:64], STACK[1, 0, 1, :64])
        assert not stack.read_plane(1, 0, 1)[64:].any()


def test_without_the_package_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert "pip install 'zarr==3.1.*'" in refusal(path)
