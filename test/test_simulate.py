"""The command `simulate.py`: layout, focus.csv, metadata, determinism, and failures in one sentence."""

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from model.images import inspect, read_image
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse
from simulation import command_line as simulate
from simulation.study import CHALLENGE_LABELS, draw_foci

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--size", "24", "--planes", "2", "--workers", "1"]


def run(output: Path, *options: str) -> int:
    return simulate.main(["--output", str(output), *TINY, *options])


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*.tiff"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of two fields, every modality, all labels; read only."""
    folder = tmp_path_factory.mktemp("simulated") / "data"
    assert run(folder, "--fields", "3", "--fields-per-study", "2", "--seed", "7", "--planes", "3") == 0
    return folder


def test_the_layout_is_the_challenges(data: Path) -> None:
    names: dict[int, list[InputName | TargetName]] = {}
    for path in data.rglob("*.tiff"):
        name = parse(path.name)
        assert name is not None, path
        assert path.parent.name.startswith("Study_")
        names.setdefault(name.image, []).append(name)
    assert sorted(names) == list(range(1, 10))
    for found in names.values():
        assert sorted(name.z for name in found if isinstance(name, InputName)) == [0, 1, 2]
        assert {name.organelle for name in found if isinstance(name, TargetName)} == set(Organelle)
    assert sorted(path.name for path in data.iterdir()) == sorted(
        [*(f"Study_{number}" for number in range(1, 7)), "focus.csv", "SIMULATED.json"]
    )


