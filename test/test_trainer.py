"""Whole runs on a tiny data set: resume, checkpoints, recipes, and what a user sees when something is wrong."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import NO_GAN, ONE_STEP, arguments, run, write_pairs

from model import checkpoint
from model.commands import DONE, INTERRUPTED, NOT_BEGUN, SOME_FAILED
from model.images import write_plane
from model.labels import Modality, Organelle
from training.command_line import main
from training.config import Schedule
from training.data import origin
from training.exclusive import one_at_a_time
from training.index import Index
from training.metrics_logger import MetricsLogger
from training.pix2pix_module import Pix2PixModule
from training.scan import scan

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("cells"))


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
            os.kill(os.getpid(), signal.SIGTERM)  # as where a process group and the process itself are told
        return losses

    monkeypatch.setattr(Pix2PixModule, "step", interrupted)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("recipe", ["pix2pix", "dynamic"])
def test_resume_is_bit_for_bit_a_run_never_stopped(
    data: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture
) -> None:
    options = ("--recipe", recipe, "--dropout", "0.2", "--ema", "0.9", "--lambda-correlation", "1")
    options += () if recipe == "pix2pix" else ("--accumulate", "2", "--precision", "fp16")
    modality = "BF" if recipe == "pix2pix" else "all"
    run(data, tmp_path / "whole", *options, modality=modality)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        run(data, tmp_path / "parted", *options, modality=modality, code=INTERRUPTED)
    assert capsys.readouterr().err == "Interrupted. The state is saved: --resume goes on from there.\n"
    assert state_of(tmp_path / "parted")["module"]["steps"] == 3
    # Whatever random state the new process has, it must not matter.
    torch.manual_seed(999)
    assert main(["--resume", "--output", str(tmp_path / "parted")]) == DONE  # no option is repeated
    whole, parted = state_of(tmp_path / "whole"), state_of(tmp_path / "parted")
    for state in (whole, parted):
        assert state.pop("seconds") > 0 and state["config"].pop("output").startswith(str(tmp_path))
    assert whole["module"]["steps"] == 8
    assert whole["module"]["scaler"].get("_growth_tracker") == (None if recipe == "pix2pix" else 8)
    assert int(whole["module"]["modules"]["averaged"]["n_averaged"]) == 8
    assert_same(whole, parted)
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "parted")]
    picks = [[(r["step"], r["name"], r["value"]) for r in rows if r["name"].startswith("pcc")] for rows in logs]
    assert picks[0] == picks[1] and {step for step, _, _ in picks[0]} == {"4", "8"}
    configs = [(tmp_path / name / "config.toml").read_text().splitlines() for name in ("whole", "parted")]
    assert [a for a, b in zip(*configs, strict=True) if a != b] == [f'output = "{tmp_path / "whole"}"']
    # What is finished stays as it is.
    assert main(["--resume", "--output", str(tmp_path / "parted")]) == DONE
    again = state_of(tmp_path / "parted")
    assert again.pop("seconds") > 0 and again["config"].pop("output")
    assert_same(again, parted)
    assert list(csv.DictReader((tmp_path / "parted" / "log.csv").open())) == logs[1]


def test_a_run_with_another_seed_differs(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(data, tmp_path / name, *NO_GAN, *ONE_STEP, "--seed", seed)
    a, b, c = (state_of(tmp_path / name)["module"]["modules"] for name in "abc")
    assert_same(a, b)
    assert "discriminators" not in a
    assert any(not torch.equal(v, c["network"][k]) for k, v in a["network"].items())


def test_checkpoint_says_what_it_is(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "cells").symlink_to(data)
    options = ("--recipe", "unetplusplus", "--input-normalization", "flatfield", "--target-normalization", "percentile")
    run(tmp_path / "cells", tmp_path / "run", *options, "--window", "64", "--precision", "bf16", modality="all")
    for name in ("best", "last"):
        network, metadata = checkpoint.load(tmp_path / "run" / f"{name}.safetensors")
        assert not network.training
        assert metadata.architecture.network == "unetplusplus" and metadata.architecture.width == 2
        assert (metadata.input_normalization, metadata.target_normalization) == ("flatfield", "percentile")
        assert metadata.window == 64 and metadata.modalities == tuple(Modality)
        assert metadata.pixel_size_um == pytest.approx((0.1, 0.11))
        assert metadata.labels[Modality.DIC] == tuple(Organelle)[:3]
        assert metadata.trained_on.startswith("data in ") and metadata.recipe == "unetplusplus"
        config = json.loads(metadata.notes["config"])
        assert metadata.notes["precision"] == "bf16" and config["precision"] == "bf16"
        assert config["window"] == 64 and config["schedule"]["steps"] == 4 and config["lambda_gan"] == 0
    assert (tmp_path / "run" / "log.csv").read_text().startswith("step,epoch,minutes,name,value")
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    told = capsys.readouterr()
    assert told.err == ""
    assert " M parameters, batches of 4, 4 steps an epoch, on cpu, trained on data in " in told.out
    assert "step 4, " in told.out and "Finished: 8 steps in " in told.out


def test_origin_of_simulated_files_is_repeated(data: Path) -> None:
    measured = scan([data])
    assert origin(measured, [data]) == f"data in {data.name}"
    example = ROOT / "test" / "input"
    rendered = scan([example])
    assert origin(rendered, [example]) == "simulated cells"
    both = Index(fields=(*rendered.fields, *measured.fields))
    assert origin(both, [example, data]) == f"simulated cells and data in {data.name}"


def test_time_schedule_ends_by_itself_with_its_state_saved(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", *NO_GAN, "--schedule", "time", "--max-minutes", "0.02")
    assert state_of(tmp_path / "run")["seconds"] >= 0.02 * 60
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_max_minutes_stop_a_part_that_another_one_goes_on_with(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", *NO_GAN, "--steps", "100000", "--max-minutes", "0.005")
    part = state_of(tmp_path / "run")["module"]["steps"]
    assert 0 < part < 100000
    assert main(["--resume", "--output", str(tmp_path / "run"), "--max-minutes", "0.004"]) == DONE
    assert state_of(tmp_path / "run")["module"]["steps"] > part
    assert state_of(tmp_path / "run")["config"]["schedule"]["max_minutes"] == 0.004


def test_images_are_resampled_into_the_range_of_pixel_sizes(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", *NO_GAN, *ONE_STEP, "--pixel-size", "0.14", "0.2")
    assert checkpoint.read_metadata(tmp_path / "run" / "last.safetensors").pixel_size_um == (0.14, 0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--output", "."], ".: is not empty, expected a new or empty folder."),
        (["--output", "kept.txt"], "kept.txt: is a file, expected a new folder."),
        (["--crop", "30"], "--crop is 30, expected a multiple of 4, at least 24."),
        (["--crop", "16"], "--crop is 16, expected a multiple of 4, at least 24."),
        (["--crop", "4", "--lambda-gan", "0"], "--crop is 4, expected a multiple of 4, at least 8."),
        (["--crop", "16", "--recipe", "unetplusplus"], "--crop is 16, expected a multiple of 16, at least 32."),
        (["--window", "16", "--recipe", "dynamic"], "--window is 16, expected a multiple of 16, at least 32."),
        (["--width", "0"], "--width is 0: expected greater than or equal to 1."),
        (["--seed", str(2**63)], f"--seed is {2**63}: expected less than {2**63}."),
        (["--cache-gb", "inf"], "--cache-gb is inf: expected less than or equal to 100000."),
        (["--workers", "100000"], "--workers is 100000: expected less than or equal to 256."),
        (["--pixel-size", "0.1", "inf"], "--pixel-size-um is inf: expected a finite number."),
        (["--dropout", "1"], "--dropout is 1.0: expected less than 1."),
        (["--schedule", "time"], "--schedule time is given without --max-minutes"),
        (["--recipe", "unetplusplus", "--lambda-gan", "1"], "--lambda-gan is 1, expected 0 for the recipe"),
        (["--lambda-l1", "0"], "expected something to learn from."),
        (["--device", "abacus"], "The device 'abacus' is not there"),
        (["--pixel-size", "2", "1"], "--pixel-size-um is [2.0, 1.0]: expected the smaller one first."),
        (["--steps", "0", "--decay-steps", "0"], "--schedule steps lasts 0 in all, expected more than 0."),
        (["--appearance.noise", "1"], "--appearance.noise is given, expected --input-normalization flatfield"),
        (["--freeze", "encoder"], "--freeze encoder is given without --init"),
        (["--specimens", "cells"], "--specimens is given, expected also --pixel-size MIN MAX"),
        (["--init", "none.safetensors"], "none.safetensors: found no such file"),
        (["--validation-fraction", "0.99", "--split-by", "study"], "leaves no study to train on."),
        (["--validation-studies", "Study_1", "Study_4"], "found no study Study_4, expected those of --validation-stu"),
        (["--validation-studies", "Study_1", "Study_2", "Study_3"], "Study_2 Study_3 leaves no study to train on."),
        (["--validation-studies", "Study_1", "--specimens", "x"], "--validation-studies is given with --specimens, "),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    data: Path, tmp_path: Path, options: list[str], sentence: str, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept.txt").write_text("the user's")
    assert main(arguments(data, Path("run"), *options)) == NOT_BEGUN
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.txt"]


def test_a_full_disk_is_one_sentence_and_the_run_can_be_resumed(
    data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("training.metrics_logger.SummaryWriter.flush", full)
        assert main(arguments(data, tmp_path / "run")) == SOME_FAILED
    errors = capsys.readouterr().err
    assert f"{tmp_path / 'run' / 'log.csv'}: it cannot be written (no space left on the disk)." in errors
    assert "Traceback" not in errors
    assert main(arguments(data, tmp_path / "run")) == DONE


def test_too_little_memory_is_one_sentence(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Pix2PixModule, "step", starve)
    assert main(arguments(data, tmp_path / "run")) == SOME_FAILED
    assert "This machine has too little memory for step 1, try a smaller --crop" in capsys.readouterr().err


def test_absent_modality_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, channel in (("image_1_BF_z0", "BF"), ("image_1_Nucleus", "Nucleus")):
        write_plane(tmp_path / f"{name}.ome.tiff", np.ones((8, 8), np.uint16), channel=channel, pixel_size_um=None)
    run(tmp_path, tmp_path / "run", modality="DIC", code=NOT_BEGUN)
    assert "holds BF, expected labelled fields of DIC" in capsys.readouterr().err


def test_resume_with_another_choice_or_other_data_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, tmp_path / "run", *NO_GAN, *ONE_STEP)
    resume = ["--resume", "--output", str(tmp_path / "run")]
    for options, sentence in (
        (["--seed", "5"], "--seed is 5, but the run to resume was started with 0"),
        (["--schedule.steps", "9"], "--schedule.steps is 9, but the run to resume was started with 1"),
        (["--init", "x.safetensors"], "--init is x.safetensors, but the run to resume was started without it"),
        (["--data", str(data / "Study_1")], "was made with other data, expected the same fields, planes and labels"),
    ):
        capsys.readouterr()
        assert main([*resume, *options]) == NOT_BEGUN
        errors = capsys.readouterr().err
        assert sentence in errors and errors.count("\n") == 1
    (tmp_path / "moved").symlink_to(data)
    assert main([*resume, "--data", str(tmp_path / "moved"), "--workers", "2"]) == DONE
    (tmp_path / "run" / "state.pt").write_bytes(b"broken")
    assert main(resume) == NOT_BEGUN
    assert "state.pt: cannot be read as a training state" in capsys.readouterr().err


def test_a_run_that_died_before_its_first_state_can_be_begun_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Pix2PixModule, "step", interrupt)
        run(data, tmp_path / "run", *NO_GAN, *ONE_STEP, code=INTERRUPTED)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {".lock", "config.toml", "log.csv", "tensorboard"}
    run(data, tmp_path / "run", *NO_GAN, *ONE_STEP)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    run(data, tmp_path / "run", *NO_GAN, *ONE_STEP, code=NOT_BEGUN)
    assert "run: is not empty" in capsys.readouterr().err


def test_one_training_a_folder(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    with one_at_a_time(folder, "training"):
        run(data, folder, *NO_GAN, *ONE_STEP, code=NOT_BEGUN)
    assert capsys.readouterr().err == f"{folder}: found another training in this folder, expected one at a time.\n"
    run(data, folder, *NO_GAN, *ONE_STEP)
    with one_at_a_time(folder, "training"):
        assert main(["--resume", "--output", str(folder)]) == NOT_BEGUN


@pytest.mark.parametrize("died", [False, True])
def test_the_command_with_resume_begins_a_run_and_goes_on_with_it(
    data: Path, tmp_path: Path, died: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    resume = ["--resume", "--output", str(tmp_path / "run")]
    assert main(resume) == NOT_BEGUN
    errors = capsys.readouterr().err
    assert "run/config.toml: not found, expected the configuration of the run to resume" in errors
    assert errors.count("\n") == 1 and not (tmp_path / "run").exists()
    options = (*NO_GAN, *ONE_STEP, "--resume")
    if died:
        with monkeypatch.context() as patch:
            patch.setattr(Pix2PixModule, "step", interrupt)
            run(data, tmp_path / "run", *options, code=INTERRUPTED)
        assert main(resume) == DONE  # the options are in config.toml
    else:
        run(data, tmp_path / "run", *options)
    assert "run/state.pt: not found, the run begins" in capsys.readouterr().out
    assert state_of(tmp_path / "run")["module"]["steps"] == 1
    run(data, tmp_path / "run", *options)
    assert state_of(tmp_path / "run")["module"]["steps"] == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: "\ufeff" + text.replace("\r\n", "\n\n"), None),
        (lambda text: text.replace(",", ";"), "log.csv: is no log of a run"),
        (lambda text: text.encode("utf-16"), "log.csv: is no log of a run"),
    ],
    ids=["blank lines and a byte order mark", "semicolons", "UTF-16"],
)
def test_a_log_that_another_program_has_saved(data: Path, tmp_path: Path, change, error, capsys) -> None:
    run(data, tmp_path / "run", *NO_GAN, *ONE_STEP)
    log = tmp_path / "run" / "log.csv"
    before, changed = list(csv.DictReader(log.open())), change(log.read_bytes().decode())
    log.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    code = main(["--resume", "--output", str(tmp_path / "run")])
    if error is None:
        assert code == DONE and list(csv.DictReader(log.open()))[: len(before)] == before
    else:
        assert code == SOME_FAILED
        errors = capsys.readouterr().err
        assert error in errors and errors.count("\n") == 1


def test_a_loss_that_is_not_finite_ends_the_run_in_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, tmp_path / "run", *NO_GAN, "--learning-rate", "inf", code=SOME_FAILED)
    errors = capsys.readouterr().err
    assert "A loss is not finite at step" in errors and errors.count("\n") == 1


def test_a_signal_that_comes_while_a_failed_run_closes_does_not_hide_why(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    close = MetricsLogger.close

    def interrupted(logger: MetricsLogger) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        close(logger)

    monkeypatch.setattr(MetricsLogger, "close", interrupted)
    run(data, tmp_path / "run", *NO_GAN, "--learning-rate", "inf", code=SOME_FAILED)
    assert "A loss is not finite at step" in capsys.readouterr().err


def test_rate_is_constant_then_linear_to_zero() -> None:
    schedule = Schedule()
    assert [schedule.factor(p) for p in (0, 150, 225, 300)] == [1, 1, 0.5, 0]
    assert not schedule.finished(299.9) and schedule.finished(300)
    assert Schedule(unit="steps", steps=10).factor(9) == 1
    minutes = Schedule(unit="time", max_minutes=50, decay_share=0.6)
    assert [minutes.factor(p) for p in (20, 35, 50)] == [1, 0.5, 0] and minutes.finished(50)
    assert minutes.part_minutes is None and replace(minutes, unit="steps").part_minutes == 50


@pytest.mark.slow
def test_a_missing_compiler_is_one_sentence(data: Path, tmp_path: Path) -> None:
    options = arguments(data, tmp_path / "run", *NO_GAN, *ONE_STEP, "--compile")
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "train.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == SOME_FAILED and "Traceback" not in done.stderr
    assert "The networks cannot be compiled (InvalidCxxCompiler: No working C++ compiler found" in done.stderr
    assert done.stderr.endswith("leave --compile out.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_ends_the_command_with_its_state_saved(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    options = arguments(data, tmp_path / "run", *NO_GAN, "--steps", "100000")
    command = [sys.executable, str(ROOT / "train.py"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "state.pt").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert errors == "Interrupted. The state is saved: --resume goes on from there.\n"
    assert state_of(tmp_path / "run")["module"]["steps"] >= 4
