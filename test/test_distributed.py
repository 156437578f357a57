"""Several processes under torchrun learn what one process learns, stop together, and survive the death of one."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_trainer import arguments, assert_same, data, run, state_of  # noqa: F401  # data is a fixture

from model.commands import DONE, NOT_BEGUN
from model.errors import UserError
from training.command_line import main
from training.distributed import local_device, on_first_rank, sum_over_ranks, world_size

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("--width", "4", "--precision", "fp32", "--lambda-correlation", "1", "--ema", "0.9")
NO_EFFECT = re.compile(r"\.first\.(first\.)?bias|layers\.[258]\.bias|controller\.bias")
"""Biases before a normalization, which takes them away: their gradient is rounding error, which Adam enlarges."""


def torchrun(*command: str, torchrun_options: tuple[str, ...] = ()) -> subprocess.Popen:
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, *torchrun_options, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def train(*options: str, torchrun_options: tuple[str, ...] = ()) -> subprocess.Popen:
    return torchrun(str(ROOT / "train.py"), *options, torchrun_options=torchrun_options)


def finished(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, errors


def done(process: subprocess.Popen) -> str:
    """Stdout of a run that finished."""
    code, out, errors = finished(process)
    assert code == DONE, errors
    return out


def assert_close(states: list[dict], steps: int) -> None:
    """Weights differ by 5e-5 at most, relative to their norm or to what Adam has moved them by.

    The order of sums alone makes 2e-5 on CPUs without AVX512.
    """
    one, other = (state["module"]["modules"] for state in states)
    assert one.keys() == other.keys() and "discriminators" in one
    for module, weights in one.items():
        for name, expected in weights.items():
            if not NO_EFFECT.search(name):
                difference = float((other[module][name] - expected).float().norm())
                assert difference <= 5e-5 * max(float(expected.float().norm()), steps * 2e-4), f"{module}.{name}"


def losses(output: Path) -> dict[tuple[str, str], float]:
    rows = csv.DictReader((output / "log.csv").open())
    return {(row["step"], row["name"]): float(row["value"]) for row in rows if row["name"].startswith("loss/")}


@pytest.fixture(scope="module")
def two_ranks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A run of eight steps by two processes; read only."""
    output = tmp_path_factory.mktemp("two") / "run"
    out = done(train(*arguments(data, output, *OPTIONS, modality="all")))
    assert out.count("Finished: 8 steps in") == 1 and "batches of 8, 4 steps an epoch, on 2 ranks of cpu" in out
    return output


def test_two_ranks_and_two_micro_batches_learn_what_the_doubled_batch_teaches(
    data: Path,  # noqa: F811
    two_ranks: Path,
    tmp_path: Path,
) -> None:
    one, accumulated = tmp_path / "one", tmp_path / "accumulated"
    run(data, one, *OPTIONS, "--batch-per-organelle", "2", modality="all")
    run(data, accumulated, *OPTIONS, "--accumulate", "2", modality="all")
    expected = losses(one)
    assert {name for _, name in expected} == {"loss/l1", "loss/gan", "loss/correlation", "loss/discriminator"}
    for other in (two_ranks, accumulated):
        assert losses(other) == pytest.approx(expected, rel=1e-5)
        assert_close([state_of(one), state_of(other)], steps=8)


def test_accumulation_without_discriminators(data: Path, tmp_path: Path) -> None:  # noqa: F811
    options = ("--recipe", "dynamic", *OPTIONS, "--steps-per-epoch", "1")
    run(data, tmp_path / "one", *options, "--batch-per-organelle", "3", modality="all")
    run(data, tmp_path / "accumulated", *options, "--accumulate", "3", modality="all")
    assert losses(tmp_path / "accumulated") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


STOPPED_BY_ONE = """
import os, signal, sys
from training.command_line import main
from training.distributed import rank
from training.pix2pix_module import Pix2PixModule
step = Pix2PixModule.step
def interrupted(self, *arguments):
    losses = step(self, *arguments)
    if self.steps == 3 and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return losses
Pix2PixModule.step = interrupted
sys.exit(main())
"""


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_resume_is_bit_for_bit(
    data: Path,  # noqa: F811
    two_ranks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED_BY_ONE)
    parted = tmp_path / "parted"
    options = arguments(data, parted, *OPTIONS, modality="all")
    code, _, errors = finished(torchrun(str(tmp_path / "stopped.py"), *options))
    assert code != DONE and errors.count("Interrupted. The state is saved: --resume goes on from there.") == 1
    assert state_of(parted)["module"]["steps"] == 3
    # One process would take other parts of the batches.
    assert main(["--resume", "--output", str(parted)]) == NOT_BEGUN
    told = capsys.readouterr().err
    assert "state.pt: was saved by 2 processes, expected as many to resume it, found 1" in told
    assert told.count("\n") == 1
    done(train("--resume", "--output", str(parted)))
    states = [state_of(path) for path in (two_ranks, parted)]
    for state in states:
        assert state.pop("seconds") > 0 and state["config"].pop("output")
    assert_same(*states)


