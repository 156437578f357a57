"""Runs that start from a checkpoint: what is taken over, what may differ, what is frozen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import NO_GAN, ONE_STEP, run, write_pairs

from model import PRESETS, Modality, Organelle, Predictor, checkpoint
from model.commands import DONE, NOT_BEGUN
from model.images import write_plane
from training.command_line import main
from training.release import main as release

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("cells"))


def test_start_from_another_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(data, tmp_path / "all", *NO_GAN, *ONE_STEP, modality="all")
    first = str(tmp_path / "all" / "last.safetensors")
    run(data, tmp_path / "bf", *NO_GAN, *ONE_STEP, "--init", first, "--learning-rate", "1e-12")
    before, after = (checkpoint.load(tmp_path / name / "last.safetensors") for name in ("all", "bf"))
    for key, value in before[0].state_dict().items():
        assert torch.allclose(value, after[0].state_dict()[key], atol=1e-9), key
    assert len(after[1].notes["started_from_sha256"]) == 64
    capsys.readouterr()
    run(data, tmp_path / "wide", *NO_GAN, "--init", first, "--width", "3", code=NOT_BEGUN)
    assert capsys.readouterr().err == f"{first}: has width 2, expected width 3, see --recipe, --width and --blocks.\n"
    # What is resumed needs the checkpoint no more.
    Path(first).unlink()
    assert main(["--resume", "--output", str(tmp_path / "bf")]) == DONE


def test_a_transposed_checkpoint_goes_on_with_resize_convolutions(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "a", *NO_GAN, *ONE_STEP)
    first = ("--init", str(tmp_path / "a" / "last.safetensors"))
    run(data, tmp_path / "b", *NO_GAN, *ONE_STEP, *first, "--upsampling", "resize", "--learning-rate", "1e-12")
    run(data, tmp_path / "c", *NO_GAN, *ONE_STEP, "--init", str(tmp_path / "b" / "last.safetensors"))
    (a, _), (b, _), (c, metadata) = (checkpoint.load(tmp_path / name / "last.safetensors") for name in "abc")
    x = torch.rand(1, 1, 32, 32)
    for key, value in a.state_dict().items():
        assert torch.allclose(value, b.state_dict()[key], atol=1e-9), key
    assert not torch.allclose(a(x), b(x), atol=1e-3)
    assert metadata.architecture.upsampling == c.architecture.upsampling == "resize"  # taken over


def test_a_foreground_branch_begins_at_random_and_is_taken_over(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data, tmp_path / "a", *NO_GAN, *ONE_STEP)
    first, slowly = ("--init", str(tmp_path / "a" / "last.safetensors")), ("--learning-rate", "1e-12")
    run(data, tmp_path / "b", *NO_GAN, *ONE_STEP, *slowly, *first, "--foreground")
    second = ("--init", str(tmp_path / "b" / "last.safetensors"))
    run(data, tmp_path / "c", *NO_GAN, *ONE_STEP, *slowly, *second)
    run(data, tmp_path / "moved", *NO_GAN, *ONE_STEP, *second)
    a, b, c, moved = (checkpoint.load(tmp_path / name / "last.safetensors")[0] for name in ("a", "b", "c", "moved"))
    assert not a.architecture.foreground and b.architecture.foreground and c.architecture == b.architecture
    for key, value in b.state_dict().items():
        assert torch.allclose(value, a.state_dict().get(key, value), atol=1e-9), key
        assert torch.allclose(value, c.state_dict()[key], atol=1e-9), key
    assert not torch.equal(moved.state_dict()["foreground.last.weight"], b.state_dict()["foreground.last.weight"])
    capsys.readouterr()
    run(data, tmp_path / "d", *NO_GAN, *ONE_STEP, *second, "--no-foreground", code=NOT_BEGUN)
    assert "has foreground True, expected foreground False" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["pix2pix", "unetplusplus"])
def test_a_frozen_encoder_keeps_its_weights(data: Path, tmp_path: Path, recipe: str) -> None:
    options = ("--recipe", recipe, *NO_GAN, *ONE_STEP, "--ema", "0.5")
    run(data, tmp_path / "a", *options)
    run(data, tmp_path / "b", *options, "--freeze", "encoder", "--init", str(tmp_path / "a" / "last.safetensors"))
    (a, _), (b, metadata) = (checkpoint.load(tmp_path / name / "last.safetensors") for name in "ab")
    shared = {id(parameter) for parameter in b.encoder_parameters()}
    heads = ("decoders", "heads")
    for (key, before), after in zip(a.named_parameters(), b.parameters(), strict=True):
        if id(after) in shared:
            assert torch.equal(before, after) and not key.startswith(heads), key
        elif recipe == "pix2pix":
            assert key.startswith(heads)
    assert any(not torch.equal(a.state_dict()[key], value) for key, value in b.state_dict().items())
    assert 0 < len(shared) < len(list(b.parameters()))
    assert json.loads(metadata.notes["config"])["freeze"] == "encoder"


def test_the_page_on_fine_tuning(tmp_path: Path) -> None:
    """From a shipped network and two fields of nuclei to a prediction, as docs/fine-tuning.md says."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "my_pairs" / "Study_1"
    folder.mkdir(parents=True)
    for number in range(2):
        for name, channel in ((f"image_{number}_BF_z0", "BF"), (f"image_{number}_Nucleus", "Nucleus")):
            pixels = rng.integers(1000, 40000, (170, 180)).astype(np.uint16)
            write_plane(folder / f"{name}.ome.tiff", pixels, channel=channel, pixel_size_um=(0.3, 0.3))
    trained, resources = tmp_path / "mine", tmp_path / "my_resources"
    recipe, shipped = ROOT / "training/recipes/few_fields.toml", ROOT / "resources"
    given = ["--config", recipe, "--data", folder.parent, "--modality", "BF", "--output", trained]
    start = ["--init", shipped / "pix2pix_bf_low_magnification.safetensors", "--max-minutes", "0.01"]
    assert main([str(word) for word in (*given, *start, "--device", "cpu", "--threads", "1")]) == DONE
    words = ["--from", shipped, "--low-bf", trained / "last.safetensors", "--join", "--output", resources]
    assert release([str(word) for word in words]) == DONE
    settings = replace(PRESETS["fast"], rotations=4)
    with Predictor.open(resources, device="cpu", settings=settings) as predictor:
        plan = predictor.plan(Modality.BF, (64, 64), (0.3, 0.3))
        used = {organelle: facts["checkpoint"] for organelle, facts in plan.provenance.items()}
        shipped_ones = "pix2pix-bf-low-magnification, unetplusplus-low-magnification"
        assert used.pop(Organelle.NUCLEUS) == f"pix2pix-bf-low-magnification-custom, {shipped_ones}"
        assert set(used.values()) == {shipped_ones}
        assert plan.provenance[Organelle.NUCLEUS]["trained_on"] == "data in my_pairs, simulated cells"
        before = predictor.plan(Modality.BF, (64, 64), (0.1, 0.1)).provenance[Organelle.NUCLEUS]
        assert before["checkpoint"] == "pix2pix-bf, unetplusplus"
        assert predictor.predict(rng.integers(0, 9999, (64, 64)).astype(np.uint16), Modality.BF).keys() == set(
            Organelle
        )
