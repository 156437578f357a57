"""Stacks through the whole way: which planes are taken, what is written, and going on after a kill."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import bioio
import bioio_ome_tiff
import nd2
import ngff_zarr
import numpy as np
import pytest
import tifffile
import zarr
from ome_types import from_tiff
from PIL import Image
from test_inference import FAST, ROOT

from model import case_job
from model.batch import Outcome, Status, predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.errors import UserError
from model.images import read_image
from model.images.open_stack import open_stack
from model.labels import ORGANELLE_COLOURS, Modality, Organelle
from model.outputs import OutputOptions
from model.predictor import Predictor
from model.selection import SelectionOptions
from model.settings import InferenceSettings

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
SETTINGS = InferenceSettings(overlap=0, rotations=2)
STACK = np.random.default_rng(1).integers(0, 4000, (3, 2, 2, 40, 36)).astype(np.uint16)  # TCZYX
ALL = BatchOptions()


def write_stack(path: Path, channels: tuple[str, ...] = ("DAPI", "PC"), pixels: np.ndarray = STACK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "axes": "TCZYX",
        "Channel": {"Name": list(channels)},
        **{"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.5, "TimeIncrement": 30.0},
    }
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata)
    return path


def go(folder: Path, resources: Path, options: BatchOptions = ALL) -> list[Outcome]:
    cases = discover(folder / "in", folder / "out")
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        return list(predict_cases(cases, [predictor], options))


def select(**selection: Any) -> BatchOptions:
    return BatchOptions(selection=SelectionOptions(**selection))


def outputs(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())


@pytest.fixture
def expected(resources: Path) -> dict[Organelle, np.ndarray]:
    """What `Predictor.predict` makes of each plane of the channel PC, TZYX."""
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        planes = [
            predictor.predict(STACK[t, 1, z], Modality.PC, pixel_size_um=(0.1, 0.1))
            for t, z in product(range(3), range(2))
        ]
    return {o: np.stack([plane[o] for plane in planes]).reshape(3, 2, 40, 36) for o in Organelle}


def test_each_plane_is_what_the_predictor_makes_of_it(
    tmp_path: Path, resources: Path, expected: dict[Organelle, np.ndarray]
) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    (outcome,) = go(tmp_path, resources)
    assert outcome.status is Status.PREDICTED
    assert outcome.message.startswith("40 x 36 px, PC, channel PC, t 0 to 2, z 0 to 1, disagreement: mitochondria")
    for organelle, path in outcome.case.outputs.items():
        with open_stack(path) as stack:
            info = stack.info
            assert (info.times, len(info.channels), info.focal_planes) == (3, 1, 2)
            assert (info.pixel_size_um, info.z_step_um, info.time_increment_s) == ((0.1, 0.1), 0.5, 30.0)
            assert info.channels[0].name == organelle.label
            for t, z in product(range(3), range(2)):
                np.testing.assert_array_equal(stack.read_plane(t, 0, z), expected[organelle][t, z])
            assert info.provenance["planes"] == "t 0 to 2, z 0 to 1"
            assert float(info.provenance["disagreement"]) > 0
    assert not list((tmp_path / "out").glob(".*"))  # nothing is left of the planes
    assert go(tmp_path, resources)[0].status is Status.ALREADY_PREDICTED
    assert go(tmp_path, resources, select(t=0))[0].status is Status.PREDICTED


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("below", ["in", "in/plate.ome.zarr"])
def test_each_field_of_a_plate(tmp_path: Path, resources: Path, version: str, below: str) -> None:
    plate = ngff_zarr.Plate(
        columns=[ngff_zarr.PlateColumn(name="1")],
        rows=[ngff_zarr.PlateRow(name="A"), ngff_zarr.PlateRow(name="B")],
        wells=[ngff_zarr.PlateWell(path=f"{row}/1", rowIndex=n, columnIndex=0) for n, row in enumerate("AB")],
        name="plate",
        field_count=2,
        version=version,
    )
    store = str(tmp_path / "in/plate.ome.zarr")
    ngff_zarr.to_hcs_zarr(ngff_zarr.HCSPlate(store, plate), store)
    fields = {f"{row}/1/{n}": STACK[n, k, 0] for k, row in enumerate("AB") for n in range(2)}
    for name, pixels in fields.items():
        row, column, number = name.split("/")
        scale, units = {"y": 0.1, "x": 0.1}, {"y": "micrometer", "x": "micrometer"}
        field = ngff_zarr.to_ngff_image(pixels, dims=["y", "x"], scale=scale, axes_units=units)
        multiscales = ngff_zarr.to_multiscales(field, scale_factors=[])
        ngff_zarr.write_hcs_well_image(store, multiscales, plate, row, column, int(number), version=version)
    cases = discover(tmp_path / below, tmp_path / "out")
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        outcomes = list(predict_cases(cases, [predictor], BatchOptions(modality=Modality.PC)))
        assert [outcome.error for outcome in outcomes] == [None] * 4
        for name, pixels in fields.items():
            folder = tmp_path / "out/images/actin-fluorescence-ome-tiff" / ("plate" if below == "in" else "")
            found = read_image(folder / f"{name}.tiff")
            expected = predictor.predict(pixels, Modality.PC, pixel_size_um=(0.1, 0.1))[Organelle.ACTIN]
            np.testing.assert_array_equal(found.pixels, expected)
            assert found.info.pixel_size_um == (0.1, 0.1)


@pytest.mark.parametrize(
    "channel",
    [{"Name": "DAPI"}, {"Name": "C1", "ContrastMethod": "Fluorescence"}, {"Name": "pH3", "EmissionWavelength": 461}],
)
def test_one_plane_of_fluorescence_is_warned_of(
    tmp_path: Path, resources: Path, caplog: pytest.LogCaptureFixture, channel: dict[str, Any]
) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "Channel": channel}
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/a.ome.tif", STACK[0, 0, 0], ome=True, photometric="minisblack", metadata=metadata)
    assert go(tmp_path, resources, BatchOptions(modality=Modality.BF))[0].status is Status.PREDICTED
    assert f"its channel {channel['Name']} is fluorescence by its metadata" in caplog.text


def test_fluorescence_that_is_chosen_is_warned_of(
    tmp_path: Path, resources: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    options = BatchOptions(modality=Modality.BF, selection=SelectionOptions(channel="DAPI", t=0, z=0))
    assert go(tmp_path, resources, options)[0].status is Status.PREDICTED
    assert "its channel DAPI is fluorescence by its metadata" in caplog.text


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_each_plane_of_ome_zarr_is_what_the_predictor_makes_of_it(
    tmp_path: Path, resources: Path, expected: dict[Organelle, np.ndarray], version: str
) -> None:
    group = zarr.create_group(tmp_path / "in/a.ome.zarr", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=STACK, chunks=(1, 1, 1, 16, 16))
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    axes = [{"name": a, "type": k, **({"unit": "micrometer"} if k == "space" else {})} for a, k in kinds.items()]
    scale = {"type": "scale", "scale": [1.0, 1.0, 0.5, 0.1, 0.1]}
    multiscale = {"version": version, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    metadata = {"multiscales": [multiscale], "omero": {"channels": [{"label": "DAPI"}, {"label": "PC"}]}}
    group.attrs.update({"ome": {"version": version, **metadata}} if version == "0.5" else metadata)
    (outcome,) = go(tmp_path, resources)
    for organelle, path in outcome.case.outputs.items():
        with open_stack(path) as stack:
            for t, z in product(range(3), range(2)):
                np.testing.assert_array_equal(stack.read_plane(t, 0, z), expected[organelle][t, z])


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real microscope files are not in the project")
@pytest.mark.parametrize("name", ["example-timelapse", "example-zstack", "example-multichannel"])
def test_each_plane_of_nd2_is_what_the_predictor_makes_of_it(tmp_path: Path, resources: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(SAMPLES / f"{name}.nd2", tmp_path / "in")
    options = BatchOptions(Modality.BF, selection=SelectionOptions("0"))
    (outcome,) = go(tmp_path, resources, options)
    pixels = nd2.imread(SAMPLES / f"{name}.nd2")
    planes = pixels[:1] if name == "example-multichannel" else pixels
    with (
        open_stack(outcome.case.outputs[Organelle.NUCLEUS]) as stack,
        Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor,
    ):
        assert stack.info.times * stack.info.focal_planes == len(planes)
        size = stack.info.pixel_size_um
        for number in (0, len(planes) - 1):
            t, z = divmod(number, stack.info.focal_planes)
            predicted = predictor.predict(planes[number], Modality.BF, pixel_size_um=size)
            np.testing.assert_array_equal(stack.read_plane(t, 0, z), predicted[Organelle.NUCLEUS])


def test_one_plane_of_a_stack_gives_plain_planes(
    tmp_path: Path, resources: Path, expected: dict[Organelle, np.ndarray]
) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    (outcome,) = go(tmp_path, resources, select(t=2, z=1))
    for organelle, path in outcome.case.outputs.items():
        with tifffile.TiffFile(path) as tiff:
            assert tiff.series[0].axes == "YX"
        np.testing.assert_array_equal(read_image(path).pixels, expected[organelle][2, 1])


def write_sparse(path: Path, kept: Iterable[tuple[int, int, int]]) -> Path:
    """A stack that lacks planes: those (t, c, z) of a larger one that are kept, each with a TiffData of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    positions = list(kept)
    data = "".join(
        f'<TiffData IFD="{n}" PlaneCount="1" FirstT="{t}" FirstC="{c}" FirstZ="{z}"/>'
        for n, (t, c, z) in enumerate(positions)
    )
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint16" SizeX="36" SizeY="40" SizeT="9" SizeC="2" SizeZ="5" PhysicalSizeX="0.1" '
        'PhysicalSizeY="0.1" PhysicalSizeZ="0.5" TimeIncrement="30"><Channel ID="Channel:0:0" Name="PC"/>'
        f'<Channel ID="Channel:0:1" Name="GFP"/>{data}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as tiff:
        for n, (t, c, z) in enumerate(positions):
            plane = np.roll(STACK[0, c, 0], (t, z), (0, 1))
            text = None if n else xml.encode()
            tiff.write(plane, description=text, photometric="minisblack", metadata=None, contiguous=False)
    return path


