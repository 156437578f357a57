"""What a run tells while it runs: a progress line, log.csv and TensorBoard."""

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

COLUMNS = ("step", "epoch", "minutes", "name", "value")


class MetricsLogger:
    """Writes figures as long-format rows of ``log.csv`` (``step,epoch,minutes,name,value``) and as TensorBoard scalars.

    A resumed run drops the rows that the stopped run wrote after its last saved state, and writes them again.
    """

    def __init__(self, folder: Path, *, resumed_at: int) -> None:
        self._path = folder / "log.csv"
        kept: list[list[str]] = []
        if resumed_at and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as stream:
                kept = [row for row in list(csv.reader(stream))[1:] if int(row[0]) <= resumed_at]
        with self._path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([COLUMNS, *kept])
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1 if resumed_at else None)

    def write(self, step: int, epoch: float, minutes: float, figures: Mapping[str, float]) -> None:
        """Log figures by name at one step."""
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            for name, value in figures.items():
                rows.writerow([step, f"{epoch:.3f}", f"{minutes:.2f}", name, f"{value:.6g}"])
                self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class Progress:
    """Running means since the last line, and a line now and then: rewritten on a terminal, appended elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every = 1.0 if self._terminal else 30.0
        self._printed = time.monotonic()
        self._began = self._printed
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._samples = 0
        self._started_waited = 0.0

    def add(self, losses: Mapping[str, float], samples: int) -> None:
        """Count one step."""
        for name, value in losses.items():
            self._sums[name].append(value)
        self._samples += samples

    def take_means(self) -> dict[str, float]:
        """Mean of each loss since this was last called."""
        means = {f"loss/{name}": sum(values) / len(values) for name, values in self._sums.items()}
        self._sums.clear()
        return means

    def pace(self, waited: float) -> tuple[float, float]:
        """(samples a second, share of the time spent waiting for the loader) since the last reset."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return self._samples / seconds, (waited - self._started_waited) / seconds

    def reset(self, waited: float) -> None:
        """Begin to measure the pace anew, e.g. after a validation."""
        self._began, self._samples, self._started_waited = time.monotonic(), 0, waited

    def due(self) -> bool:
        return time.monotonic() - self._printed >= self._every

    def line(self, step: int, share: float, waited: float, seconds_left: float) -> None:
        """Print how far the run is, its losses, its pace and the time left."""
        rate, waiting = self.pace(waited)
        losses = ", ".join(f"{name} {sum(v[-50:]) / len(v[-50:]):.4f}" for name, v in self._sums.items() if v)
        text = (
            f"step {step} ({share:.1%})  {losses}  {rate:.1f} samples/s, loader waits {waiting:.0%}, "
            f"{duration(seconds_left)} left"
        )
        print(
            f"\r{text:<110}" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
        self._printed = time.monotonic()


def duration(seconds: float) -> str:
    """E.g. ``1 h 05 min``, ``12 min``, ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
