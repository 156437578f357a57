"""Hand the images of a batch to Dask workers, and collect what becomes of each."""

import logging
import pickle
import queue
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import Any

from distributed import Client, Future, KilledWorker, Scheduler, SchedulerPlugin, SpecCluster

from ..batch import Outcome, Status
from ..case import Case
from ..commands import one_sentence
from ..errors import UserError
from .clusters import IMAGES_A_TASK, JOB_LOGS, all_jobs_ended
from .worker import TOPIC, Done, Finished, PrepareWorker, WorkerOptions, predict_part

log = logging.getLogger(__name__)

LOST_S = 120.0
"""How long there may be no worker before it is asked whether any will come."""

_RETRIES = 2  # of a task whose worker cannot use its device or the networks
_CHECK_S = 1.0
_GO_ON = "the same command goes on with what is left."


class LostError(UserError):
    """No worker is left, or Dask's scheduler has ended; what was predicted until then is complete."""


class Dispatcher:
    """Hands parts of a batch to the workers of a cluster.

    Parameters
    ----------
    client : Client
    cluster : SpecCluster
    workers : int
        How many workers there are to be.
    options : WorkerOptions
    """

    def __init__(self, client: Client, cluster: SpecCluster, workers: int, options: WorkerOptions) -> None:
        self._client, self._cluster, self._workers, self._options = client, cluster, workers, options
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks: dict[int, _Task] = {}
        self._checked = self._seen_worker = time.monotonic()
        client.subscribe_topic(TOPIC, lambda event: self._messages.put(pickle.loads(event[1])))
        self._watch = _Watch(self._messages)
        cluster.scheduler.add_plugin(self._watch)

    def close(self) -> None:
        """Stop watching the workers: from now on they are ended on purpose."""
        self._cluster.scheduler.remove_plugin(self._watch.name)

    def outcomes(self, cases: Iterable[Case], total: int) -> Iterator[Outcome]:
        """Predict all cases and yield each outcome once, as it is done.

        A part whose worker ends is begun again by another one. Log records of the workers are logged here.

        Raises
        ------
        LostError
            Where no worker is left.
        UserError
            Where workers cannot use their device or the networks.
        """
        parts = _parts(cases, max(1, min(IMAGES_A_TASK, total // (2 * self._workers))))
        numbers = count()
        while True:
            # Several a worker, so that Dask sees a queue; of a million images not all at once.
            for part in islice(parts, 4 * self._workers - len(self._tasks)):
                self._submit(next(numbers), part)
            if not self._tasks:
                return
            if time.monotonic() - self._checked > _CHECK_S:
                self._check_workers()
            yield from self._next_outcomes()

    def _submit(self, number: int, cases: Sequence[Case]) -> None:
        future = self._client.submit(
            predict_part, number, cases, self._options, key=f"predict-{number}", retries=_RETRIES, pure=False
        )
        self._tasks[number] = _Task(future, cases)
        future.add_done_callback(lambda future: self._messages.put((number, future)))

    def _next_outcomes(self) -> Iterator[Outcome]:
        """Wait for the next message of a worker or of Dask; a second at most."""
        try:
            message = self._messages.get(timeout=_CHECK_S)
        except queue.Empty:
            return
        match message:
            case logging.LogRecord():
                logging.getLogger(message.name).handle(message)
            case Done(number, outcome) if number in self._tasks and self._tasks[number].take(outcome.case):
                yield outcome
            case Finished(number):
                self._tasks.pop(number, None)
            case _Lost():
                log.warning("A worker ended; what it was predicting is begun again.")
            case (int(number), Future() as future) if future.status != "finished" and number in self._tasks:
                yield from self._failed(self._tasks.pop(number), future)

    def _failed(self, task: "_Task", future: Future) -> Iterator[Outcome]:
        """Name the images of a task that cannot be done."""
        error = future.exception() if future.status == "error" else None
        if error is None:
            raise LostError(f"Dask's scheduler has ended; {_GO_ON}")
        if isinstance(error, UserError):
            raise error
        if isinstance(error, KilledWorker):
            error = UserError(f"{2 * IMAGES_A_TASK} workers ended while they predicted it or its neighbours.")
        reason = UserError(one_sentence(error))
        for case in task.waiting.elements():
            yield Outcome(case, Status.FAILED, Status.FAILED.value, 0.0, reason)

    def _check_workers(self) -> None:
        """Replace lost workers; LostError where none is there, and none will come."""
        now = self._checked = time.monotonic()
        if self._client.status != "running":
            raise LostError(f"Dask's scheduler has ended; {_GO_ON}")
        if len(self._cluster.workers) < self._workers:
            self._cluster.scale(self._workers)
        if self._cluster.scheduler.workers:
            self._seen_worker = now
        elif now - self._seen_worker > LOST_S:
            if all_jobs_ended(self._cluster):
                raise LostError(
                    f"No worker is left (a job's log is in the folder {JOB_LOGS} of the output folder); {_GO_ON}"
                )
            log.info("No worker is there; the jobs wait in the cluster's queue.")
            self._seen_worker = now


class _Task:
    """A part of the batch at a worker; `waiting` counts its files without an outcome, or without one of each scene."""

    def __init__(self, future: Future, cases: Sequence[Case]) -> None:
        self.future = future  # Dask forgets what nobody holds
        self.waiting = Counter(cases)
        self._scenes: defaultdict[Case, set[Case]] = defaultdict(set)

    def take(self, case: Case) -> bool:
        """Note an outcome; False where there was one before, of a worker that ended later."""
        file = case.whole_file
        if not self.waiting[file] or case in self._scenes[file]:
            return False
        if case.scene is not None:
            self._scenes[file].add(case)
        if case.scene is None or len(self._scenes[file]) == case.scenes:
            self.waiting[file] -= 1
        return True


class _Lost:
    """A worker has left."""


class _Watch(SchedulerPlugin):  # type: ignore[misc]  # Dask's types are not read
    name = "in-silico-labelling"

    def __init__(self, messages: "queue.SimpleQueue[Any]") -> None:
        self._messages = messages

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        self._messages.put(_Lost())


def prepare_workers(client: Client, threads: int) -> None:
    """Prepare each worker's process, also of those that come later."""
    client.register_plugin(PrepareWorker(threads))


def _parts(cases: Iterable[Case], size: int) -> Iterator[tuple[Case, ...]]:
    iterator = iter(cases)
    return iter(partial(lambda: tuple(islice(iterator, size))), ())