GFP_AT_ALL_TIMES = [(t, 1, 0) for t in range(9)]
GFP_AT_ALL_HEIGHTS = [(0, 1, z) for z in range(5)]
STOPPED = [(t, 0, z) for t in range(3) for z in range(2)][:5]
HEIGHTS_AT_FIRST = [(0, 0, 0), (0, 0, 2)] + [(t, 0, 1) for t in range(9)]


@pytest.mark.parametrize(
    ("kept", "selection", "positions", "steps", "warned"),
    [
        ([(t, 0, 0) for t in range(9)] + [(5, 1, 0)], {}, [(t, 0) for t in range(9)], (None, 30), ""),
        ([(t, 0, 0) for t in range(9)] + [(5, 1, 0)], {"z": "best"}, [(t, 0) for t in range(9)], (None, 30), ""),
        ([(t, 0, 0) for t in (0, 4, 8)] + GFP_AT_ALL_TIMES, {}, [(0, 0), (4, 0), (8, 0)], (None, 120), ""),
        ([(t, 0, 0) for t in (0, 1, 8)] + GFP_AT_ALL_TIMES, {}, [(0, 0), (1, 0), (8, 0)], (None, None), ""),
        (list(product((0, 4, 8), (0,), (0, 2))), {}, list(product((0, 4, 8), (0, 2))), (1, 120), ""),
        ([(0, 0, 2), *GFP_AT_ALL_HEIGHTS], {}, [(0, 2)], (None, None), ""),
        ([(0, 0, z) for z in (0, 2, 4)] + GFP_AT_ALL_HEIGHTS, {}, [(0, 0), (0, 2), (0, 4)], (1, None), ""),
        (STOPPED, {}, [(0, 0), (0, 1), (1, 0), (1, 1)], (0.5, 30), "1 of its 3 time points"),
        (HEIGHTS_AT_FIRST, {}, [(t, 1) for t in range(9)], (None, 30), "2 of its 3 focal planes"),
        (HEIGHTS_AT_FIRST, {"t": 0}, [(0, 0), (0, 1), (0, 2)], (0.5, None), ""),
        (HEIGHTS_AT_FIRST, {"z": 2}, [(0, 2)], (None, None), ""),
    ],
)  # fmt: skip
def test_of_a_stack_that_lacks_planes_the_whole_of_its_channel_is_predicted(
    tmp_path: Path,
    resources: Path,
    caplog: pytest.LogCaptureFixture,
    kept: list[tuple[int, int, int]],
    selection: dict[str, Any],
    positions: list[tuple[int, int]],
    steps: tuple[float | None, float | None],
    warned: str,
) -> None:
    write_sparse(tmp_path / "in/a.ome.tif", kept)
    (outcome,) = go(tmp_path, resources, select(**selection))
    assert outcome.error is None
    warning = f"{warned} lack planes of channel PC and are left out" if warned else ""
    assert ("left out" in caplog.text) == bool(warned) and warning in caplog.text
    with (
        open_stack(outcome.case.outputs[Organelle.ACTIN]) as stack,
        Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor,
    ):
        info = stack.info
        assert (info.z_step_um, info.time_increment_s) == steps
        assert info.times * info.focal_planes == len(positions)
        for number in {0, len(positions) - 1}:
            t, z = positions[number]
            pixels = np.roll(STACK[0, 0, 0], (t, z), (0, 1))
            expected = predictor.predict(pixels, Modality.PC, pixel_size_um=(0.1, 0.1))[Organelle.ACTIN]
            np.testing.assert_array_equal(
                stack.read_plane(number // info.focal_planes, 0, number % info.focal_planes), expected
            )


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"t": 1}, "--t 1 finds no plane of channel PC, expected an index of 0 to 8 in steps of 4"),
        ({"z": 1}, "--z 1 finds no plane of channel PC, expected an index of 0"),
    ],
)
def test_an_index_of_which_the_channel_has_no_plane(
    tmp_path: Path, resources: Path, selection: dict[str, int], expected: str
) -> None:
    write_sparse(tmp_path / "in/a.ome.tif", [(t, 0, 0) for t in (0, 4, 8)] + [(t, 1, 0) for t in range(9)])
    (outcome,) = go(tmp_path, resources, select(**selection))
    assert expected in str(outcome.error)


