"""Whole runs on a tiny data set: resume, checkpoints, recipes, and what a user sees when something is wrong."""

import csv
import os
import shlex
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from model import checkpoint
from model.errors import UserError
from model.images import write_plane
from model.labels import Modality, Organelle
from training.config import Schedule
from training.index import Index
from training.pix2pix_module import Pix2PixModule
from training.scan import scan
from training.validation import choose_planes

SMALL = shlex.split(
    "--width 2 --blocks 1 --discriminator-width 2 --crop 32 --schedule steps --steps 4 --decay-steps 4 "
    "--steps-per-epoch 4 --validation-planes 2 --threads 1 --validation-fraction 0.3 --device cpu"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three fields a modality, two planes each; DIC has no actin, one field has one label only."""
    root = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for number, modality in enumerate(3 * list(Modality)):
        folder = root / f"Study_{1 + number // 3}"
        folder.mkdir(exist_ok=True)
        plane = rng.integers(1000, 40000, (48, 40)).astype(np.uint16)
        for z in range(2):
            name = f"image_{number}_{modality}_z{z}.ome.tiff"
            write_plane(folder / name, plane + np.uint16(z), channel=modality.value, pixel_size_um=(0.1, 0.11))
        for organelle in Organelle:
            if number == 0 and organelle is not Organelle.NUCLEUS:
                continue
            if (modality, organelle) != (Modality.DIC, Organelle.ACTIN):
                name = f"image_{number}_{organelle.label}.ome.tiff"
                write_plane(folder / name, plane // 2, channel=organelle.label, pixel_size_um=(0.1, 0.11))
    return root


def run(data: Path, output: Path, *extra: str, modality: str = "BF") -> None:
    train.run(["--data", str(data), "--output", str(output), "--modality", modality, *SMALL, *extra])


def state_of(output: Path) -> dict:
    return torch.load(output / "state.pt", weights_only=True)


def assert_same(a: object, b: object, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Press Ctrl-C within that step."""
    step = Pix2PixModule.step

    def interrupted(self, *arguments):
        losses = step(self, *arguments)
        if self.steps == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(Pix2PixModule, "step", interrupted)


@pytest.mark.parametrize("recipe", ["pix2pix", "dynamic"])
def test_resume_is_bit_for_bit_a_run_never_stopped(data: Path, tmp_path: Path, recipe: str) -> None:
    options = ("--recipe", recipe, "--dropout", "0.2", "--ema", "0.9", "--lambda-correlation", "1")
    modality = "BF" if recipe == "pix2pix" else "all"
    run(data, tmp_path / "whole", *options, modality=modality)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        run(data, tmp_path / "parted", *options, modality=modality)
    assert state_of(tmp_path / "parted")["module"]["steps"] == 3
    # Whatever random state the new process has, it must not matter.
    torch.manual_seed(999)
    run(data, tmp_path / "parted", *options, "--resume", modality=modality)
    whole, parted = state_of(tmp_path / "whole"), state_of(tmp_path / "parted")
    whole.pop("seconds"), parted.pop("seconds")
    assert whole["module"]["steps"] == 8
    assert_same(whole, parted)
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "parted")]
    picks = [[(r["step"], r["name"], r["value"]) for r in rows if r["name"].startswith("pcc")] for rows in logs]
    assert picks[0] == picks[1] and {step for step, _, _ in picks[0]} == {"4", "8"}


def test_a_run_with_another_seed_differs(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(data, tmp_path / name, "--lambda-gan", "0", "--steps", "1", "--decay-steps", "0", "--seed", seed)
    a, b, c = (state_of(tmp_path / name)["module"]["modules"] for name in "abc")
    assert_same(a, b)
    assert "discriminators" not in a
    assert any(not torch.equal(v, c["network"][k]) for k, v in a["network"].items())


def test_checkpoint_says_what_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "cells").symlink_to(data)
    options = ("--recipe", "unetplusplus", "--input-normalization", "flatfield", "--target-normalization", "percentile")
    run(tmp_path / "cells", tmp_path / "run", *options, "--window", "64", modality="all")
    for name in ("best", "last"):
        network, metadata = checkpoint.load(tmp_path / "run" / f"{name}.safetensors")
        assert not network.training
        assert metadata.architecture.network == "unetplusplus" and metadata.architecture.width == 2
        assert (metadata.input_normalization, metadata.target_normalization) == ("flatfield", "percentile")
        assert metadata.window == 64 and metadata.modalities == tuple(Modality)
        assert metadata.pixel_size_um == pytest.approx((0.1, 0.11))
        assert metadata.labels[Modality.DIC] == tuple(Organelle)[:3]
        assert metadata.trained_on.startswith("data in ") and metadata.recipe == "unetplusplus"
        assert metadata.notes["seed"] == "0" and "--window 64" in metadata.notes["command"]
    assert (tmp_path / "run" / "log.csv").read_text().startswith("step,epoch,minutes,name,value")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_origin_of_simulated_files_is_repeated(data: Path) -> None:
    measured = scan([data])
    assert train.described(measured, [data]) == f"data in {data.name}"
    example = Path(__file__).parent / "input"
    rendered = scan([example])
    assert train.described(rendered, [example]) == "simulated cells"
    both = Index(fields=(*rendered.fields, *measured.fields))
    assert train.described(both, [example, data]) == f"simulated cells and data in {data.name}"


