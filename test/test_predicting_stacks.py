"""Stacks through the whole way: which planes are taken, and what each becomes."""

import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import nd2
import ngff_zarr
import numpy as np
import pytest
import tifffile
import zarr
from stacks import SETTINGS, STACK, go, outputs, select, write_stack

from model import case_job
from model.batch import Status, predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.errors import UserError
from model.images import read_image
from model.images.open_stack import open_stack
from model.labels import Modality, Organelle
from model.predictor import Predictor
from model.selection import SelectionOptions

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"


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
    go(tmp_path, resources)
    before = outputs(tmp_path)
    (outcome,) = go(tmp_path, resources, select(**selection))
    assert "finds no plane, expected an index of 0 to" in str(outcome.error)
    assert outputs(tmp_path) == before  # a slip of the pen costs no prediction


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
