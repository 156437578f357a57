"""Files of several scenes (stage positions, series): each is an image of its own, from the reader to the outputs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import nd2
import numpy as np
import pytest
import tifffile
from test_inference import FAST, ROOT

from model import command_line, files
from model.batch import Outcome, Status, predict_cases
from model.batch_options import BatchOptions
from model.case import Case
from model.discovery import discover
from model.distribution.dispatch import _Task
from model.errors import UserError
from model.images import inspect, read_image
from model.images.open_stack import open_stack
from model.images.stack import SceneError
from model.labels import Modality, Organelle
from model.outputs import OutputOptions
from model.predictor import Predictor
from model.selection import SelectionOptions
from model.settings import InferenceSettings

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
SETTINGS = InferenceSettings(overlap=0, rotations=1)
SIZES_TCZ = (2, 2, 1), (1, 1, 3), (1, 1, 1)
SCENES = [
    np.random.default_rng(n).integers(0, 4000, (*sizes, 40, 36)).astype(np.uint16) for n, sizes in enumerate(SIZES_TCZ)
]
CHANNELS = ["DAPI", "Phase"], ["Brightfield"], ["DIC"]


def write_scenes(path: Path, scenes: list[np.ndarray] = SCENES, channels: Any = CHANNELS) -> Path:
    """One Image of OME-XML each, of pixels of 0.1, 0.2, … µm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n, pixels in enumerate(scenes):
            size = 0.1 * (n + 1)
            metadata = {"axes": "TCZYX", "PhysicalSizeX": size, "PhysicalSizeY": size, "Channel": {"Name": channels[n]}}
            tiff.write(pixels, photometric="minisblack", contiguous=False, metadata=metadata)
    return path


def assert_scenes(path: Path, scenes: list[np.ndarray]) -> None:
    for number, expected in enumerate(scenes):
        with open_stack(path, number) as stack:
            info = stack.info
            assert info.scenes == len(scenes)
            assert (info.times, len(info.channels), info.focal_planes, *info.shape) == expected.shape
            for t, c, z in product(*map(range, expected.shape[:3])):
                np.testing.assert_array_equal(stack.read_plane(t, c, z), expected[t, c, z])
    with pytest.raises(UserError, match=f"found no scene {len(scenes)}, expected an index of 0 to"):
        open_stack(path, len(scenes))