def test_planes_without_any_whole_time_or_height_are_refused(tmp_path: Path, resources: Path) -> None:
    write_sparse(tmp_path / "in/a.ome.tif", [(t, 0, t) for t in range(3)])
    (outcome,) = go(tmp_path, resources)
    assert "found 3 planes of 3 times and 3 focal planes in channel PC" in str(outcome.error)


@pytest.mark.parametrize("lost", ["0/0/0/0/0/0", "1/0/0/0/0/0", "1"])
def test_an_output_that_has_lost_a_chunk_is_predicted_again(tmp_path: Path, resources: Path, lost: str) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=np.tile(STACK[:1, :, :1], (1, 1, 1, 8, 8)))
    options = BatchOptions(outputs=OutputOptions(file_format="zarr"))
    go(tmp_path, resources, options)
    assert go(tmp_path, resources, options)[0].status is Status.ALREADY_PREDICTED
    path = tmp_path / "out/images/nucleus-fluorescence-ome-tiff/a.ome.zarr" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert go(tmp_path, resources, options)[0].status is Status.PREDICTED
    assert path.exists()


def test_merged_layout(tmp_path: Path, resources: Path, expected: dict[Organelle, np.ndarray]) -> None:
    write_stack(tmp_path / "in/sub.tiffs/a.ome.tif")
    options = BatchOptions(outputs=OutputOptions("merged"))
    go(tmp_path, resources, options)
    assert outputs(tmp_path) == ["images/organelles-merged/sub.tiffs/a.ome.tiff"]
    path = tmp_path / "out" / outputs(tmp_path)[0]
    with open_stack(path) as stack:
        assert [channel.name for channel in stack.info.channels] == ["Input", *(o.label for o in Organelle)]
        for t, z in product(range(3), range(2)):
            np.testing.assert_array_equal(stack.read_plane(t, 0, z), STACK[t, 1, z])
            for c, organelle in enumerate(Organelle, start=1):
                np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[organelle][t, z])
        assert stack.info.provenance["trained_on"] == "nothing at all"
    _check_with_other_readers(path, expected)
    assert go(tmp_path, resources, options)[0].status is Status.ALREADY_PREDICTED


