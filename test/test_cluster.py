"""Prediction on a cluster: the array of docs/cluster.md, and Dask's jobs, on a real Slurm of one node."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from slurm_cluster import slurm
from test_distribute import DEADLY
from test_inference import FAST, ROOT, write_image

from model.command_line import main
from model.distribution import dispatch
from model.distribution.command_line import main as distribute
from model.images import write_plane

__all__ = ["slurm"]

APPTAINER = "apptainer exec --nv labelling.sif python3 /opt/app/inference.py"
LIMIT_S = 180


def write_images(folder: Path, count: int) -> set[str]:
    """Images that take some tenths of a second each, so that a process can be killed in the middle of them."""
    folder.mkdir()
    names = {f"{number:02d}" for number in range(count)}
    for number, name in enumerate(sorted(names)):
        pixels = np.random.default_rng(number).integers(0, 65536, (300, 300), dtype=np.uint16)
        write_plane(folder / f"{name}.tiff", pixels, channel="BF", pixel_size_um=(0.1, 0.1))
    return names


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tiff"))}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes(*words: str) -> list[int]:
    """Processes whose command line holds all these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if all(word in line for word in words):
            found.append(int(folder.name))
    return found


def script_of_the_page(command: str) -> str:
    """The sbatch script of docs/cluster.md, with another command in place of Apptainer's."""
    (script,) = re.findall(r"```bash\n(#!.*?)```", (ROOT / "docs/cluster.md").read_text(), flags=re.DOTALL)
    assert script.count(APPTAINER) == 1 and len(script.splitlines()) <= 10
    return script.replace(APPTAINER, command)


@pytest.mark.slow
def test_the_array_of_the_page_goes_on_where_a_task_was_killed(
    tmp_path: Path, resources: Path, slurm: dict[str, str]
) -> None:
    names = write_images(tmp_path / "images", 12)
    (tmp_path / "images.txt").write_text("".join(f"{name}.tiff\n" for name in sorted(names)))
    given = ["--resources", str(resources), *FAST]
    python = shlex.join([sys.executable, str(ROOT / "inference.py"), *given])
    (tmp_path / "job.sh").write_text(script_of_the_page(python))

    def call(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True).stdout.strip()

    def log(task: int) -> str:
        path = tmp_path / f"labelling_{task}.log"
        return path.read_text() if path.exists() else ""

    def ended() -> bool:
        return all("Output: predictions" in log(task) for task in (1, 2)) and not call("squeue", "-h", "-j", job)

    job = call("sbatch", "--parsable", "--array=1-2", "job.sh")
    output = tmp_path / "predictions"
    wait_for(lambda: "[2/" in log(1))
    (victim,) = processes(str(ROOT / "inference.py"), "--shard 1/2")
    os.kill(victim, signal.SIGKILL)
    # Slurm waits two minutes, as it revoked all credentials of the task up to the second of its end.
    wait_for(lambda: call("squeue", "-h", "-j", f"{job}_1", "-o", "%r") == "BeginTime" or log(1).count("Found") == 2)
    time.sleep(2)
    call("scontrol", "update", f"JobId={job}_1", "StartTime=now")
    wait_for(ended)
    first, second = log(1), log(2)
    assert "Killed" in first and first.count("Found") == 2, first
    assert re.search(r"\b2 already predicted|[3-9] already predicted", first), first
    assert second.count("Found") == 1, second
    assert not list(output.glob(".attempts"))
    single = tmp_path / "single"
    alone = [sys.executable, str(ROOT / "inference.py"), "--input", "images", "--output", "single", *given]
    subprocess.run(alone, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "4"}, check=True)  # as the page's tasks
    assert files(output) == files(single) and len(files(single)) == 4 * len(names)


JOBS = ["--workers", "2", "--slurm", "--partition", "main", "--memory", "2GB"]
THREADS = ["--cpus", str(torch.get_num_threads())]  # the bytes depend on it


@pytest.mark.slow
def test_jobs_of_dask_where_images_kill_their_workers(tmp_path: Path, resources: Path, slurm: dict[str, str]) -> None:
    harmless = ("a", "b", "c", "once", "p", "q", "r")
    for name in (*harmless, "killer"):
        write_image(tmp_path / f"in/{name}.tiff")
    given = ["--input", str(tmp_path / "in"), "--resources", str(resources), *FAST]
    command = [
        sys.executable,
        str(ROOT / "distribute.py"),
        *given,
        "--output",
        str(tmp_path / "out"),
        *JOBS,
        *THREADS,
        "--gpu",
    ]
    environment = slurm | {"PYTHONPATH": DEADLY}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "in/once.tiff.killed").exists()
    assert done.stderr.count("A worker ended") == 3  # once, and twice the image that always kills
    assert "killer.tiff: 2 runs ended while they predicted it" in done.stderr.splitlines()[-1]
    (tmp_path / "in/killer.tiff").unlink()
    assert main([*given, "--output", str(tmp_path / "single")]) == 0
    assert files(tmp_path / "out") == files(tmp_path / "single") and len(files(tmp_path / "out")) == 4 * len(harmless)
    wait_for(lambda: not subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_job_that_is_cancelled_is_replaced(tmp_path: Path, resources: Path, slurm: dict[str, str]) -> None:
    names = write_images(tmp_path / "in", 8)
    given = ["--input", str(tmp_path / "in"), "--resources", str(resources), *FAST]
    one = ["--workers", "1", *JOBS[2:]]
    command = [sys.executable, str(ROOT / "distribute.py"), *given, "--output", str(tmp_path / "out"), *one]
    process = subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list((tmp_path / "out").rglob("*.tiff")))
    subprocess.run(["scancel", "--user=root"], env=slurm, check=True)
    out, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors.count("A worker ended")) == (0, 1), out + errors
    assert "comes now, alone" not in out  # no image is suspected
    assert {path.stem for path in (tmp_path / "out").rglob("*.tiff")} == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        (["--partition", "nowhere"], 2, "The workers cannot be started: sbatch: error: invalid partition"),
        ([], 1, "No worker is left (a job's log is in the folder .jobs of the output folder)"),
    ],
)
def test_jobs_that_cannot_run_are_the_end(
    tmp_path: Path,
    resources: Path,
    slurm: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: list[str],
    code: int,
    message: str,
) -> None:
    write_image(tmp_path / "in/a.tiff")
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    monkeypatch.setattr(dispatch, "LOST_S", 3.0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")  # as on nodes without the environment
    given = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resources", str(resources)]
    assert distribute([*given, *JOBS, *wrong]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
