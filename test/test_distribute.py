"""Prediction by Dask workers on this machine: what a single process gives, also where workers die."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Client
from test_inference import FAST, ROOT, write_image

from model import command_line
from model.batch import Status
from model.batch_options import BatchOptions
from model.case import Case
from model.distribution import clusters, dispatch
from model.distribution.clusters import open_cluster, threads_per_worker
from model.distribution.command_line import main
from model.distribution.dispatch import Dispatcher, LostError, prepare_workers
from model.distribution.worker import WorkerOptions
from model.errors import UserError
from model.images import write_plane
from model.settings import InferenceSettings

DEADLY = str(ROOT / "test/deadly")
"""As PYTHONPATH: images of certain names kill the process that opens them, for real."""

FASTEST = InferenceSettings(overlap=0, rotations=1)


def given(folder: Path, resources: Path, output: str = "out") -> list[str]:
    return ["--input", str(folder / "in"), "--output", str(folder / output), "--resources", str(resources), *FAST]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tiff")}


def run(folder: Path, resources: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    threads = ["--cpus", str(torch.get_num_threads())]  # the bytes depend on it
    command = [sys.executable, str(ROOT / "distribute.py"), *given(folder, resources), *threads, *options]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=240, cwd=ROOT.parent
    )


def run_with_deaths(folder: Path, resources: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(folder, resources, *options, PYTHONPATH=DEADLY)


def single_process(folder: Path, resources: Path) -> int:
    return command_line.main(given(folder, resources, "single"))


def normalized(log: str) -> list[str]:
    """Lines in any order, without seconds, positions, folders and devices."""
    lines = re.sub(r"\d+\.\d s\b", "- s", re.sub(r"\[\d+/", "[-/", log)).splitlines()
    lines = [re.sub(r"(Output: ).*", r"\1-", re.sub(r"(networks from \S+ on ).*", r"\1-", line)) for line in lines]
    return sorted(lines)


def test_the_outputs_log_and_code_of_a_single_process(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "sub/c", os.fsdecode(b"\xff")):
        write_image(tmp_path / f"in/{name}.tiff")
    write_image(tmp_path / "in/unknown.tiff", channel="transmitted")  # with a warning
    (tmp_path / "in/broken.tiff").write_bytes(b"no image")
    assert single_process(tmp_path, resources) == 1
    single = capsys.readouterr()
    done = run(tmp_path, resources, "--workers", "2")
    assert done.returncode == 1
    assert normalized(done.stdout) == normalized(single.out)
    assert normalized(done.stderr) == normalized(single.err) and "unknown.tiff" in single.err
    assert files(tmp_path / "out") == files(tmp_path / "single") and len(files(tmp_path / "out")) == 4 * 5


def test_a_killed_worker_changes_nothing(tmp_path: Path, resources: Path) -> None:
    for name in ("a", "b", "c", "once", "p", "q"):
        write_image(tmp_path / f"in/{name}.tiff")
    done = run_with_deaths(tmp_path, resources, "--workers", "2")
    assert (tmp_path / "in/once.tiff.killed").exists()
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["A worker ended; what it was predicting is begun again."]
    assert re.search(
        r"\[6/6\].*\n.*6 images predicted, in|\[6/6\].*\n[1-5] images? predicted, [1-5] already", done.stdout
    )
    assert single_process(tmp_path, resources) == 0
    assert files(tmp_path / "out") == files(tmp_path / "single") and len(files(tmp_path / "out")) == 4 * 6
    assert not (tmp_path / "out/.attempts").exists()


@pytest.mark.slow
def test_an_image_that_kills_its_worker_is_named_and_the_others_are_done(tmp_path: Path, resources: Path) -> None:
    harmless = {"a", "b", "c", "x", "y", "z"}
    for name in (*harmless, "killer"):
        write_image(tmp_path / f"in/{name}.tiff")
    done = run_with_deaths(tmp_path, resources, "--workers", "2")
    assert done.returncode == 1
    deaths = [line for line in done.stderr.splitlines() if line.startswith("A worker ended")]
    assert len(deaths) == 2
    assert "1 of 7 images failed" in done.stderr.splitlines()[-1]
    assert "killer.tiff: 2 runs ended while they predicted it" in done.stderr.splitlines()[-1]
    assert {path.stem for path in (tmp_path / "out").rglob("*.tiff")} == harmless


@pytest.mark.slow
def test_the_shipped_networks_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "abcd":
        write_image(tmp_path / f"in/{name}.tiff")
    assert run(tmp_path, ROOT / "resources", "--workers", "2").returncode == 0
    assert single_process(tmp_path, ROOT / "resources") == 0
    assert files(tmp_path / "out") == files(tmp_path / "single") and len(files(tmp_path / "out")) == 4 * 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_marker(tmp_path: Path, resources: Path, number: signal.Signals) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcd":
        write_plane(tmp_path / f"in/{name}.tiff", np.eye(900, dtype=np.uint16), channel="BF", pixel_size_um=(0.1, 0.1))
    command = [sys.executable, str(ROOT / "distribute.py"), *given(tmp_path, resources), "--workers", "2"]
    options = ["--overlap", "0.8", "--rotations", "4"]  # takes minutes
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "out").glob(".attempts/*"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # as Ctrl-C does
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("Interrupted. The predictions written so far are complete")
    assert not (tmp_path / "out/.attempts").exists()


def options(**changes: Any) -> argparse.Namespace:
    defaults = {"workers": 2, "cpus": 3, "scheduler": None, "device": "auto"}
    return argparse.Namespace(**defaults | changes)


def what_a_worker_has() -> tuple[str, int]:
    return os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads()


def test_each_worker_has_a_gpu_and_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # Dask's nannies set it to 1 then
    with open_cluster(options()) as cluster, Client(cluster, set_as_default=False) as client:
        prepare_workers(client, threads_per_worker(options()))
        assert sorted(client.run(what_a_worker_has).values()) == [("3", 3), ("5", 3)]
        assert cluster.scheduler.allowed_failures == 32 and cluster.scheduler.WORKER_SATURATION == 1.0


def test_threads_are_divided_among_the_workers_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert threads_per_worker(options(cpus=None, workers=3)) == 5
    assert threads_per_worker(options(cpus=None, workers=99)) == 1
    assert threads_per_worker(options(cpus=None, scheduler="slurm")) == 4


@pytest.fixture
def dispatcher(resources: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    """With one worker, whose process is killed by an image of the name killer.tiff."""
    monkeypatch.setenv("PYTHONPATH", DEADLY)
    with open_cluster(options(workers=1)) as cluster, Client(cluster, set_as_default=False) as client:
        prepare_workers(client, 1)
        yield Dispatcher(client, cluster, 1, WorkerOptions(resources, "cpu", FASTEST, True, BatchOptions()))


def case(folder: Path, name: str) -> Case:
    return Case(folder / f"in/{name}.tiff", f"{name}.tiff", folder / "out")


def test_a_part_that_is_given_up_fails_with_its_images(tmp_path: Path, dispatcher: Dispatcher) -> None:
    for name in ("a", "killer", "z"):
        write_image(tmp_path / f"in/{name}.tiff")
    dispatcher._cluster.scheduler.allowed_failures = 0
    cases = [case(tmp_path, name) for name in ("a", "killer", "z")]
    first, second, third = dispatcher.outcomes(cases, 100)
    failed = {outcome.case: str(outcome.error) for outcome in (first, second, third) if outcome.error}
    assert {outcome.case for outcome in (first, second, third)} == set(cases)
    assert cases[1] in failed and all("workers ended while they predicted it" in text for text in failed.values())


def test_workers_without_the_device_are_the_end(dispatcher: Dispatcher, tmp_path: Path) -> None:
    write_image(tmp_path / "in/a.tiff")
    dispatcher._options = replace(dispatcher._options, device="cuda:99")
    with pytest.raises(UserError, match="The device 'cuda:99' is not there"):
        list(dispatcher.outcomes([case(tmp_path, "a")], 1))


def test_no_worker_and_none_that_comes_is_one_sentence(
    tmp_path: Path, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LOST_S", 0.5)
    (nanny,) = dispatcher._cluster.workers.values()
    dispatcher._cluster.sync(nanny.close)
    with pytest.raises(LostError, match="No worker is left"):
        list(dispatcher.outcomes([case(tmp_path, "a")], 1))


def test_a_scheduler_that_has_ended_is_one_sentence(
    tmp_path: Path, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "CLOSING_S", 1)  # it waits for the scheduler
    write_image(tmp_path / "in/a.tiff")
    outcomes = dispatcher.outcomes([case(tmp_path, "a")] * 99, 99)
    assert next(outcomes).status is Status.PREDICTED
    dispatcher._cluster.sync(dispatcher._cluster.scheduler.close)
    with pytest.raises(LostError, match="scheduler has ended"):
        list(outcomes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--device", "cuda:1"], "--device cuda:1: expected auto, cpu, cuda or mps"),
        (["--preview"], "--preview is not of this command"),
        (["--gpu"], "--gpu is for Slurm"),
        (["--partition", "gpu"], "are of jobs, expected --slurm"),
        (["--memory", "2GB"], "are of jobs, expected --slurm"),
        (["--resources", "nowhere"], "nowhere"),
    ],
)
def test_options_that_cannot_be_meant(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], message: str
) -> None:
    write_image(tmp_path / "in/a.tiff")
    assert main([*given(tmp_path, resources), "--workers", "1", *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_memory_that_is_no_size(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*given(tmp_path, resources), "--workers", "1", "--slurm", "--memory", "lots"])
    assert "found 'lots', expected a size such as 16GB" in capsys.readouterr().err


def test_without_dask_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['dask_jobqueue'] = None; from model.entry_points import distribute as d; sys.exit(d())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "distribute.py needs Dask: pip install dask dask-jobqueue distributed\n"
