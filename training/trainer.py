"""The loop: steps, validation, what is saved, and going on where a run was stopped.

A run's folder holds ``state.pt`` (all that the next step depends on), ``last.safetensors`` and
``best.safetensors`` (best mean PCC on held-out planes), ``log.csv`` and ``tensorboard/``.
"""

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from model import __version__, checkpoint
from model.checkpoint import CheckpointMetadata
from model.errors import UserError
from model.files import atomic_write, file_sha256
from model.labels import Modality
from model.preprocessing import Preprocessing
from training.batches import BatchSource, Loader
from training.config import TrainingConfig
from training.index import Index
from training.metrics_logger import MetricsLogger, Progress, duration
from training.pix2pix_module import Pix2PixModule
from training.signals import stop_requests
from training.validation import choose_planes, large_enough, validate

STATE_FORMAT = 3
STATE, LAST, BEST = "state.pt", "last.safetensors", "best.safetensors"


@dataclass(frozen=True)
class RunConfig:
    """What does not change the weights: where to write, on what to compute, how often to look."""

    output: Path
    device: torch.device
    resume: bool = False
    initial: Path | None = None
    max_minutes: float | None = None
    validate_minutes: float | None = None
    workers: int = 1
    trained_on: str = "unknown data"
    command: str = ""