def _check_with_other_readers(path: Path, expected: dict[Organelle, np.ndarray]) -> None:
    """Names, colours, sizes and pixels of a merged file by OME's schema, by bioio, and page by page by Pillow."""
    pixels = from_tiff(path).images[0].pixels
    assert [channel.color.as_hex("long").upper() for channel in pixels.channels] == [
        "#FFFFFF",
        *(f"#{ORGANELLE_COLOURS[organelle]}" for organelle in Organelle),
    ]
    image = bioio.BioImage(path, reader=bioio_ome_tiff.Reader)
    assert image.channel_names == ["Input", *(organelle.label for organelle in Organelle)]
    assert tuple(image.physical_pixel_sizes) == (0.5, 0.1, 0.1)
    assert pixels.time_increment == 30
    merged = image.data  # TCZYX
    assert merged.shape == (3, 5, 2, 40, 36)
    for c, organelle in enumerate(Organelle, start=1):
        np.testing.assert_array_equal(merged[:, c], expected[organelle])
    assert pixels.dimension_order.value == "XYZCT"
    with Image.open(path) as pages:  # by libtiff
        assert pages.n_frames == 30  # type: ignore[attr-defined]
        for number, plane in enumerate(merged.reshape(30, 40, 36)):
            pages.seek(number)
            np.testing.assert_array_equal(np.asarray(pages), plane)


