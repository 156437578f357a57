"""Which planes a run is validated on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import ONE_STEP, run, write_pairs

from model.images import write_plane
from model.labels import Modality
from model.normalization import InputNormalization
from model.preprocessing import Preprocessing
from training.check import check
from training.scan import scan
from training.validation import choose_planes, large_enough


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("cells"))


def test_validation_takes_turns_so_that_rare_labels_are_scored(data: Path) -> None:
    fields = check(scan([data]), Preprocessing(InputNormalization.LINEAR)).fields
    chosen = choose_planes(fields, 6, seed=0)
    assert len({(f.name, z) for f, z in chosen}) == 6
    assert {f.modality for f, _ in chosen} == set(Modality)
    assert len(choose_planes(fields, 999, seed=0)) == 18 and choose_planes((), 5, seed=0) == []


def test_planes_too_small_to_be_scored_are_left_out_by_name(data: Path) -> None:
    fields = scan([data]).fields
    preprocessing = Preprocessing(InputNormalization.LINEAR, (0.5, 0.5))  # 48 x 40 px of 0.1 x 0.11 µm: 10 x 9 px
    kept, skipped = large_enough(fields, preprocessing, stride=4)
    assert kept == fields and not skipped
    kept, skipped = large_enough(fields, preprocessing, stride=16)
    assert not kept and len(skipped) == sum(len(field.planes) for field in fields)
    assert skipped[0].reason == "is (10, 9) pixels on the network's grid, expected at least 32 a side to be scored"


def test_fields_too_small_to_be_scored_are_trained_on_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plane = np.arange(36, dtype=np.uint16).reshape(6, 6)
    for image in range(4):
        for name in ("BF_z0", "Nucleus"):
            write_plane(tmp_path / f"image_{image}_{name}.tif", plane, channel="x", pixel_size_um=None)
    run(tmp_path, tmp_path / "run", *ONE_STEP)
    told = capsys.readouterr()
    assert "is (6, 6) pixels on the network's grid, expected at least 8 a side to be scored" in told.err
    assert "no held-out plane can be scored" in told.out
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["module"]["steps"] == 1