class Trainer:
    """One run over the training part of the data, scored on the validation part (which may be empty)."""

    def __init__(self, config: TrainingConfig, source: BatchSource, validation: Index, run_config: RunConfig) -> None:
        self.config, self.run_config, self.source = config, run_config, source
        self.steps_per_epoch = config.steps_per_epoch or source.steps_per_epoch
        self.preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
        torch.manual_seed(config.seed)
        self.module = Pix2PixModule(config, run_config.device)
        self.stride = self.module.network.stride
        for name in ("crop", "window"):
            if getattr(config, name) % self.stride:
                raise UserError(f"--{name} is {getattr(config, name)}, expected a multiple of {self.stride}")
        scorable, skipped = large_enough(validation.fields, self.preprocessing, self.stride)
        for entry in skipped:
            print(f"not scored, {entry.name}: {entry.reason}", flush=True)
        self.held_out = choose_planes(scorable, config.validation_planes, config.seed)
        self.data = hashlib.sha256((source.digest() + validation.digest()).encode()).hexdigest()
        self.seconds_before = 0.0
        self.best: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        self.initial_sha256 = ""
        start = self._prepare_folder()
        self.loader = Loader(source, start=start, workers=run_config.workers)
        self.metrics_logger = MetricsLogger(run_config.output, resumed_at=self.module.steps)
        self._looked_at = -1
        self._began = time.monotonic()
        self._share_before = min(1.0, self.done() / config.schedule.total)

    def _prepare_folder(self) -> int:
        """Make a new run's folder or read the old run's state; return the number of the next batch."""
        output = self.run_config.output
        if self.run_config.resume:
            return self._restore()
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output}: is there already, expected a new folder, or --resume to go on with that run")
        if self.run_config.initial is not None:
            self._start_from(self.run_config.initial)
        output.mkdir(parents=True, exist_ok=True)
        return 0

    def _start_from(self, path: Path) -> None:
        network, metadata = checkpoint.load(path)
        ours = self.module.architecture
        # Neither changes which weights there are.
        if replace(metadata.architecture, dropout=ours.dropout, upsampling=ours.upsampling) != ours:
            raise UserError(f"{path}: is a {metadata.architecture}, expected a {ours}")
        self.module.start_from(network)
        self.initial_sha256 = file_sha256(path)

    @property
    def minutes(self) -> float:
        """Minutes this run has taken so far, earlier parts included."""
        return (self.seconds_before + time.monotonic() - self._began) / 60

    def done(self) -> float:
        """How far the run is, in the schedule's unit."""
        match self.config.schedule.unit:
            case "steps":
                return self.module.steps
            case "epochs":
                return self.module.steps / self.steps_per_epoch
            case "minutes":
                return self.minutes

    def run(self) -> str:
        """Train until the schedule ends, ``max_minutes`` are over, or a signal asks to stop; return a summary.

        The state is saved in each of these cases, so the run can go on from there.
        """
        schedule, progress, looked = self.config.schedule, Progress(), self._began
        with stop_requests() as stopped:
            while not schedule.finished(self.done()) and not stopped() and not self._out_of_time():
                batch = next(self.loader)
                losses = self.module.step(batch, schedule.factor(self.done()))
                progress.add(losses, len(batch.modalities))
                if progress.due():
                    share = min(1.0, self.done() / schedule.total)
                    progress.line(self.module.steps, share, self.loader.waited, self._seconds_left(share))
                if self._validation_due(looked):
                    self._validate_and_checkpoint(progress)
                    looked = time.monotonic()
            finished = schedule.finished(self.done())
            if stopped() or self._looked_at == self.module.steps:
                self._save()  # who asks to stop does not want to wait for a validation; nor is one needed twice
            else:
                self._validate_and_checkpoint(progress)
        self.loader.close()
        self.metrics_logger.close()
        return self._summary("finished" if finished else "stopped, continue with --resume")

    def _out_of_time(self) -> bool:
        limit = self.run_config.max_minutes
        return limit is not None and time.monotonic() - self._began >= 60 * limit

    def _seconds_left(self, share: float) -> float:
        begun = time.monotonic() - self._began
        here = share - self._share_before
        left = begun / here * (1 - share) if here > 0 else math.inf
        return left if self.run_config.max_minutes is None else min(left, 60 * self.run_config.max_minutes - begun)

    def _validation_due(self, looked: float) -> bool:
        if self.run_config.validate_minutes is not None:
            return time.monotonic() - looked >= 60 * self.run_config.validate_minutes
        return self.module.steps % self.steps_per_epoch == 0

    def _validate_and_checkpoint(self, progress: Progress) -> None:
        """Validate, log, save."""
        self._looked_at = self.module.steps
        rate, waiting = progress.pace(self.loader.waited)
        network = self.module.eval_network.eval()
        self.scores = validate(
            self.held_out,
            self.preprocessing,
            lambda b: self.module.predict(network, b.to(self.run_config.device)),
            stride=self.stride,
        )
        figures = progress.take_means() | self.scores
        figures |= {
            "learning_rate": self.config.learning_rate * self.config.schedule.factor(self.done()),
            "samples_per_second": rate,
            "loader_waits": waiting,
        }
        self.metrics_logger.write(self.module.steps, self.module.steps / self.steps_per_epoch, self.minutes, figures)
        better = self.scores and self.scores["pcc/mean"] > self.best.get("pcc/mean", -math.inf)
        if better:
            self.best = self.scores
            checkpoint.save(self.run_config.output / BEST, network, self.metadata())
        self._save()
        if self.scores:
            shown = ", ".join(f"{name[4:]} {v:.3f}" for name, v in self.scores.items() if name.startswith("pcc/"))
            print(
                f"step {self.module.steps}, {duration(60 * self.minutes)}: PCC {shown}{' (best)' * bool(better)}",
                flush=True,
            )
        progress.reset(self.loader.waited)

    def metadata(self) -> CheckpointMetadata:
        """What a checkpoint says about itself."""
        notes = {
            "version": __version__,
            "torch": str(torch.__version__),
            "command": self.run_config.command,
            "settings": json.dumps(self.config.as_dict(), sort_keys=True),
            "seed": str(self.config.seed),
            "steps": str(self.module.steps),
            "batch_size": str(self.source.batch_size),
            "minutes": f"{self.minutes:.1f}",
            **self.source.notes(),
            "validation_planes": str(len(self.held_out)),
            "validation": json.dumps({name: round(value, 4) for name, value in self.scores.items()}),
            "split_sha256": self.data,
        }
        if self.initial_sha256:
            notes["started_from_sha256"] = self.initial_sha256
        labels = self.source.labels
        return CheckpointMetadata(
            architecture=self.module.architecture,
            input_normalization=self.config.input_normalization,
            target_normalization=self.config.target_normalization,
            window=self.config.window,
            pixel_size_um=self.source.pixel_size_um,
            modalities=tuple(m for m in Modality if m in labels),
            labels=labels,
            trained_on=self.run_config.trained_on,
            recipe=self.config.recipe,
            notes=notes,
        )

    def _save(self) -> None:
        checkpoint.save(self.run_config.output / LAST, self.module.eval_network, self.metadata())
        state = {
            "format": STATE_FORMAT,
            "config": self.config.as_dict(),
            "data": self.data,
            "module": self.module.state(),
            "next_batch": self.loader.next,
            "seconds": 60 * self.minutes,
            "best": self.best,
            "initial_sha256": self.initial_sha256,
        }
        with atomic_write(self.run_config.output / STATE) as file:
            torch.save(state, file)

    def _restore(self) -> int:
        path = self.run_config.output / STATE
        if not path.is_file():
            raise UserError(f"{path}: not found, expected the saved state of a run to resume")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.run_config.device, weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            raise UserError(f"{path}: cannot be read as a training state ({type(error).__name__})") from error
        if state.get("format") != STATE_FORMAT:
            raise UserError(f"{path}: has format {state.get('format')}, expected {STATE_FORMAT}")
        self.config.require_same(state["config"])
        if state["data"] != self.data:
            raise UserError(f"{path}: was made with other data, expected the fields and planes given by --data")
        self.module.restore(state["module"])
        self.seconds_before, self.best = state["seconds"], state["best"]
        self.initial_sha256 = state["initial_sha256"]
        return int(state["next_batch"])

    def _summary(self, how: str) -> str:
        output = self.run_config.output
        lines = [f"{how}: {self.module.steps} steps in {duration(60 * self.minutes)}; {output / LAST}"]
        if self.best:
            lines.append(
                f"best mean PCC {self.best['pcc/mean']:.3f} on {len(self.held_out)} held-out planes: {output / BEST}"
            )
        else:
            why = "stopped before the first validation" if self.held_out else "nothing was held out"
            lines.append(f"{why}, so there is no best checkpoint, only the last")
        return "\n".join(lines)