DIFFERENT_HEADS = """
import sys, torch
from model.labels import Modality, Organelle
from training import distributed
from training.batches import Batch
from training.config import TrainingConfig
from training.pix2pix_module import Pix2PixModule

N, M, T = Organelle.NUCLEUS, Organelle.MITOCHONDRIA, Organelle.TUBULIN
distributed.join()
rank, ranks = distributed.rank(), distributed.world_size()
config = TrainingConfig(modality="BF", width=2, blocks=1, discriminator_width=2, crop=32, precision="fp32")
torch.manual_seed(rank)  # weights are rank 0's
module = Pix2PixModule(config, torch.device("cpu"))
generator = torch.Generator().manual_seed(1)
x, y = torch.rand(3, 1, 32, 32, generator=generator), torch.rand(3, 2, 32, 32, generator=generator)
labelled = torch.tensor([[True, False], [True, True], [True, True]])
parts = (
    Batch(x[:1], y[:1, :1], labelled[:1, :1], (N,), (Modality.BF,), share=1 / 5),
    Batch(x[1:], y[1:], labelled[1:], (N, M), (Modality.BF,) * 2, share=4 / 5),
)
whole = Batch(x, y, labelled, (N, M), (Modality.BF,) * 3)
for _ in range(3):
    losses = module.step([parts[rank] if ranks == 2 else whole], 1.0)
torch.save({"losses": losses, "module": module.state()}, f"{sys.argv[1]}/{ranks}_{rank}.pt")
distributed.leave(0)
"""


def test_a_head_that_nothing_labels_on_one_rank_learns_from_the_other(tmp_path: Path) -> None:
    script = tmp_path / "different_heads.py"
    script.write_text(DIFFERENT_HEADS)
    process = torchrun(str(script), str(tmp_path))
    subprocess.run([sys.executable, script, tmp_path], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    done(process)
    first, second, one = (torch.load(tmp_path / name) for name in ("2_0.pt", "2_1.pt", "1_0.pt"))
    assert_same(first, second)
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert_close([one, first], steps=3)
    moments = first["module"]["optimisers"]["generator"]["state"], one["module"]["optimisers"]["generator"]["state"]
    assert moments[0].keys() == moments[1].keys(), "heads that nothing labels have no moments on any rank"


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """Process numbers of the ranks that torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in children.split()]


@pytest.mark.slow
@pytest.mark.parametrize("launched", [(), ("--max-restarts", "1"), ("--max-restarts", "1", "--standalone")])
def test_a_killed_rank_costs_the_steps_since_the_last_state(
    data: Path,  # noqa: F811
    tmp_path: Path,
    launched: tuple[str, ...],
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    length = ("--steps", "300", "--steps-per-epoch", "20", "--validation-planes", "1")
    command = arguments(data, killed, *OPTIONS, *length, "--resume", modality="all")
    process = train(*command, torchrun_options=launched)
    wait_for(killed / "state.pt", process)
    os.kill(ranks_of(process)[-1], signal.SIGKILL)
    code, out, errors = finished(process)
    assert "lost another rank" in errors
    if launched:
        assert code == DONE, errors
        assert out.count("state.pt: not found, the run begins") == 1
    else:
        assert code != DONE and state_of(killed)["module"]["steps"] < 304
        done(train(*command))
    done(train(*arguments(data, whole, *OPTIONS, *length, modality="all")))
    assert_same(*(state_of(path)["module"] for path in (whole, killed)))


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_the_state_of_all(data: Path, tmp_path: Path) -> None:  # noqa: F811
    process = train(*arguments(data, tmp_path / "run", *OPTIONS, "--steps", "100000", "--validation-planes", "1"))
    wait_for(tmp_path / "run" / "state.pt", process)
    process.send_signal(signal.SIGTERM)
    code, out, errors = finished(process)
    assert code != DONE  # torchrun's own
    assert errors.count("Interrupted. The state is saved") == 1 and out.count("Stopped, --resume goes on: ") == 1
    told = re.search(r"Stopped, --resume goes on: (\d+) steps", out)
    assert told and state_of(tmp_path / "run")["module"]["steps"] == int(told[1])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [("--schedule", "time"), ("--steps", "100000")])
def test_the_clock_of_rank_0_stops_all(data: Path, tmp_path: Path, schedule: tuple[str, ...]) -> None:  # noqa: F811
    options = arguments(data, tmp_path / "run", *OPTIONS, *schedule, "--max-minutes", "0.03")
    assert re.search(r"steps in [2-9] s; ", done(train(*options)))


@pytest.mark.slow
def test_bad_input_is_told_once(data: Path, tmp_path: Path) -> None:  # noqa: F811
    code, _, errors = finished(train(*arguments(data, tmp_path / "run", "--crop", "30")))
    assert code != DONE and errors.count("--crop is 30, expected a multiple of 4, at least 24.") == 1
    assert not (tmp_path / "run").exists()


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_device("cuda:1") == "cuda:1", "without torchrun, the name given"
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (local_device("cpu"), local_device("auto"), local_device("cuda")) == ("cpu", "auto", "cuda:3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local_device("auto") == "cuda:3"
    with pytest.raises(UserError, match="--device is cuda:1, expected auto, cuda or cpu"):
        local_device("cuda:1")


def test_without_torchrun_there_is_one_rank() -> None:
    assert world_size() == 1 and sum_over_ranks([1.5, 2]) == [1.5, 2] and on_first_rank(lambda: 7) == 7