def test_a_merged_single_plane(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:1, :, :1])
    go(tmp_path, resources, BatchOptions(outputs=OutputOptions("merged")))
    with open_stack(tmp_path / "out/images/organelles-merged/a.ome.tiff") as stack:
        assert (stack.info.times, len(stack.info.channels), stack.info.focal_planes) == (1, 5, 1)


def test_disagreement_as_images(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:, :, :1])
    go(tmp_path, resources, BatchOptions(outputs=OutputOptions(disagreement=True)))
    assert len(outputs(tmp_path)) == 8
    with open_stack(tmp_path / "out/images/nucleus-disagreement-ome-tiff/a.tiff") as stack:
        assert stack.info.times == 3
        assert stack.read_plane(1, 0, 0).max() > 0
        assert "deviation" in stack.info.provenance["shows"]


@pytest.mark.parametrize(
    ("channels", "wanted", "message"),
    [
        (("DAPI", "Channel 2"), None, "found 2 channels, none of them known as transmitted light"),
        (("TL", "Phase"), None, "found 2 channels, 2 (0, 1) of them known as transmitted light"),
        (("DAPI", "PC"), "GFP", "--channel GFP finds no such channel, expected one of 0 (DAPI), 1 (PC)"),
        (("DAPI", "PC"), "2", "--channel 2 finds no such channel"),
        (("PC", "PC"), "PC", "2 channels of that name"),
    ],
)
def test_a_channel_that_cannot_be_told(
    tmp_path: Path, resources: Path, channels: tuple[str, ...], wanted: str | None, message: str
) -> None:
    write_stack(tmp_path / "in/a.ome.tif", channels)
    (outcome,) = go(tmp_path, resources, select(channel=wanted))
    assert isinstance(outcome.error, UserError) and message in str(outcome.error) and "a.ome.tif" in str(outcome.error)
    assert outputs(tmp_path) == []


@pytest.mark.parametrize("wanted", ["transmitted", "1", "TRANSMITTED"])
def test_a_channel_by_name_or_index(tmp_path: Path, resources: Path, wanted: str) -> None:
    write_stack(tmp_path / "in/a_PC_.ome.tif", ("TL", "transmitted"))
    (outcome,) = go(tmp_path, resources, select(channel=wanted, t=0, z=0))
    assert "PC, channel transmitted" in outcome.message  # the modality by the file's name


@pytest.mark.parametrize("selection", [{"t": 3}, {"z": 2}])
def test_an_index_beyond_the_stack(tmp_path: Path, resources: Path, selection: dict[str, int]) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    (outcome,) = go(tmp_path, resources, select(**selection))
    assert "finds no plane, expected an index of 0 to" in str(outcome.error)


def test_the_plane_in_focus_at_each_time(tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def second_then_first(planes: Any, modality: Modality | None) -> int:
        seen.append(sum(1 for _ in planes))
        assert modality is Modality.PC
        return len(seen) % 2

    monkeypatch.setattr(case_job.select_planes.__globals__["best_plane"], "__call__", None, raising=False)
    monkeypatch.setitem(case_job.select_planes.__globals__, "best_plane", second_then_first)
    write_stack(tmp_path / "in/a.ome.tif")
    (outcome,) = go(tmp_path, resources, select(z="best"))
    assert seen == [2, 2, 2]
    with open_stack(outcome.case.outputs[Organelle.ACTIN]) as stack:
        assert (stack.info.times, stack.info.focal_planes, stack.info.z_step_um) == (3, 1, None)
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        first = predictor.predict(STACK[0, 1, 1], Modality.PC, pixel_size_um=(0.1, 0.1))[Organelle.ACTIN]
    with open_stack(outcome.case.outputs[Organelle.ACTIN]) as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 0), first)


def test_a_damaged_plane_fails_its_file_alone(tmp_path: Path, resources: Path) -> None:
    path = write_stack(tmp_path / "in/a.ome.tif")
    metadata = {"axes": "TZYX", "Channel": {"Name": "PC"}}
    tifffile.imwrite(path, STACK[:, 0], ome=True, compression="zlib", photometric="minisblack", metadata=metadata)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[4].dataoffsets[0]  # type: ignore[union-attr]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    write_stack(tmp_path / "in/b.ome.tif")
    failed, other = go(tmp_path, resources)
    assert "damaged pixel data of plane 4" in str(failed.error)
    assert other.error is None
    assert {Path(path).name for path in outputs(tmp_path) if not path.startswith(".planes")} == {"b.tiff"}


