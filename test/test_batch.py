"""Many cases through one predictor: order, errors, what is there already, and being stopped."""

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import TINY_METADATA, write_resources
from test_inference import FAST, ROOT, write_image

from model import batch, outputs
from model.batch import Outcome, Status, predict_cases
from model.batch_options import BatchOptions
from model.discovery import discover
from model.errors import UserError
from model.images import inspect, read_image, write_plane
from model.labels import Modality, Organelle
from model.predictor import Predictor
from model.settings import InferenceSettings

AS_EVER = BatchOptions()


def go(folder: Path, resources: Path, batch_options: BatchOptions = AS_EVER, *, overlap: float = 0) -> list[Outcome]:
    cases = discover(folder / "in", folder / "out")
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=overlap, rotations=1)) as predictor:
        return list(predict_cases(cases, [predictor], batch_options))


def times_written(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted((folder / "out").rglob("*.tiff"))}


def test_outcomes_come_in_the_order_of_the_cases_once_they_are_written(tmp_path: Path, resources: Path) -> None:
    for name in "abcde":
        write_image(tmp_path / f"in/{name}.tiff")
    (tmp_path / "in/c.tiff").write_bytes(b"no image")
    cases = discover(tmp_path / "in", tmp_path / "out")
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0, rotations=1)) as predictor:
        names = []
        for outcome in predict_cases(cases, [predictor], BatchOptions()):
            names.append(outcome.case.source.stem)
            assert isinstance(outcome.error, UserError) == (names[-1] == "c")
            assert all(path.is_file() != (names[-1] == "c") for path in outcome.case.outputs.values())
    assert names == list("abcde")


def test_no_case_at_all(tmp_path: Path, resources: Path) -> None:
    with Predictor.open(resources, device="cpu") as predictor:
        assert list(predict_cases([], [predictor], BatchOptions())) == []


def test_a_write_that_fails_is_the_outcome_of_its_own_case(tmp_path: Path, resources: Path) -> None:
    for name in "abc":
        write_image(tmp_path / f"in/{name}.tiff")
    blocked = discover(tmp_path / "in", tmp_path / "out")[1].outputs[Organelle.ACTIN]
    blocked.mkdir(parents=True)
    outcomes = go(tmp_path, resources)
    assert [outcome.message == "failed" for outcome in outcomes] == [False, True, False]
    assert str(blocked) in str(outcomes[1].error)


def test_what_is_there_is_not_made_again(tmp_path: Path, resources: Path) -> None:
    for name in "ab":
        write_image(tmp_path / f"in/{name}.tiff")
    go(tmp_path, resources)
    before = times_written(tmp_path)
    assert all(outcome.message.endswith("already predicted") for outcome in go(tmp_path, resources))
    assert times_written(tmp_path) == before
    assert not any("already" in outcome.message for outcome in go(tmp_path, resources, BatchOptions(force=True)))
    assert all(made > before[name] for name, made in times_written(tmp_path).items())


def test_other_settings_checkpoints_or_inputs_are_predicted_anew(tmp_path: Path, resources: Path) -> None:
    image = write_image(tmp_path / "in/a.tiff", channel="transmitted")

    def made_anew(*arguments: object, **options: object) -> bool:
        (outcome,) = go(tmp_path, *arguments, **options)  # type: ignore[arg-type]
        assert outcome.error is None
        return "already" not in outcome.message

    assert made_anew(resources, BatchOptions(Modality.BF))
    assert not made_anew(resources, BatchOptions(Modality.BF))
    assert made_anew(resources, BatchOptions(Modality.PC))
    assert made_anew(resources, BatchOptions(Modality.PC), overlap=0.5)
    changed = {"pix2pix-pc": replace(TINY_METADATA, trained_on="more")}
    others = write_resources(tmp_path / "others", changed)
    assert made_anew(others, BatchOptions(Modality.PC), overlap=0.5)
    assert not made_anew(others, BatchOptions(Modality.PC), overlap=0.5)
    write_image(image, channel="transmitted", pixel_size_um=(0.2, 0.2))
    assert made_anew(others, BatchOptions(Modality.PC), overlap=0.5)


@pytest.mark.parametrize("damage", ["absent", "truncated", "foreign", "pixels"])
def test_a_case_with_one_bad_output_is_made_again(tmp_path: Path, resources: Path, damage: str) -> None:
    write_image(tmp_path / "in/a.tiff")
    (outcome,) = go(tmp_path, resources)
    path = outcome.case.outputs[Organelle.TUBULIN]
    whole = path.read_bytes()
    match damage:
        case "absent":
            path.unlink()
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "foreign":
            write_image(path)
        case "pixels":  # the header is sound, and says what made it
            with tifffile.TiffFile(path) as tiff:
                offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
            middle = offset + count // 2
            path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    go(tmp_path, resources)
    assert path.read_bytes() == whole


