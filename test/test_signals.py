"""SIGINT and SIGTERM at any moment: the process ends soon, says so, and leaves whole cases."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_inference import FOLDERS, ROOT, write_image

from model import entry_points
from model.entry_points import interrupts_noted
from model.images import read_image, write_plane

SIGNALS = [signal.SIGINT, signal.SIGTERM]
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what a process handles from /proc")


def handles(process: int, number: signal.Signals) -> bool:
    (line,) = (s for s in Path(f"/proc/{process}/status").read_text().splitlines() if s.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def start(script: str, folder: Path, resources: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / script), "--input", str(folder / "in"), "--output", str(folder / "out")]
    return subprocess.Popen(
        [*command, "--resources", str(resources), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@linux
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("script", ["inference.py", "serve.py"])
@pytest.mark.parametrize("delay_s", [0, 0.3, 0.8])
def test_a_signal_while_modules_are_imported(
    tmp_path: Path, resources: Path, script: str, number: signal.Signals, delay_s: float
) -> None:
    (tmp_path / "in").mkdir()
    process = start(script, tmp_path, resources)
    try:
        while not handles(process.pid, signal.SIGTERM):  # before that, Python itself has not begun
            assert process.poll() is None
        time.sleep(delay_s)
        if process.poll() is not None:
            pytest.skip("it had ended before")
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)  # Docker kills then
        if process.returncode not in (2, 0):  # it may have ended by itself just before
            assert process.returncode == 130
            assert len(errors.splitlines()) == 1 and errors.startswith("Interrupted")
        elif delay_s == 0:
            pytest.fail(f"the signal was lost: {process.returncode} {errors}")
    finally:
        process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_networks_compute(tmp_path: Path, resources: Path, number: signal.Signals) -> None:
    write_image(tmp_path / "in" / "a.tiff")
    pixels = np.random.default_rng(0).integers(0, 65536, (3000, 3000)).astype(np.uint16)
    write_plane(tmp_path / "in" / "b.tiff", pixels, channel="BF", pixel_size_um=(0.1, 0.1))
    process = start("inference.py", tmp_path, resources, "--device", "cpu")  # tiles of 32 px: takes minutes
    try:
        done = tmp_path / "out" / "images" / FOLDERS[-1] / "a.tiff"
        deadline = time.monotonic() + 60
        while not done.is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)  # Docker kills then
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors == "Interrupted. The predictions written so far are complete; the same command continues.\n"
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written == sorted(Path("images") / folder / "a.tiff" for folder in FOLDERS)
    assert all(read_image(tmp_path / "out" / path).pixels.shape == (40, 33) for path in written)


def test_a_signal_between_steps_is_noted_and_a_late_second_one_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interrupts_noted() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # sent with the first one
        assert interrupted()
        monkeypatch.setattr(entry_points, "FINISHING_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


@linux
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("script", ["train.py", "simulate.py", "evaluate.py", "experiment.py"])
def test_a_signal_while_other_commands_are_imported(tmp_path: Path, script: str, number: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / script), "--no-such-option"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        while not handles(process.pid, signal.SIGTERM):
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "Interrupted; nothing was begun.\n")


def test_a_package_that_is_not_installed_is_named() -> None:
    code = "import sys; sys.modules |= dict(tyro=None, skimage=None)\n"
    code += "from model.entry_points import run; sys.exit(run('{}'))"
    for module, expected in (
        ("training.command_line", (2, "This command needs tyro: `make test` installs it.")),
        ("evaluation.command_line", (2, "This command needs skimage: `make test` installs it.")),
        ("training.no_such_module", (1, "ModuleNotFoundError: No module named 'training.no_such_module'")),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(module)], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr.splitlines()[-1]) == expected


def test_what_starts_first_imports_nothing_slow() -> None:
    code = "import sys, model.entry_points; print(sorted({'torch', 'numpy', 'tifffile'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