def test_a_failed_case_removes_its_own_zarr_and_no_other_folder(tmp_path: Path, resources: Path) -> None:
    options = BatchOptions(outputs=OutputOptions(file_format="zarr"))
    for name in "ab":
        write_stack(tmp_path / f"in/{name}.ome.tif", pixels=STACK[:1, :, :1])
    first, _ = go(tmp_path, resources, options)
    folders = [tmp_path / f"out/images/{organelle}-fluorescence-ome-tiff/a.ome.zarr" for organelle in Organelle]
    assert all(folder.is_dir() for folder in folders) and first.error is None
    foreign = tmp_path / "out/images/nucleus-fluorescence-ome-tiff/b.ome.zarr"
    shutil.rmtree(foreign)
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for name in "ab":
        (tmp_path / f"in/{name}.ome.tif").write_bytes(b"no image")
    assert all(outcome.error is not None for outcome in go(tmp_path, resources, options))
    assert not any(folder.exists() for folder in folders)
    assert (foreign / "notes.txt").read_text() == "mine"


def test_a_failed_case_has_no_outputs_of_other_options_either(tmp_path: Path, resources: Path) -> None:
    write_stack(tmp_path / "in/a.ome.tif", pixels=STACK[:1, :, :1])
    write_stack(tmp_path / "in/b.ome.tif", pixels=STACK[:1, :, :1])
    for options in (OutputOptions(disagreement=True), OutputOptions("merged"), OutputOptions("merged", "zarr")):
        go(tmp_path, resources, BatchOptions(outputs=options))
    mine = tmp_path / "out/images/organelles-merged/a.ome.tiff"
    before = len(outputs(tmp_path))
    (tmp_path / "in/a.ome.tif").write_bytes(b"no image")
    failed, _ = go(tmp_path, resources)
    assert failed.error is not None
    left = outputs(tmp_path)
    assert not [path for path in left if "/a." in path] and len(left) == before // 2
    tifffile.imwrite(mine, STACK[0, 0, 0])  # somebody else's
    go(tmp_path, resources)
    assert mine.exists()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stack_goes_on_where_it_was(tmp_path: Path, resources: Path, blow: signal.Signals) -> None:
    planes = np.random.default_rng(2).integers(0, 4000, (40, 1, 1, 40, 36)).astype(np.uint16)
    write_stack(tmp_path / "in/a.ome.tif", ("PC",), planes)
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(tmp_path / "in"), "--resources"]
    command += [str(resources), *FAST, "--output", str(tmp_path / "out")]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out/.planes").rglob("*.tiff"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(blow)
    killed.communicate(timeout=30)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/.planes").rglob("*.tiff")}
    assert 20 <= len(kept) < 160
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    predicted_now = sum(": plane " in line for line in done.stdout.splitlines())
    complete = [len([p for p in kept if p.name.startswith(f"t{t}_")]) == 4 for t in range(40)]
    assert predicted_now == 40 - sum(complete)  # nothing twice
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0, rotations=1)) as predictor:
        last = predictor.predict(planes[39, 0, 0], Modality.PC, pixel_size_um=(0.1, 0.1))
    with open_stack(tmp_path / "out/images/nucleus-fluorescence-ome-tiff/a.tiff") as stack:
        np.testing.assert_array_equal(stack.read_plane(39, 0, 0), last[Organelle.NUCLEUS])
    assert not (tmp_path / "out/.planes").exists()


def test_planes_of_other_settings_are_predicted_anew(
    tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack(tmp_path / "in/a.ome.tif")
    forward, calls = Predictor.forward, []

    def fails_at_the_third(self, inputs):  # type: ignore[no-untyped-def]
        calls.append(inputs)
        if len(calls) == 3:
            raise MemoryError
        return forward(self, inputs)

    monkeypatch.setattr(Predictor, "forward", fails_at_the_third)
    assert go(tmp_path, resources)[0].status is Status.FAILED
    calls.clear()
    monkeypatch.setattr(Predictor, "forward", lambda self, inputs: (calls.append(inputs), forward(self, inputs))[1])
    go(tmp_path, resources, BatchOptions(Modality.BF, override_modality=True))
    assert len(calls) == 6