def test_predictions_are_no_inputs_whatever_they_are_called(tmp_path: Path, resources: Path) -> None:
    write_image(tmp_path / "in/cells_BF_1.ome.tif")
    (first,) = go(tmp_path, resources)
    for organelle, path in first.case.outputs.items():
        shutil.copy(path, tmp_path / f"in/exported_{organelle}_BF_.tiff")
        shutil.copytree(path.parent, tmp_path / f"in/former/{organelle}")
    outcomes = go(tmp_path, resources)
    assert [outcome.case.source.name for outcome in outcomes if outcome.status is Status.ALREADY_PREDICTED] == [
        "cells_BF_1.ome.tif"
    ]
    others = [outcome for outcome in outcomes if outcome.status is not Status.ALREADY_PREDICTED]
    assert len(others) == 8
    assert {outcome.message for outcome in others} == {"skipped: a prediction of this program"}
    assert not any(outcome.error for outcome in others)
    assert len(list((tmp_path / "out").rglob("*.tiff"))) == 4


def test_simulated_images_are_inputs(tmp_path: Path, resources: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 33), dtype=np.uint16)
    origin = {"origin": "simulated cells", "seed": "0"}
    write_plane(tmp_path / "in/a.tiff", pixels, channel="BF", pixel_size_um=(0.1, 0.1), provenance=origin)
    assert [outcome.status for outcome in go(tmp_path, resources)] == [Status.PREDICTED]


@pytest.mark.parametrize("fault", ["damaged", "strict", "network", "write"])
def test_a_failed_case_leaves_no_output_not_even_of_an_earlier_run(
    tmp_path: Path, resources: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(tmp_path / "in/a.tiff")
    write_image(tmp_path / "in/b.tiff")
    go(tmp_path, resources)
    options = BatchOptions(force=True)
    match fault:
        case "damaged":
            image.write_bytes(image.read_bytes()[:300])
        case "strict":
            write_image(image, channel="transmitted")
            options = BatchOptions(strict=True)
        case "network":
            image.write_bytes(image.read_bytes() + b" ")
            options = BatchOptions()

            def fails(*arguments: object) -> None:
                raise MemoryError

            monkeypatch.setattr(Predictor, "forward", fails)
        case "write":
            write = outputs.write_plane
            options = BatchOptions(force=True)

            def disk_full(path: Path, *arguments: object, **options: object) -> None:
                if path.name == "a.tiff" and "tubulin" in str(path):
                    raise UserError(f"{path}: it cannot be written (no space left on the disk).")
                write(path, *arguments, **options)  # type: ignore[arg-type]

            monkeypatch.setattr(outputs, "write_plane", disk_full)
    failed, other = go(tmp_path, resources, options)
    assert failed.status is Status.FAILED and failed.error is not None and other.error is None
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == ["b.tiff"] * 4


def test_the_provenance_says_which_bytes_were_predicted(tmp_path: Path, resources: Path) -> None:
    image = write_image(tmp_path / "in/a.tiff")
    (outcome,) = go(tmp_path, resources)
    for path in outcome.case.outputs.values():
        assert inspect(path).provenance["input_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()


def test_the_next_is_read_and_the_last_is_written_while_one_is_predicted(
    tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        write_image(tmp_path / f"in/{name}.tiff")
    events: list[str] = []
    read, write, predict = batch._Batch._read, batch.write_case, Predictor.forward

    def slow_read(self, case, *rest):  # type: ignore[no-untyped-def]
        events.append(f"read {case.source.stem}")
        return read(self, case, *rest)

    def slow_write(job):  # type: ignore[no-untyped-def]
        write(job)
        events.append(f"written {job.case.source.stem}")

    def slow_predict(self, *arguments, **options):  # type: ignore[no-untyped-def]
        time.sleep(0.3)  # long against the reading and writing of such small images
        events.append("predicted")
        return predict(self, *arguments, **options)

    monkeypatch.setattr(batch._Batch, "_read", slow_read)
    monkeypatch.setattr(batch, "write_case", slow_write)
    monkeypatch.setattr(Predictor, "forward", slow_predict)
    go(tmp_path, resources)
    assert events.index("read b") < events.index("predicted") < events.index("read c")  # ahead, but by one only
    second = [place for place, event in enumerate(events) if event == "predicted"][1]
    assert events.index("written a") < second


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_killed_at_any_moment_leaves_whole_files_and_goes_on(
    tmp_path: Path, resources: Path, blow: signal.Signals
) -> None:
    names = [f"{number:02d}" for number in range(12)]
    for name in names:
        write_image(tmp_path / f"in/{name}.tiff")
    command = [sys.executable, str(ROOT / "inference.py"), "--input", str(tmp_path / "in"), "--resources"]
    command += [str(resources), *FAST, "--output", str(tmp_path / "out")]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").rglob("*.tiff"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(blow)
    killed.send_signal(blow)  # as make, docker and shells may do
    _, errors = killed.communicate(timeout=30)
    if blow is signal.SIGTERM:
        assert killed.returncode in (0, 130)  # 0 where all was done just before
        assert "Traceback" not in errors
    written = list((tmp_path / "out").rglob("*.tiff"))
    assert len(written) >= 6
    if blow is signal.SIGTERM:  # all four of a case, or none
        assert set(Counter(path.stem for path in written).values()) == {4}
    for path in written:
        assert read_image(path).pixels.shape == (40, 33)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already predicted" in done.stdout
    assert len(list((tmp_path / "out").rglob("*.tiff"))) == 4 * len(names)
    assert np.unique([path.stem for path in (tmp_path / "out").rglob("*.tiff")]).tolist() == names
