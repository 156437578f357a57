"""A batch that dies of an image goes on behind it, and several processes share a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_inference import FAST, ROOT, Run, write_image

from model.attempts import Attempts
from model.case import Case
from model.errors import UserError

# Kills the process for real, where the name of the image that is opened says so.
KILLER = """
import os, signal
from model import batch
open_stack = batch.open_stack
def deadly(path, scene=None):
    if path.name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)
    return open_stack(path, scene)
batch.open_stack = deadly
from model.command_line import main
raise SystemExit(main())
"""


def command(folder: Path, resources: Path, *options: str) -> list[str]:
    given = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--resources", str(resources)]
    return [*given, *FAST, *options]


def deadly_run(folder: Path, resources: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", KILLER, *command(folder, resources, *options)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=ROOT)


def predicted(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "out").rglob("*.tiff")}


def markers(folder: Path) -> list[Path]:
    return sorted((folder / "out/.attempts").glob("*"))


def case(folder: Path, name: str = "a") -> Case:
    return Case(folder / f"in/{name}.tiff", f"{name}.tiff", folder / "out")


def test_each_image_that_kills_costs_two_deaths_and_is_named(tmp_path: Path, resources: Path) -> None:
    harmless = {"a", "b", "c", "l", "m", "z"}
    for name in (*harmless, "killer1", "killer2"):
        write_image(tmp_path / f"in/{name}.tiff")
    deaths = 0
    while (run := deadly_run(tmp_path, resources)).returncode == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 4, run.stdout
    assert deaths == 4
    assert run.returncode == 1
    assert predicted(tmp_path) == harmless
    lines = run.stderr.splitlines()
    assert [line for line in lines if "killer1.tiff: 2 runs ended while they predicted it" in line]
    assert "2 of 8 images failed" in lines[-1]
    # Named again without being touched; and tried again once its marker is deleted.
    again = deadly_run(tmp_path, resources)
    assert again.returncode == 1 and "2 already predicted" not in again.stdout
    for marker in markers(tmp_path):
        assert str(marker) in again.stderr
        marker.unlink()
    assert deadly_run(tmp_path, resources).returncode == -signal.SIGKILL


def test_markers_go_with_their_images(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in/a.tiff")
    (tmp_path / "in/b.tiff").write_bytes(b"no image")
    assert Run(tmp_path, resources, capsys).code == 1
    assert not (tmp_path / "out/.attempts").exists()


def test_an_image_that_another_process_predicts_is_left_to_it(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write_image(tmp_path / f"in/{name}.tiff")
    other = Attempts()
    assert other.begin(case(tmp_path))
    run = Run(tmp_path, resources, capsys)
    assert run.code == 0
    assert predicted(tmp_path) == {"b"}
    assert any("1 left to another process that predicts it" in line for line in run.stdout)
    other.end(case(tmp_path))
    assert Run(tmp_path, resources, capsys).code == 0
    assert predicted(tmp_path) == {"a", "b"}


def test_two_processes_on_one_folder_divide_its_images(tmp_path: Path, resources: Path) -> None:
    names = {f"{number:02d}" for number in range(16)}
    for name in names:
        write_image(tmp_path / f"in/{name}.tiff")
    arguments = [sys.executable, str(ROOT / "inference.py"), *command(tmp_path, resources)]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, ""), out
    assert predicted(tmp_path) == names
    assert not (tmp_path / "out/.attempts").exists()


def test_attempts_are_counted_and_forgotten_where_planes_were_done(tmp_path: Path) -> None:
    def die(attempts: Attempts) -> None:
        attempts._open[case(tmp_path)].close()  # as the system does with a process that ends

    first = Attempts()
    assert first.begin(case(tmp_path))
    assert not Attempts().begin(case(tmp_path)) and not Attempts().begin_alone(case(tmp_path))
    die(first)
    second = Attempts()
    assert not second.begin(case(tmp_path)) and second.begin_alone(case(tmp_path))
    second.progressed(case(tmp_path))
    die(second)
    third = Attempts()
    assert third.begin_alone(case(tmp_path))
    die(third)
    with pytest.raises(UserError, match=r"a\.tiff: 2 runs ended while they predicted it, so it is left out; delete"):
        Attempts().begin_alone(case(tmp_path))


def test_an_orderly_end_is_no_fault_of_an_image(tmp_path: Path) -> None:
    attempts = Attempts()
    assert attempts.begin(case(tmp_path)) and attempts.begin(case(tmp_path, "b"))
    attempts.close()
    assert not attempts.begin(case(tmp_path))  # what it still reads ahead is not marked again
    other = Attempts()
    assert other.begin(case(tmp_path))
    other.close()
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("link", [False, True])
def test_a_marker_that_cannot_be_written_is_the_error_of_its_image(tmp_path: Path, link: bool) -> None:
    place = tmp_path / "out/.attempts"
    place.parent.mkdir()
    place.symlink_to("nowhere") if link else place.write_text("no folder")
    with pytest.raises(UserError, match=r"\.attempts/[0-9a-f]{32}: it cannot be written"):
        Attempts().begin(case(tmp_path))