def test_ome_tiff_of_several_images(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.ome.tif")
    assert_scenes(path, SCENES)
    for number, modality in enumerate([Modality.PC, Modality.BF, Modality.DIC]):
        with open_stack(path, number) as stack:
            assert stack.info.channels[-1].modality is modality and stack.info.warnings == ()
            assert stack.info.pixel_size_um == pytest.approx((0.1 * (number + 1),) * 2)


@pytest.mark.parametrize("size", [None, 0.1, 0.25])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_scenes_of_several_sizes(tmp_path: Path, size: float | None, order: tuple[int, ...]) -> None:
    """One of half the size is no smaller copy: there is but one of it, or its pixels are not twice as large."""
    several = [SCENES[0], SCENES[1][..., :30, :], SCENES[2][..., ::2, ::2]]
    alike = [SCENES[2], SCENES[2] + np.uint16(1), SCENES[2][..., ::2, ::2]]
    for stacks in (several, alike):
        path, scenes = tmp_path / "a.ome.tif", [stacks[number] for number in order]
        with tifffile.TiffWriter(path, ome=True) as tiff:
            for n, pixels in enumerate(scenes):
                metadata: dict[str, Any] = {"axes": "TCZYX", "Name": f"well {n}"}
                metadata |= {"PhysicalSizeX": size, "PhysicalSizeY": size} if size else {}
                tiff.write(pixels, photometric="minisblack", contiguous=False, metadata=metadata)
        assert_scenes(path, scenes)
        with open_stack(path, 1) as stack:
            assert (stack.info.warnings, stack.info.pixel_size_um) == ((), size and (size, size))
        for read in (inspect, read_image):
            with pytest.raises(UserError, match=r"found (several )?images.* of|found \d planes"):
                read(path)


def test_a_scene_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.ome.tif", SCENES[:2])
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(tifffile.PHOTOMETRIC.MINISWHITE)
    with pytest.raises(SceneError, match="found pixels of photometric interpretation MINISWHITE") as caught:
        open_stack(path)
    assert caught.value.scenes == 2
    with open_stack(path, 1) as stack:
        np.testing.assert_array_equal(stack.read_plane(0, 0, 2), SCENES[1][0, 0, 2])


def test_an_image_of_metadata_alone_is_no_scene(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.ome.tif", SCENES[:2])
    xml = tifffile.tiffcomment(path)
    first, second = re.findall("<Image .*?</Image>", xml)
    alone = re.sub("<TiffData [^>]*/>", "<MetadataOnly/>", first)
    tifffile.tiffcomment(path, xml.replace(second, second + alone.replace('ID="Image:0"', 'ID="Image:2"')))
    with open_stack(path) as stack:
        assert stack.info.scenes == 2


def test_images_that_the_file_has_lost_are_warned_of(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.ome.tif")
    xml = tifffile.tiffcomment(path)
    with tifffile.TiffWriter(tmp_path / "b.ome.tif") as tiff:
        for n, plane in enumerate(SCENES[0].reshape(4, 40, 36)):
            text = None if n else xml.encode()
            tiff.write(plane, description=text, photometric="minisblack", metadata=None, contiguous=False)
    with open_stack(tmp_path / "b.ome.tif") as stack:
        assert stack.info.scenes == 1
        assert "its OME-XML describes 2 images of 4 planes more than it holds" in stack.info.warnings


def test_ome_xml_that_tells_two_images_of_one_plane_is_refused(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.ome.tif", SCENES[:2])
    xml = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, re.sub('<TiffData IFD="4"[^>]*?PlaneCount="3"', '<TiffData IFD="3" PlaneCount="4"', xml))
    with pytest.raises(UserError, match="describes a plane as part of several of its 2 images"):
        open_stack(path)


def numbered(position: int) -> dict[str, Any]:
    return {"PositionIndex": position, "FrameIndex": 0, "ChannelIndex": 0}


def named(position: int) -> dict[str, Any]:
    return {"Axes": {"position": f"Pos{position}"}}


@pytest.mark.parametrize("stated", [numbered, named])
def test_micro_manager(tmp_path: Path, stated: Any) -> None:
    scenes, path = [SCENES[1], SCENES[1] + np.uint16(1)], tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for z, position in product(range(3), range(2)):
            metadata = stated(position)
            metadata.get("Axes", metadata)["z" if "Axes" in metadata else "SliceIndex"] = z
            tags = [(51123, "s", 0, json.dumps(metadata), True)]
            plane = scenes[position][0, 0, z]
            tiff.write(plane, photometric="minisblack", metadata=None, contiguous=False, extratags=tags)
    assert_scenes(path, scenes)


def test_positions_that_are_texts_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for n, position in enumerate((0, 1, 2, 10)):
            tags = [(51123, "s", 0, json.dumps(named(position)), True)]
            plane = SCENES[2][0, 0, 0] + np.uint16(n)
            tiff.write(plane, photometric="minisblack", metadata=None, contiguous=False, extratags=tags)
    for scene, position in enumerate((0, 1, 2, 10)):
        with open_stack(tmp_path / "a.tif", scene) as stack:
            assert stack.info.scene_name == f"position Pos{position}"
            np.testing.assert_array_equal(stack.read_plane(0, 0, 0), SCENES[2][0, 0, 0] + np.uint16(scene))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real microscope files are not in the project")
@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("recorded", [11, 12])
def test_nd2(monkeypatch: pytest.MonkeyPatch, inner: bool, recorded: int) -> None:
    """A real file of 11 frames whose loops are said to be 6 times at 2 positions: the last frame is missing."""
    path = SAMPLES / "example-zstack.nd2"
    frames = nd2.imread(path)
    structures = nd2.structures
    times = structures.TimeLoop(
        count=6,
        nestingLevel=0 if inner else 1,
        parameters=structures.TimeLoopParams(startMs=0, periodMs=1, durationMs=6, periodDiff=structures.PeriodDiff()),
    )
    points = structures.XYPosLoopParams(isSettingZ=False, points=[])
    places = structures.XYPosLoop(count=2, nestingLevel=1 if inner else 0, parameters=points)
    monkeypatch.setattr(nd2.ND2File, "experiment", [times, places] if inner else [places, times])
    order = [{"T": t, "P": p} for t, p in product(range(6), range(2))]
    order = order if inner else sorted(order, key=lambda at: (at["P"], at["T"]))
    monkeypatch.setattr(nd2.ND2File, "loop_indices", order)
    if recorded == 11:
        expected = [[n for n, at in enumerate(order[:11]) if at["P"] == p] for p in range(2)]
        assert_scenes(path, [frames[np.array(numbers)][:, None, None] for numbers in expected])
        with open_stack(path, 1) as stack:
            assert stack.info.warnings[-1] == "1 of its 6 time points lack planes and are left out"
    monkeypatch.setattr(nd2.ND2File, "loop_indices", order[:recorded][:6])
    with pytest.raises(UserError, match="11 frames, described as 6 times and 1 focal planes of 2 positions"):
        open_stack(path)


def go(folder: Path, resources: Path, scene: int | None = None, **options: Any) -> list[Outcome]:
    cases = discover(folder / "in", folder / "out")
    chosen = BatchOptions(selection=SelectionOptions(scene=scene), **options)
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        return list(predict_cases(cases, [predictor], chosen))


def outputs(folder: Path, organelle: Organelle = Organelle.ACTIN) -> list[str]:
    return sorted(path.name for path in (folder / "out/images").rglob("*.tiff") if organelle in str(path.parent))


def test_each_scene_is_predicted(tmp_path: Path, resources: Path) -> None:
    write_scenes(tmp_path / "in/a.ome.tif")
    outcomes = go(tmp_path, resources)
    assert [outcome.status for outcome in outcomes] == [Status.PREDICTED] * 3
    assert [outcome.case.title for outcome in outcomes] == [f"a.ome.tif, scene {n}" for n in range(3)]
    assert outputs(tmp_path) == ["a_scene0.tiff", "a_scene1.tiff", "a_scene2.tiff"]
    with Predictor.open(resources, device="cpu", settings=SETTINGS) as predictor:
        expected = predictor.predict(SCENES[2][0, 0, 0], Modality.DIC, pixel_size_um=(0.3, 0.3))[Organelle.ACTIN]
    found = read_image(outcomes[2].case.outputs[Organelle.ACTIN])
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.info.provenance["scene"] == "2 (Image2)"
    with open_stack(outcomes[0].case.outputs[Organelle.ACTIN]) as stack:
        assert stack.info.times == 2
    assert not list((tmp_path / "out").glob(".*"))  # neither planes nor markers are left
    assert [outcome.status for outcome in go(tmp_path, resources)] == [Status.ALREADY_PREDICTED] * 3
    assert [outcome.case.scene for outcome in go(tmp_path, resources, scene=1, force=True)] == [1]


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (write_scenes, "found no scene 7, expected an index of 0 to 2"),
        (lambda path: write_scenes(path, SCENES[1:2], CHANNELS[1:2]), "found no scene 7, expected 0: it holds one"),
    ],
)
def test_a_scene_that_is_not_there(tmp_path: Path, resources: Path, write: Any, found: str) -> None:
    write(tmp_path / "in/a.ome.tif")
    (outcome,) = go(tmp_path, resources, scene=7)
    assert outcome.status is Status.FAILED and found in str(outcome.error)


def test_a_scene_that_fails_costs_no_other(tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path / "in/a.ome.tif", channels=(["DAPI", "GFP"], ["Brightfield"], ["DIC"]))
    messages: list[str] = []
    monkeypatch.setattr(command_line.log, "info", lambda text, *values: messages.append(text % values))
    monkeypatch.setattr(command_line.log, "error", lambda text, *values: messages.append(text % values))
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--device", "cpu", "--preview"]
    arguments += ["--resources", str(resources), "--preset", "fast"]
    assert command_line.main(arguments) == 1
    assert outputs(tmp_path) == ["a_scene1.tiff", "a_scene2.tiff"]
    said = "\n".join(messages)
    assert "a.ome.tif, scene 0: " in said and "none of them known as transmitted light" in said
    assert re.findall(r"\[1/1\] a.ome.tif, scene (\d)", said) == ["0", "1", "2"]
    assert "2 images predicted, 1 failed" in said and "1 of 3 images failed; the first: a.ome.tif, scene 0" in said
    assert "a_scene2" in (tmp_path / "out/preview/index.html").read_text()


def test_a_file_that_fails_loses_the_outputs_of_its_scenes(tmp_path: Path, resources: Path) -> None:
    path = write_scenes(tmp_path / "in/a.ome.tif")
    for options in (OutputOptions(), OutputOptions("merged"), OutputOptions(file_format="zarr")):
        go(tmp_path, resources, outputs=options)
    write_scenes(tmp_path / "in/a_scene9.ome.tif", SCENES[2:], CHANNELS[2:])  # another image with such a name
    path.write_bytes(path.read_bytes()[:3000])
    assert [outcome.status for outcome in go(tmp_path, resources)] == [Status.FAILED, Status.PREDICTED]
    assert outputs(tmp_path) == ["a_scene9.tiff"]
    assert [path.name for path in (tmp_path / "out").rglob("a_scene*.*") if "actin" not in str(path)] == (
        ["a_scene9.tiff"] * 3
    )


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2), (2, 3)])
def test_predictions_of_other_scenes_go(tmp_path: Path, resources: Path, before: int, after: int) -> None:
    for count in (before, after):
        write_scenes(tmp_path / "in/a.ome.tif", SCENES[3 - count :], CHANNELS[3 - count :])
        assert {outcome.status for outcome in go(tmp_path, resources)} == {Status.PREDICTED}
        names = [f"a_scene{n}.tiff" for n in range(count)] if count > 1 else ["a.tiff"]
        assert outputs(tmp_path) == names


