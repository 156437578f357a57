"""What a run tells while it runs: a progress line, log.csv and TensorBoard."""

import csv
import io
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from model.errors import UserError
from model.files import unwritable, write_text

log = logging.getLogger(__name__)

LOG, TENSORBOARD = "log.csv", "tensorboard"
COLUMNS = ("step", "epoch", "minutes", "name", "value")
LINE_EVERY_S = 30.0
RECENT_STEPS = 50  # whose mean loss a line tells


class MetricsLogger:
    """Write metrics as rows of ``log.csv`` (``step,epoch,minutes,name,value``) and as TensorBoard scalars.

    A resumed run drops the rows that the stopped run wrote after its last saved state, and writes them again.

    Parameters
    ----------
    folder : Path
        The run's. Nothing is written before `open`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOG
        self._board: SummaryWriter | None = None

    def open(self, *, resumed_at: int = 0) -> None:
        """Begin to write.

        Parameters
        ----------
        resumed_at : int
            Step of the state that is resumed; 0: a new run.

        Raises
        ------
        UserError
            Where the ``log.csv`` of a resumed run is not one.
        """
        kept = _rows(self._path, resumed_at) if resumed_at and self._path.exists() else []
        table = io.StringIO()
        csv.writer(table).writerows([COLUMNS, *kept])
        write_text(self._path, table.getvalue())
        purge = resumed_at + 1 if resumed_at else None
        self._board = SummaryWriter(str(self._folder / TENSORBOARD), purge_step=purge)

    def write(self, step: int, epoch: float, minutes: float, metrics: Mapping[str, float]) -> None:
        """Log metrics by name at one step; UserError where the disk does not allow it."""
        assert self._board is not None, "write before open"
        try:
            with self._path.open("a", newline="", encoding="utf-8") as stream:
                rows = csv.writer(stream)
                for name, value in metrics.items():
                    rows.writerow([step, f"{epoch:.3f}", f"{minutes:.2f}", name, f"{value:.6g}"])
                    self._board.add_scalar(name, value, step)
            self._board.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        """Write what TensorBoard holds back."""
        if self._board is not None:
            with suppress(OSError):  # a full disk has been told of before
                self._board.close()


def _rows(path: Path, last_step: int) -> list[list[str]]:
    """Rows of a ``log.csv`` up to a step, whatever wrote its line ends, blank lines or byte order mark."""
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
        return [row for row in rows[1:] if int(row[0]) <= last_step]
    except (OSError, ValueError, csv.Error) as error:
        expected = f"expected {','.join(COLUMNS)} in UTF-8"
        raise UserError(f"{path}: is no log of a run ({error}), {expected}; correct or remove it.") from error


class Progress:
    """Running means since the last validation, and a log line now and then."""

    def __init__(self) -> None:
        self._told = self._began = time.monotonic()
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._samples = 0
        self._waited_before = 0.0

    def add(self, losses: Mapping[str, float], samples: int) -> None:
        """Count one step."""
        for name, value in losses.items():
            self._losses[name].append(value)
        self._samples += samples

    def take_means(self) -> dict[str, float]:
        """Mean of each loss since this was last called."""
        means = {f"loss/{name}": sum(values) / len(values) for name, values in self._losses.items()}
        self._losses.clear()
        return means

    def pace(self, waited: float) -> tuple[float, float]:
        """(samples a second, share of the time spent waiting for the loader) since the last reset."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return self._samples / seconds, (waited - self._waited_before) / seconds

    def reset(self, waited: float) -> None:
        """Begin to measure the pace anew, e.g. after a validation."""
        self._began, self._samples, self._waited_before = time.monotonic(), 0, waited

    def due(self) -> bool:
        """Whether the last line is long enough ago."""
        return time.monotonic() - self._told >= LINE_EVERY_S

    def line(self, step: int, share: float, waited: float, seconds_left: float) -> None:
        """Log how far the run is, its losses, its pace and the time left."""
        rate, waiting = self.pace(waited)
        recent = {name: values[-RECENT_STEPS:] for name, values in self._losses.items()}
        losses = ", ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in recent.items())
        log.info(
            "step %d (%.1f%%)  %s  %.1f samples/s, %.0f%% of the time waiting for images, %s left",
            *(step, 100 * share, losses, rate, 100 * waiting, duration(seconds_left)),
        )
        self._told = time.monotonic()


def duration(seconds: float) -> str:
    """E.g. ``1 h 05 min``, ``12 min``, ``40 s``."""
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