def test_focus_csv_lists_every_plane_and_the_best_one(data: Path) -> None:
    with (data / "focus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "modality", "image_z", "best_z"]
    planes = {str(path.relative_to(data)) for path in data.rglob("*_z*.tiff")}
    assert {row["name"] for row in rows} == planes
    best: dict[int, set[int]] = {}
    for row in rows:
        name = parse(Path(row["name"]).name)
        assert isinstance(name, InputName)
        assert (name.modality, name.z) == (row["modality"], int(row["image_z"]))
        best.setdefault(name.image, set()).add(int(row["best_z"]))
    assert all(len(found) == 1 and found < {0, 1, 2} for found in best.values())


def test_the_best_z_is_that_of_the_drawn_foci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def remember(*arguments: object) -> np.ndarray:
        drawn.append(draw_foci(*arguments))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr("simulation.study.draw_foci", remember)
    for number in range(4):
        job = simulate.RenderJob(tmp_path, number, Modality.BF, 0, number, 0, "low", 8, 5, "all")
        rows = simulate.render_job(job)
        assert {best for *_, best in rows} == {int(np.abs(drawn[-1]).argmin())}
        assert [z for _, _, z, _ in rows] == list(range(5))


def test_metadata_states_pixel_size_channel_and_that_it_is_simulated(data: Path) -> None:
    sizes = set()
    for path in data.rglob("*.tiff"):
        plane, name = read_image(path), parse(path.name)
        assert plane.pixels.shape == (24, 24)
        assert plane.info.pixel_size_um is not None
        assert 0.06 <= plane.info.pixel_size_um[0] == plane.info.pixel_size_um[1] <= 0.16
        sizes.add((path.parent, plane.info.pixel_size_um))
        if isinstance(name, InputName):
            assert plane.info.channel == plane.info.modality == name.modality
        else:
            assert isinstance(name, TargetName)
            assert plane.info.channel == name.organelle.label
        provenance = inspect(path).provenance
        assert provenance["origin"] == "simulated cells"
        assert provenance["seed"] == "7"
    assert len(sizes) == 6, "one pixel size a study"
    marker = json.loads((data / "SIMULATED.json").read_text())
    assert marker["trained_on"] == "simulated cells"
    assert marker["options"]["seed"] == "7"
    assert marker["options"]["modalities"] == "BF PC DIC"


def test_bytes_follow_from_the_seed_and_not_from_the_workers(tmp_path: Path) -> None:
    options = ("--modalities", "BF", "--fields", "3", "--fields-per-study", "2")
    for name, extra in {"one": ("--workers", "1"), "two": ("--workers", "2"), "other": ("--seed", "1")}.items():
        assert run(tmp_path / name, *options, *extra) == 0
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert (tmp_path / "one/focus.csv").read_bytes() == (tmp_path / "two/focus.csv").read_bytes()
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


def test_a_field_does_not_depend_on_how_many_follow(data: Path, tmp_path: Path) -> None:
    options = ("--modalities", "BF", "--fields", "1", "--seed", "7", "--planes", "3")
    assert run(tmp_path / "short", *options) == 0
    short, long = digests(tmp_path / "short"), digests(data)
    assert short.items() <= long.items()


def test_labels_all_and_challenge_differ_in_files_only(tmp_path: Path) -> None:
    options = ("--fields", "3", "--fields-per-study", "1", "--size", "4", "--planes", "1")
    assert run(tmp_path / "challenge", *options, "--labels", "challenge") == 0
    modality: dict[int, Modality] = {}
    found: dict[int, set[Organelle]] = {}
    for path in (tmp_path / "challenge").rglob("*.tiff"):
        name = parse(path.name)
        if isinstance(name, InputName):
            modality[name.image] = name.modality
        elif name is not None:
            found.setdefault(name.image, set()).add(name.organelle)
    labels = {(image, modality[image]): organelles for image, organelles in found.items()}
    assert len(labels) == 9
    for (_, contrast), organelles in labels.items():
        assert frozenset(organelles) in CHALLENGE_LABELS[contrast]
        assert contrast is not Modality.DIC or Organelle.ACTIN not in organelles
    assert len({frozenset(organelles) for organelles in found.values()}) > 2
    assert run(tmp_path / "all", *options, "--modalities", "BF") == 0
    partial = {name: digest for name, digest in digests(tmp_path / "challenge").items() if "_BF_" in name}
    assert partial.items() <= digests(tmp_path / "all").items()


def test_low_magnification_has_coarse_pixels(tmp_path: Path) -> None:
    assert run(tmp_path / "low", "--setting", "low", "--fields", "1", "--modalities", "PC", "PC") == 0
    files = sorted((tmp_path / "low").rglob("*.tiff"))
    assert len(files) == 2 + 4, "a modality named twice is rendered once"
    pixel_size = read_image(files[0]).info.pixel_size_um
    assert pixel_size is not None
    assert 0.25 <= pixel_size[0] <= 0.35


# --- failures ------------------------------------------------------------------------------------------------------


def fails(output: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one sentence that a failing run leaves on stderr."""
    assert run(output, "--fields", "1", "--modalities", "BF", *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "field/s" not in line and line.strip()]
    assert len(lines) == 1
    assert not (output / "SIMULATED.json").exists()
    return lines[0]


def test_an_output_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "not empty" in fails(tmp_path, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_output_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in fails(tmp_path / "file", capsys)


def test_a_full_disk_ends_the_run_without_marker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # the workers are forked, and inherit it
    assert "no space left on the disk" in fails(tmp_path / "new", capsys)
    assert not list((tmp_path / "new").rglob("*.tiff")), "no half-written file is left"


def die(job: simulate.RenderJob) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def starve(*_: object) -> None:
    raise MemoryError


def test_a_killed_worker_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "render_job", die)
    assert "a worker was killed" in fails(tmp_path / "new", capsys)


def test_a_field_too_large_for_memory_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "render", starve)
    assert "does not fit in memory" in fails(tmp_path / "new", capsys)


@pytest.mark.parametrize(
    "options",
    [
        ("--size", "0"),
        ("--size", "12.5"),
        ("--fields", "-1"),
        ("--planes", "none"),
        ("--workers", "0"),
        ("--seed", "-1"),
        ("--modalities", "XX"),
        ("--labels", "some"),
        ("--setting", "high"),
        ("--fields-per-study", "0"),
    ],
)
def test_bad_options_are_refused(options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "new", *options)
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_marker_and_no_half_file(tmp_path: Path, ending: signal.Signals) -> None:
    output = tmp_path / "new"
    command = [
        sys.executable,
        str(ROOT / "simulate.py"),
        "--output",
        str(output),
        *TINY,
        "--fields",
        "2000",
        "--seed",
        "1",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in its background ignores Ctrl-C, and so would all that these tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not list(output.rglob("*.ome.tiff")) and time.monotonic() < deadline:
            time.sleep(0.05)
        # Ctrl-C reaches the whole group, the out-of-memory killer one process.
        os.killpg(process.pid, ending)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert list(output.rglob("*.ome.tiff"))
    assert not (output / "SIMULATED.json").exists()
    assert not (output / "focus.csv").exists()
    if ending != signal.SIGKILL:
        assert process.returncode == 130
        assert "incomplete" in errors
        assert "Traceback" not in errors
    for path in output.rglob("*.ome.tiff"):
        with tifffile.TiffFile(path) as file:
            assert file.asarray().shape == (24, 24)
