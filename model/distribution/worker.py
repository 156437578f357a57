"""What runs in a worker process: `predict_cases` on a part of the batch, with one predictor for all parts.

Outcomes and log records go to the client as they come, by events of Dask, in order. They are pickled, since names of
files may hold what Dask's own messages cannot.
"""

import logging
import logging.handlers
import pickle
import queue
import signal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import FrameType

import torch
from distributed import Worker, WorkerPlugin, get_worker

from ..attempts import Attempts
from ..batch import Outcome, predict_cases
from ..batch_options import BatchOptions
from ..case import Case
from ..commands import log as package_log
from ..commands import one_sentence
from ..errors import UserError
from ..memory import tune_malloc
from ..predictor import Predictor
from ..settings import InferenceSettings

TOPIC = "in-silico-labelling"
"""Of the events: pickled `logging.LogRecord`, `Done` or `Finished`."""


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker predicts.

    Attributes
    ----------
    resources : Path
        Folder of the networks, absolute.
    device : str
        As of `find_device`.
    settings : InferenceSettings
    rescale : bool
    batch_options : BatchOptions
    """

    resources: Path
    device: str
    settings: InferenceSettings
    rescale: bool
    batch_options: BatchOptions


@dataclass(frozen=True)
class Done:
    """An image of a task is done."""

    task: int
    outcome: Outcome


@dataclass(frozen=True)
class Finished:
    """All images of a task are done."""

    task: int


class PrepareWorker(WorkerPlugin):  # type: ignore[misc]  # Dask's types are not read
    """Prepares a worker process, and takes back the markers of its images where it is ended in the middle of them.

    Parameters
    ----------
    threads : int
        Of the networks. Dask's nannies set OMP_NUM_THREADS to 1.
    """

    name = "in-silico-labelling"

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def setup(self, worker: Worker) -> None:
        """Prepare the process of a worker."""
        tune_malloc()
        torch.set_num_threads(self.threads)
        package_log.handlers = [_ToClient(worker)]
        package_log.setLevel(logging.INFO)
        package_log.propagate = False
        signal.signal(signal.SIGTERM, _end)  # of a job that is cancelled or at its time limit

    def teardown(self, worker: Worker) -> None:
        """Take back the markers: an orderly end is no fault of an image."""
        _forget_attempts()


def _end(number: int, _: FrameType | None) -> None:
    _forget_attempts()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _forget_attempts() -> None:
    if _attempts is not None:
        _attempts.close()


class _ToClient(logging.handlers.QueueHandler):
    """Makes records portable and sends them."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(queue.SimpleQueue())
        self._worker = worker

    def enqueue(self, record: logging.LogRecord) -> None:
        self._worker.log_event(TOPIC, pickle.dumps(record))


_attempts: Attempts | None = None


def predict_part(task: int, cases: Sequence[Case], options: WorkerOptions) -> None:
    """Predict some of the images in a worker; `UserError` where the networks or the device cannot be used."""
    global _attempts
    worker, predictor = get_worker(), _open_predictor(options)
    _attempts = Attempts()
    with closing(predict_cases(cases, [predictor], options.batch_options, _attempts)) as outcomes:
        for outcome in outcomes:
            worker.log_event(TOPIC, pickle.dumps(Done(task, _portable(outcome))))
    worker.log_event(TOPIC, pickle.dumps(Finished(task)))


@lru_cache(maxsize=1)
def _open_predictor(options: WorkerOptions) -> Predictor:
    return Predictor.open(options.resources, device=options.device, settings=options.settings, rescale=options.rescale)


def _portable(outcome: Outcome) -> Outcome:
    """Without what stays in this process, and with an error that any process can read."""
    error = None if outcome.error is None else UserError(one_sentence(outcome.error))
    return replace(outcome, job=None, error=error)