def test_start_from_another_run(data: Path, tmp_path: Path) -> None:
    gan = ("--lambda-gan", "0")
    run(data, tmp_path / "all", *gan, modality="all")
    first = str(tmp_path / "all" / "last.safetensors")
    run(data, tmp_path / "bf", *gan, "--init", first, "--learning-rate", "1e-12", "--steps", "1", "--decay-steps", "0")
    before, after = (checkpoint.load(tmp_path / name / "last.safetensors")[0] for name in ("all", "bf"))
    for key, value in before.state_dict().items():
        assert torch.allclose(value, after.state_dict()[key], atol=1e-9), key
    with pytest.raises(UserError, match="expected"):
        run(data, tmp_path / "wide", *gan, "--init", first, "--width", "3")


def test_time_schedule_ends_by_itself_with_its_state_saved(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--lambda-gan", "0", "--schedule", "time", "--max-minutes", "0.02")
    assert 0.02 * 60 <= state_of(tmp_path / "run")["seconds"] < 20
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_images_are_resampled_into_the_range_of_pixel_sizes(data: Path, tmp_path: Path) -> None:
    run(
        data, tmp_path / "run", "--lambda-gan", "0", "--pixel-size", "0.14", "0.2", "--steps", "1", "--decay-steps", "0"
    )
    assert checkpoint.read_metadata(tmp_path / "run" / "last.safetensors").pixel_size_um == (0.14, 0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--output", "."], "is there already"),
        (["--resume"], "not found"),
        (["--crop", "30"], "multiple of 4"),
        (["--width", "0"], "at least 1"),
        (["--schedule", "time"], "--max-minutes"),
        (["--recipe", "unetplusplus", "--lambda-gan", "1"], "expected 0"),
        (["--device", "abacus"], "cannot be used"),
        (["--pixel-size", "2", "1"], "smallest"),
        (["--steps", "0", "--decay-steps", "0"], "more than 0"),
    ],
)
def test_bad_input_is_one_sentence(
    data: Path, tmp_path: Path, options: list[str], sentence: str, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.txt").write_text("the user's")
    arguments = ["--data", str(data), "--output", "run", "--modality", "BF", *SMALL, *options]
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    assert train.main() == 1
    assert sentence in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.txt"]


def test_absent_modality_is_named(tmp_path: Path) -> None:
    for name, channel in (("image_1_BF_z0", "BF"), ("image_1_Nucleus", "Nucleus")):
        write_plane(tmp_path / f"{name}.ome.tiff", np.ones((8, 8), np.uint16), channel=channel, pixel_size_um=None)
    with pytest.raises(UserError, match="holds BF, expected labelled fields of DIC"):
        run(tmp_path, tmp_path / "run", modality="DIC")


def test_resume_with_another_choice_or_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--lambda-gan", "0", "--steps", "1")
    with pytest.raises(UserError, match="seed is 5"):
        run(data, tmp_path / "run", "--lambda-gan", "0", "--steps", "1", "--resume", "--seed", "5")
    with pytest.raises(UserError, match="other data"):
        run(data / "Study_1", tmp_path / "run", "--lambda-gan", "0", "--steps", "1", "--resume")
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        run(data, tmp_path / "run", "--lambda-gan", "0", "--steps", "1", "--resume")


def test_rate_is_constant_then_linear_to_zero() -> None:
    schedule = Schedule("epochs", 150, 150)
    assert [schedule.factor(p) for p in (0, 150, 225, 300)] == [1, 1, 0.5, 0]
    assert not schedule.finished(299.9) and schedule.finished(300)
    assert Schedule("steps", 10, 0).factor(9) == 1


def test_validation_takes_turns_so_that_rare_labels_are_scored(data: Path) -> None:
    fields = train.check(train.scan([data])).fields
    chosen = choose_planes(fields, 6, seed=0)
    assert len({(f.name, z) for f, z in chosen}) == 6
    assert {f.modality for f, _ in chosen} == set(Modality)
    assert len(choose_planes(fields, 999, seed=0)) == 18 and choose_planes((), 5, seed=0) == []


def test_sigterm_from_outside_saves(data: Path, tmp_path: Path) -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    # Until the loop runs, the signal must not end the test itself.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        timer.start()
        began = time.monotonic()
        run(data, tmp_path / "run", "--lambda-gan", "0", "--steps", "100000", "--max-minutes", "0.2")
        assert time.monotonic() - began < 30
        assert (tmp_path / "run" / "state.pt").is_file() and (tmp_path / "run" / "last.safetensors").is_file()
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