def test_scenes_that_fail_remove_what_was_predicted_of_the_file(tmp_path: Path, resources: Path) -> None:
    write_scenes(tmp_path / "in/a.ome.tif", SCENES[2:], CHANNELS[2:])
    go(tmp_path, resources)
    path = write_scenes(tmp_path / "in/a.ome.tif", [SCENES[1], SCENES[2]], (["BF"], ["BF"]))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            page.tags["PhotometricInterpretation"].overwrite(tifffile.PHOTOMETRIC.MINISWHITE)
    assert [outcome.status for outcome in go(tmp_path, resources)] == [Status.FAILED] * 2
    assert outputs(tmp_path) == []


def test_another_image_with_the_name_of_a_scene_is_refused(tmp_path: Path, resources: Path) -> None:
    write_scenes(tmp_path / "in/a.ome.tif")
    write_scenes(tmp_path / "in/a_scene1.tif", SCENES[2:], CHANNELS[2:])
    failed, predicted = go(tmp_path, resources)
    assert predicted.status is Status.PREDICTED
    write_scenes(tmp_path / "b/in/a.ome.tif")
    write_scenes(tmp_path / "b/in/a_scene1.tif", SCENES[1:], CHANNELS[1:])  # which goes to a_scene1_scene0 and 1
    assert {outcome.status for outcome in go(tmp_path / "b", resources)} == {Status.PREDICTED}
    assert "found a_scene1.tif beside it, which is predicted into the same file as one of its 3" in str(failed.error)


