"""Several devices behind one reader and one writer: the same bytes, the same log, and errors of one device."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from model import device_pool
from model.batch import Status, predict_cases
from model.batch_options import BatchOptions
from model.command_line import main
from model.determinism import deterministic_cudnn
from model.devices import find_devices
from model.discovery import discover
from model.errors import UserError
from model.images import write_plane
from model.plan import NetworkInputs, NetworkOutputs
from model.predictor import Predictor
from model.settings import InferenceSettings


def write_image(path: Path, shape: tuple[int, int] = (40, 33)) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    write_plane(path, pixels, channel="BF", pixel_size_um=(0.1, 0.1))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def open_two(resources: Path) -> list[Predictor]:
    settings = InferenceSettings(overlap=0, rotations=1)
    return [Predictor.open(resources, device=device, settings=settings) for device in find_devices("cpu,cpu")]


def test_two_devices_give_the_same_bytes_and_log_as_one(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(9):
        write_image(tmp_path / f"in/{number}.tiff", (40 + 30 * (number % 3), 33))
    (tmp_path / "in/4.tiff").write_bytes(b"no image")
    logs = []
    for devices in ("cpu", "cpu,cpu"):
        out = tmp_path / devices
        arguments = ["--input", tmp_path / "in", "--output", out, "--resources", resources, "--device", devices]
        assert main([*map(str, arguments), "--overlap", "0", "--rotations", "1"]) == 1
        written = capsys.readouterr()
        log = re.sub(r"[0-9.]+ s\b", "- s", written.out + written.err)
        logs.append(log.replace(str(out), "OUT").replace("on cpu, cpu,", "on cpu,").splitlines())
    assert logs[0] == logs[1]
    assert files(tmp_path / "cpu") == files(tmp_path / "cpu,cpu")
    assert len(files(tmp_path / "cpu")) == 4 * 8


def test_planes_are_computed_side_by_side(tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_image(tmp_path / f"in/{number}.tiff")
    together = threading.Barrier(2, timeout=60)
    forward = Predictor.forward

    def both(self: Predictor, inputs: NetworkInputs) -> NetworkOutputs:
        together.wait()  # breaks, and fails the image, unless a second one is there at the same time
        return forward(self, inputs)

    monkeypatch.setattr(Predictor, "forward", both)
    outcomes = list(predict_cases(discover(tmp_path / "in", tmp_path / "out"), open_two(resources), BatchOptions()))
    assert [outcome.status for outcome in outcomes] == [Status.PREDICTED] * 4


def test_a_device_that_fails_costs_one_image(tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        write_image(tmp_path / f"in/{number:02d}.tiff")
    predictors = open_two(resources)
    broken = predictors[1]
    forward = Predictor.forward

    def fail(self: Predictor, inputs: NetworkInputs) -> NetworkOutputs:
        if self is broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return forward(self, inputs)

    def computes(device: torch.device) -> bool:
        return False  # asked only about a device that failed

    monkeypatch.setattr(Predictor, "forward", fail)
    monkeypatch.setattr(device_pool, "computes", computes)
    outcomes = list(predict_cases(discover(tmp_path / "in", tmp_path / "out"), predictors, BatchOptions()))
    failed = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    assert len(outcomes) == 12 and len(failed) == 1 and "illegal memory access" in str(failed[0].error)


def test_an_error_of_one_image_leaves_both_devices_at_work(
    tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write_image(tmp_path / f"in/{number}.tiff", (40, 40 if number == 3 else 33))
    users: set[int] = set()
    forward = Predictor.forward

    def fail_once(self: Predictor, inputs: NetworkInputs) -> NetworkOutputs:
        if inputs.plan.shape == (40, 40):
            raise torch.OutOfMemoryError("out of memory")
        users.add(id(self))
        return forward(self, inputs)

    monkeypatch.setattr(Predictor, "forward", fail_once)
    predictors = open_two(resources)
    outcomes = list(predict_cases(discover(tmp_path / "in", tmp_path / "out"), predictors, BatchOptions()))
    assert [outcome.status is Status.FAILED for outcome in outcomes] == [number == 3 for number in range(8)]
    assert users == {id(predictor) for predictor in predictors}


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_devices("cpu, cpu") == [torch.device("cpu")] * 2
    with pytest.raises(UserError, match="'gpu'"):
        find_devices("cpu,gpu")
    # As on a workstation with two cards to compute and one for the screens.
    names = ["A", "A", "B"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    monkeypatch.setattr("model.devices.computes", lambda device: True)
    assert find_devices("auto") == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert find_devices("cuda:2") == [torch.device("cuda", 2)]
    with pytest.raises(UserError, match="The devices cuda:0,cuda:2 are A and B, expected devices of one model"):
        find_devices("cuda:0,cuda:2")


def test_settings_of_cudnn_last_until_the_last_thread_has_left() -> None:
    before = torch.backends.cudnn.deterministic
    assert not before
    first, second = deterministic_cudnn(), deterministic_cudnn()
    with first:
        second.__enter__()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.deterministic == before
