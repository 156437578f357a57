"""The script that trains all networks on one GPU, here in seconds on the CPU: stopped, continued, predicted with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from model.labels import Modality, Organelle
from model.predictor import Predictor
from model.routing import Route, Routing

SCRIPT = Path(__file__).parents[1] / "training/recipes/generalists/train.sh"
TINY = ("--width", "4", "--blocks", "1", "--crop", "32", "--device", "cpu", "--threads", "1")


def begin(output: Path, minutes: float) -> subprocess.Popen[str]:
    command = ["bash", str(SCRIPT), str(output), str(minutes), "2", *TINY]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.slow
def test_all_networks_by_one_command_that_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    output = tmp_path / "generalists"
    process = begin(output, 0.05)
    while not (output / "empty").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    cells = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    assert cells and not (output / "held_out").exists()
    process = begin(output, 0.05)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert all(path.stat().st_mtime_ns == written for path, written in cells.items())
    routing = Routing.read(output / "resources")
    for modality in Modality:
        names = (f"pix2pix-{modality.lower()}", "unetplusplus")
        assert routing.choose(modality, None) == {o: tuple(Route(name, o) for name in names) for o in Organelle}
    with Predictor.open(output / "resources", device="cpu") as predictor:
        assert "foreground" in predictor.checkpoints["unetplusplus"].notes
        image = np.arange(64**2, dtype=np.uint16).reshape(64, 64)
        assert predictor.predict(image, Modality.PC).keys() == set(Organelle)


@pytest.mark.slow
def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    output = tmp_path / "generalists"
    command = ["bash", str(SCRIPT), str(output), "0.05", "1", *TINY, "--crop", "7"]
    failed = subprocess.run(command, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"{output}/pix2pix_bf.log: --crop is 7, expected a multiple of 4, at least 24."
