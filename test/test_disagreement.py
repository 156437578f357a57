"""How much rotations and scales disagree: a number, an image, and where both are recorded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference import Run, write_image

from model.disagreement import disagreement, disagreement_map
from model.images import inspect
from model.labels import Organelle


def test_the_number_is_relative_to_the_predictions_contrast() -> None:
    mean = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    std = torch.full((2, 2), 0.1)
    assert disagreement(mean, std) == pytest.approx(0.1 / np.sqrt(0.5))
    assert disagreement(mean / 2, std / 2) == pytest.approx(disagreement(mean, std))
    assert disagreement(mean, torch.zeros(2, 2)) == 0
    assert disagreement(torch.zeros(2, 2), std) == 0  # nothing is predicted at all


def test_the_map_has_a_fixed_scale_and_the_images_grid() -> None:
    std = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    np.testing.assert_array_equal(disagreement_map(std, (2, 2)), [[0, 16384], [32768, 65535]])
    assert disagreement_map(std, (9, 5)).shape == (9, 5)
    assert disagreement_map(None, (3, 2)).max() == 0


def test_each_output_and_the_log_say_the_number(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in/a.tiff")
    run = Run(tmp_path, resources, capsys, "--rotations", "4")
    numbers = {}
    for organelle in Organelle:
        recorded = inspect(tmp_path / f"out/images/{organelle}-fluorescence-ome-tiff/a.tiff").provenance
        numbers[organelle] = float(recorded["disagreement"])
    assert all(value > 0 for value in numbers.values())
    told = ", ".join(f"{organelle} {value:.2f}" for organelle, value in numbers.items())
    assert any(f"disagreement: {told}" in line for line in run.stdout)


def test_one_rotation_says_nothing(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in/a.tiff")
    run = Run(tmp_path, resources, capsys, "--rotations", "1")
    assert not any("disagree" in line for line in run.stdout)
    recorded = inspect(tmp_path / "out/images/actin-fluorescence-ome-tiff/a.tiff").provenance
    assert "disagreement" not in recorded