KILLER = """
import os, signal
from model import batch
opened = batch.open_stack
def deadly(path, scene=None):
    if scene == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(path, scene)
batch.open_stack = deadly
from model.command_line import main
raise SystemExit(main())
"""


def test_a_scene_that_kills_costs_no_other(tmp_path: Path, resources: Path) -> None:
    write_scenes(tmp_path / "in/a.ome.tif")
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resources", str(resources)]
    command = [sys.executable, "-c", KILLER, *options, *FAST]
    codes = [subprocess.run(command, capture_output=True, timeout=60, cwd=ROOT).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 1]
    assert outputs(tmp_path) == ["a_scene0.tiff", "a_scene2.tiff"]
    last = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "2 runs ended while they predicted it, so it is left out" in last.stderr


@pytest.mark.parametrize("scene", [7, 1])
def test_a_wrong_scene_costs_no_former_prediction(tmp_path: Path, resources: Path, scene: int) -> None:
    write_scenes(tmp_path / "in/a.ome.tif")
    write_scenes(tmp_path / "in/b.ome.tif", SCENES[2:], CHANNELS[2:])
    go(tmp_path, resources)
    before = outputs(tmp_path)
    assert len(before) == 4
    statuses = [outcome.status for outcome in go(tmp_path, resources, scene=scene)]
    assert statuses == [Status.ALREADY_PREDICTED if scene == 1 else Status.FAILED, Status.FAILED]
    assert outputs(tmp_path) == before


def test_a_prediction_beside_its_input_is_no_other_image(tmp_path: Path, resources: Path) -> None:
    write_scenes(tmp_path / "in/a.ome.tif")
    outcomes = go(tmp_path, resources)
    shutil.copy(outcomes[1].case.outputs[Organelle.ACTIN], tmp_path / "in")
    statuses = [outcome.status for outcome in go(tmp_path, resources)]
    assert statuses == [Status.ALREADY_PREDICTED] * 3 + [Status.IS_PREDICTION]


def test_a_worker_that_ends_between_scenes_leaves_none_out(tmp_path: Path) -> None:
    case = Case(tmp_path / "a.nd2", "a.tiff", tmp_path)
    task = _Task(None, [case])  # type: ignore[arg-type]
    first, second, third = case.of_scenes(3, None)
    assert task.take(third) and task.take(first)  # one that was put off comes last
    assert not task.take(first)  # of the worker that began again
    assert list(task.waiting.elements()) == [case]
    assert task.take(second) and not list(task.waiting.elements())


def test_a_file_is_read_once_for_the_hash_of_all_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    hashed = files.file_sha256
    monkeypatch.setattr(files, "file_sha256", lambda path: (read.append(path), hashed(path))[1])
    path = tmp_path / "a"
    path.write_bytes(b"first")
    assert files.shared_sha256(path) == files.shared_sha256(path) and read == [path]
    (tmp_path / "b").write_bytes(b"other")
    for name in ("a", "b"):
        os.utime(tmp_path / name, (0, 0))
    shutil.copy2(tmp_path / "b", path)  # as long and as old, in the same place
    assert files.shared_sha256(path) == hashed(path)
