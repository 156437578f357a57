"""The foreground branch: what it learns from, and the command that puts it into checkpoints."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METADATA

from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.commands import DONE, NOT_BEGUN
from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import build
from model.normalization import InputNormalization, TargetNormalization
from simulation.specimen_store import write_specimen
from training import foreground
from training.foreground import BLOCK, REACH, main, near_structures

PC = replace(
    TINY_METADATA,
    architecture=Architecture("resnet", 4, blocks=1),
    input_normalization=InputNormalization.FLATFIELD,
    target_normalization=TargetNormalization.PERCENTILE,
    pixel_size_um=(0.25, 0.35),
    modalities=(Modality.PC,),
    labels={Modality.PC: tuple(Organelle)},
)


def saved(path: Path, metadata: CheckpointMetadata = PC) -> Path:
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, build(metadata.architecture), metadata)
    return path


def test_blocks_near_a_structure_are_foreground_and_those_of_its_organelle_alone() -> None:
    targets = torch.full((1, 4, 64, 64), -0.75)
    targets[0, 1, 20, 44] = 0.25
    targets[0, 2] += 0.05  # haze
    found = near_structures(targets)
    assert found.shape == (1, 4, 8, 8) and found[0, [0, 2, 3]].sum() == 0
    for row in range(8):
        for column in range(8):
            near = all(
                BLOCK * block - REACH <= pixel < BLOCK * (block + 1) + REACH
                for block, pixel in ((row, 20), (column, 44))
            )
            assert bool(found[0, 1, row, column]) == near


def test_one_branch_is_put_into_several_checkpoints_and_leaves_their_generators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "CROP", 32)
    for number, setting in enumerate(("ordinary", "empty"), start=1):
        write_specimen(tmp_path / f"specimen_{number}.safetensors", setting, 128, np.random.default_rng(number))  # type: ignore[arg-type]
    wide = replace(PC, architecture=Architecture("resnet", 6, blocks=1, upsampling="resize", foreground=True))
    wide = replace(
        wide, modalities=(Modality.BF,), labels={Modality.BF: tuple(Organelle)}
    )  # so all modalities are seen
    files = [saved(tmp_path / "in" / "narrow.safetensors"), saved(tmp_path / "in" / "wide.safetensors", wide)]
    before = [file.read_bytes() for file in files]
    options = ["--specimens", str(tmp_path), "--output", str(tmp_path / "out"), "--minutes", "0.02", "--seed", "3"]
    assert main(["--checkpoint", *map(str, files), *options]) == DONE
    assert [file.read_bytes() for file in files] == before
    branches = []
    for file in files:
        (old, _), (new, metadata) = checkpoint.load(file), checkpoint.load(tmp_path / "out" / file.name)
        generator = {k: v for k, v in old.state_dict().items() if not k.startswith("foreground.")}
        assert all(torch.equal(value, new.state_dict()[key]) for key, value in generator.items())
        assert metadata.architecture == replace(old.architecture, foreground=True)
        note = json.loads(metadata.notes["foreground"])
        assert note["steps"] > 0 and (note["seed"], note["minutes"]) == (3, 0.02)
        branches.append({k: v for k, v in new.state_dict().items() if k.startswith("foreground.")})
    assert all(torch.equal(value, branches[1][key]) for key, value in branches[0].items())
    assert branches[0]["foreground.last.weight"].abs().max() > 0  # it was zero at the start
    assert float(branches[0]["foreground.kept_from"]) == pytest.approx(math.log(0.2 / 0.8))
    given, out = tmp_path / "out" / files[0].name, tmp_path / "again"
    options = ["--output", str(out), "--kept-from", "0.5", "--minutes"]
    assert main(["--checkpoint", str(given), "--specimens", str(tmp_path), *options, "1e-9"]) == DONE
    goes_on = checkpoint.load(out / files[0].name)[0].state_dict()
    assert all(torch.equal(goes_on[k], v) for k, v in branches[0].items() if k != "foreground.kept_from")
    assert goes_on["foreground.kept_from"] == 0


def test_without_minutes_the_first_branch_is_copied_with_another_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    branched = replace(PC, architecture=Architecture("resnet", 4, blocks=1, foreground=True))
    branched = replace(branched, notes={"foreground": json.dumps({"seed": 3, "steps": 9, "kept_from": 0.2})})
    files = [saved(tmp_path / "in" / "with.safetensors", branched), saved(tmp_path / "in" / "without.safetensors")]
    options = ["--minutes", "0", "--kept-from", "0.5", "--output"]
    assert main(["--checkpoint", *map(str, files), *options, str(tmp_path / "out")]) == DONE
    source = checkpoint.load(files[0])[0].foreground.state_dict()
    for file in files:
        network, metadata = checkpoint.load(tmp_path / "out" / file.name)
        copied = network.foreground.state_dict()
        assert copied.pop("kept_from") == 0
        assert all(torch.equal(value, source[key]) for key, value in copied.items())
        assert json.loads(metadata.notes["foreground"]) == {"seed": 3, "steps": 9, "kept_from": 0.5}
    assert main(["--checkpoint", str(files[1]), *options, str(tmp_path / "none")]) == NOT_BEGUN
    assert "without.safetensors: has no foreground branch, expected one with --minutes 0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(files[0]), "--output", str(tmp_path / "none")])
    assert "--specimens is needed to train" in capsys.readouterr().err


def test_checkpoints_of_one_name_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder / "last.safetensors")
    paths = [str(tmp_path / folder / "last.safetensors") for folder in "ab"]
    assert main(["--checkpoint", *paths, "--output", str(tmp_path / "new"), "--minutes", "0"]) == NOT_BEGUN
    assert f"{paths[1]}: found the file name of {paths[0]}, expected another" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"architecture": Architecture("resnet", 4, (Organelle.NUCLEUS,), blocks=1), "labels": {}},
            "predicts nucleus, expected all four organelles",
        ),
        ({"target_normalization": TargetNormalization.LINEAR}, "learned linear targets, expected percentile ones"),
        ({"pixel_size_um": (0.1, 0.2)}, "normalizes or resamples its inputs otherwise than"),
    ],
)
def test_checkpoints_that_one_branch_cannot_serve_are_refused_before_anything_is_written(
    changed: dict[str, object], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", replace(PC, **changed))]  # type: ignore[arg-type]
    given = ["--specimens", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["--checkpoint", *map(str, files), *given]) == NOT_BEGUN
    errors = capsys.readouterr().err
    assert sentence in errors and errors.startswith(str(files[1])) and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
