"""The loop: steps, validation, what is saved, and going on where a run was stopped."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import torch

from model import __version__, checkpoint
from model.checkpoint import CheckpointMetadata
from model.entry_points import interrupts_noted
from model.errors import UserError
from model.files import file_sha256
from model.labels import Modality
from model.networks.build import Network
from model.preprocessing import Preprocessing
from training.batches import Loader
from training.config import RunConfig
from training.data import Data
from training.distributed import on_first_rank, rank, sum_over_ranks, world_size
from training.input_statistics import learned_inputs
from training.metrics_logger import MetricsLogger, Progress, duration
from training.options import as_table, require_same
from training.pix2pix_module import Pix2PixModule
from training.run_folder import RunFolder
from training.validation import choose_planes, large_enough, validate

log = logging.getLogger(__name__)


class Trainer:
    """One run. Nothing is written before `run`.

    Parameters
    ----------
    config : RunConfig
        Complete and valid, see `training.options.parse`.
    data : Data
        What to learn from, and held-out fields to score, of which there may be none.
    device : torch.device

    Raises
    ------
    UserError
        Where ``config.init`` is not a checkpoint of the same architecture.
    """

    def __init__(self, config: RunConfig, data: Data, device: torch.device) -> None:
        self.config, self.source, self.device = config, data.source, device
        self.trained_on = config.trained_on or data.origin
        self.folder = RunFolder(config.output)
        self.steps_per_epoch = config.steps_per_epoch or data.source.steps_per_epoch
        self.preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
        torch.manual_seed(config.seed)
        self.module = Pix2PixModule(config, device, _initial_network(config))
        self.initial_sha256 = file_sha256(config.init) if config.init else ""
        self.stride = self.module.network.stride
        scorable, skipped = large_enough(data.validation.fields, self.preprocessing, self.stride)
        for entry in skipped:
            log.warning("not scored, %s: %s", entry.name, entry.reason)
        self.held_out = choose_planes(scorable, config.validation_planes, config.seed)
        self.split_sha256 = hashlib.sha256((data.source.digest() + data.validation.digest()).encode()).hexdigest()
        self.input_statistics = learned_inputs(data.examples.fields, self.preprocessing)
        self.best: dict[str, float] = {}
        self.scores: dict[str, float] = {}
        parts = range(rank() * config.accumulate, (rank() + 1) * config.accumulate)
        self.loader = Loader(data.source, workers=config.workers, parts=parts)
        self.metrics_logger = MetricsLogger(config.output)
        self.progress = Progress()
        self.seconds = 0.0
        self._seconds_before = 0.0
        self._began = time.monotonic()
        self._interrupted = False
        self._validated_at = -1

    @classmethod
    def resume(cls, config: RunConfig, data: Data, device: torch.device) -> "Trainer":
        """Go on with the run in ``config.output``, bit for bit where its schedule is in epochs or steps.

        Parameters as of the constructor. Raises UserError where no state was saved, or the run was started with
        another configuration, other data or another number of processes.
        """
        folder = RunFolder(config.output)
        state = folder.read_state(device)
        require_same(config, state["config"], folder.state)
        if state["world_size"] != world_size():
            raise UserError(
                f"{folder.state}: was saved by {state['world_size']} processes, expected as many to resume it, found "
                f"{world_size()}: see torchrun's --nproc-per-node."
            )
        # The weights of --init are in the state; its file need not be there any more.
        trainer = cls(replace(config, init=None), data, device)
        if state["split_sha256"] != trainer.split_sha256:
            raise UserError(f"{folder.state}: was made with other data, expected the same fields, planes and labels.")
        trainer.config = config
        trainer.module.restore(state["module"])
        trainer.loader.next = state["next_batch"]
        trainer.best, trainer.scores, trainer._validated_at = state["best"], state["scores"], state["validated_at"]
        trainer.initial_sha256 = state["initial_sha256"]
        trainer.seconds = trainer._seconds_before = state["seconds"]
        return trainer

    @property
    def minutes(self) -> float:
        """Minutes this run has taken until its last step, earlier parts included."""
        return self.seconds / 60

    def done(self) -> float:
        """How far the run is, in the schedule's unit."""
        match self.config.schedule.unit:
            case "steps":
                return self.module.steps
            case "epochs":
                return self.module.steps / self.steps_per_epoch
            case "time":
                return self.minutes

    def run(self) -> bool:
        """Train until the schedule ends, ``max_minutes`` are over, or SIGINT or SIGTERM asks to stop.

        The state is saved in each of these cases, so that the run can go on from there.

        Returns
        -------
        bool
            Whether a signal stopped it.
        """
        self._began = time.monotonic()
        # A signal while what is open is closed would hide why: torchrun sends one as soon as another rank has died.
        with interrupts_noted() as interrupted, closing(self.loader), closing(self.metrics_logger):
            on_first_rank(self._open)
            try:
                self._train(interrupted)
            except (torch.OutOfMemoryError, MemoryError) as error:
                where = self.device if isinstance(error, torch.OutOfMemoryError) else "This machine"
                raise UserError(
                    f"{where} has too little memory for step {self.module.steps + 1}, "
                    "try a smaller --crop, --width or --batch-per-organelle."
                ) from error
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"The networks cannot be compiled ({reason}), leave --compile out.") from error
            return self._interrupted

    def _open(self) -> None:
        resumed = self._seconds_before > 0
        (self.folder.resume if resumed else self.folder.begin)(self.config)
        self.metrics_logger.open(resumed_at=self.module.steps)

    def _train(self, interrupted: Callable[[], bool]) -> None:
        schedule = self.config.schedule
        begun_at, validated = self._share(), self.seconds
        self._agree(interrupted)
        while not (schedule.finished(self.done()) or self._interrupted or self._out_of_time()):
            losses = self.module.step(next(self.loader), schedule.factor(self.done()))
            if rank() == 0:
                self._tell(losses, begun_at)
            self._agree(interrupted)
            if self._validation_due(validated):
                self._validated_at = self.module.steps
                on_first_rank(self._validate_and_checkpoint)
                self._agree(interrupted)
                validated = self.seconds
        # Who asks to stop does not want to wait for a validation; nor is one needed twice.
        if self._interrupted or self._validated_at == self.module.steps:
            on_first_rank(self._save)
        else:
            self._validated_at = self.module.steps
            on_first_rank(self._validate_and_checkpoint)
        self._agree(interrupted)

    def _agree(self, interrupted: Callable[[], bool]) -> None:
        """Take over the clock of rank 0, and whether any rank was asked to stop: all decide alike on both."""
        seconds, interrupts = sum_over_ranks([0.0 if rank() else self._elapsed(), float(interrupted())])
        self.seconds, self._interrupted = self._seconds_before + seconds, interrupts > 0

    def _elapsed(self) -> float:
        """Seconds of this part of the run."""
        return time.monotonic() - self._began

    def _tell(self, losses: dict[str, float], begun_at: float) -> None:
        self.progress.add(losses, self.source.batch_size)
        if self.progress.due():
            self.progress.line(self.module.steps, self._share(), self.loader.waited, self._seconds_left(begun_at))

    def _share(self) -> float:
        return min(1.0, self.done() / self.config.schedule.total)

    def _out_of_time(self) -> bool:
        limit = self.config.schedule.part_minutes
        return limit is not None and self.seconds - self._seconds_before >= 60 * limit

    def _seconds_left(self, begun_at: float) -> float:
        """Of this part of the run, which began at that share of the schedule."""
        elapsed, share = self._elapsed(), self._share()
        left = elapsed / (share - begun_at) * (1 - share) if share > begun_at else math.inf
        limit = self.config.schedule.part_minutes
        return left if limit is None else min(left, 60 * limit - elapsed)

    def _validation_due(self, validated: float) -> bool:
        if self.config.validate_minutes is not None:
            return self.seconds - validated >= 60 * self.config.validate_minutes
        return self.module.steps % self.steps_per_epoch == 0

    def _validate_and_checkpoint(self) -> None:
        """Score the held-out planes, log all metrics, and save."""
        rate, waiting = self.progress.pace(self.loader.waited)
        network = self.module.eval_network.eval()
        self.scores = validate(
            self.held_out,
            self.preprocessing,
            lambda batch: self.module.predict(network.forward, batch.to(self.device)),  # never compiled for each shape
            stride=self.stride,
        )
        metrics = self.progress.take_means() | self.scores
        metrics |= {
            "learning_rate": self.config.learning_rate * self.config.schedule.factor(self.done()),
            "samples_per_second": rate,
            "loader_waits": waiting,
        }
        self.metrics_logger.write(self.module.steps, self.module.steps / self.steps_per_epoch, self.minutes, metrics)
        is_best = bool(self.scores) and self.scores["pcc/mean"] > self.best.get("pcc/mean", -math.inf)
        if is_best:
            self.best = self.scores
            checkpoint.save(self.folder.best, network, self.metadata())
        self._save()
        if self.scores:
            shown = ", ".join(f"{name[4:]} {v:.3f}" for name, v in self.scores.items() if name.startswith("pcc/"))
            elapsed = duration(60 * self.minutes)
            log.info("step %d, %s: PCC %s%s", self.module.steps, elapsed, shown, " (best)" if is_best else "")
        self.progress.reset(self.loader.waited)

    def _save(self) -> None:
        checkpoint.save(self.folder.last, self.module.eval_network, self.metadata())
        self.folder.write_state(
            {
                "config": as_table(self.config),
                "split_sha256": self.split_sha256,
                "module": self.module.state(),
                "next_batch": self.loader.next,
                "seconds": self._seconds_before + self._elapsed(),
                "world_size": world_size(),
                "best": self.best,
                "scores": self.scores,
                "validated_at": self._validated_at,
                "initial_sha256": self.initial_sha256,
            }
        )

    def metadata(self) -> CheckpointMetadata:
        """Describe the network as it is now, for a checkpoint."""
        notes = {
            "version": __version__,
            "torch": str(torch.__version__),
            "config": json.dumps(as_table(self.config), sort_keys=True),
            "seed": str(self.config.seed),
            "steps": str(self.module.steps),
            "batch_size": str(self.source.batch_size),
            "precision": str(self.module.precision),
            "minutes": f"{self.minutes:.1f}",
            **self.source.notes(),
            "validation_planes": str(len(self.held_out)),
            "validation": json.dumps({name: round(value, 4) for name, value in self.scores.items()}),
            "split_sha256": self.split_sha256,
        }
        if self.initial_sha256:
            notes["started_from_sha256"] = self.initial_sha256
        labels = self.source.labels
        return CheckpointMetadata(
            architecture=self.config.architecture,
            input_normalization=self.config.input_normalization,
            target_normalization=self.config.target_normalization,
            window=self.config.window,
            pixel_size_um=self.source.pixel_size_um,
            modalities=tuple(m for m in Modality if m in labels),
            labels=labels,
            trained_on=self.trained_on,
            recipe=self.config.recipe,
            notes=notes,
            input_statistics=self.input_statistics,
        )

    def summary(self) -> str:
        """Say how far the run came, and where its checkpoints are."""
        finished = self.config.schedule.finished(self.done())
        lines = [
            f"{'Finished' if finished else 'Stopped, --resume goes on'}: "
            f"{self.module.steps} steps in {duration(60 * self.minutes)}; {self.folder.last}"
        ]
        if self.best:
            lines.append(
                f"best mean PCC {self.best['pcc/mean']:.3f} on {len(self.held_out)} held-out planes: {self.folder.best}"
            )
        else:
            why = "stopped before the first validation" if self.held_out else "no held-out plane can be scored"
            lines.append(f"{why}, so there is no best checkpoint, only the last")
        return "\n".join(lines)


def _initial_network(config: RunConfig) -> Network | None:
    if config.init is None:
        return None
    network, metadata = checkpoint.load(config.init)
    ours = config.architecture
    # Neither dropout nor upsampling changes which weights there are; a foreground branch may begin at random.
    theirs = replace(metadata.architecture, dropout=ours.dropout, upsampling=ours.upsampling)
    if theirs not in (ours, replace(ours, foreground=False)):
        names = ("network", "width", "blocks", "dynamic", "foreground", "organelles")
        differing = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
        found, expected = (
            ", ".join(f"{name} {getattr(architecture, name)}" for name in differing) for architecture in (theirs, ours)
        )
        raise UserError(f"{config.init}: has {found}, expected {expected}, see --recipe, --width and --blocks.")
    return network
