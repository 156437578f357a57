"""Predict many images: the next planes are read and the last is written while the networks compute.

An image whose outputs were predicted earlier, from the same bytes by the same checkpoints with the same settings, is
skipped: each output says in its provenance what made it. So is each plane of a stack that was not finished. An image
that may have ended an earlier run comes last, alone; see `attempts`.
"""

import logging
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import Enum

from .attempts import Attempts
from .batch_options import BatchOptions
from .case import Case
from .case_job import CaseJob, open_job
from .case_writer import keep_plane, remove_outputs, write_case
from .device_pool import DevicePool
from .discovery import refuse_equal_outputs
from .errors import SelectionError
from .images.open_stack import open_stack
from .images.stack import SceneError, Stack
from .plan import NetworkInputs, NetworkOutputs
from .predictor import Predictor

log = logging.getLogger(__name__)


class Status(Enum):
    """Result of a case, as the user reads it."""

    PREDICTED = "predicted"
    ALREADY_PREDICTED = "already predicted"
    IS_PREDICTION = "skipped: a prediction of this program"
    ELSEWHERE = "left to another process that predicts it"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Result of one case.

    Attributes
    ----------
    case : Case
    status : Status
    message : str
        Shape and modality, as far as they are known, and the status; one line.
    seconds : float
        From the case's turn to its last prediction.
    error : Exception or None
        Why it failed.
    job : CaseJob or None
        What was decided about it, where its outputs are there.
    """

    case: Case
    status: Status
    message: str
    seconds: float
    error: Exception | None = None
    job: CaseJob | None = None


@dataclass(frozen=True)
class CaseEnd:
    """All that is left to do of a case once its planes are predicted."""

    case: Case
    status: Status
    message: str
    job: CaseJob | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class PlaneRead:
    """A plane that the networks are to predict; `number` counts the planes of its case."""

    job: CaseJob
    number: int
    inputs: NetworkInputs


@dataclass(frozen=True)
class Step:
    """What the reader hands on: a plane, the end of a case, or its last plane with its end."""

    plane: PlaneRead | None
    end: CaseEnd | None


@dataclass(frozen=True)
class PlanePredicted:
    """What the networks made of a plane, or why not; neither where its case had failed before."""

    outputs: NetworkOutputs | None = None
    error: Exception | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class PendingWrite:
    """A case that the networks are done with, and that is being written."""

    end: CaseEnd
    seconds: float
    writing: Future[None]

    def outcome(self) -> Outcome:
        """Wait for the writer."""
        error = self.writing.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        if error is not None:
            return Outcome(self.end.case, Status.FAILED, Status.FAILED.value, self.seconds, error)
        job, message = self.end.job, self.end.message
        if job is not None and self.end.status is Status.PREDICTED:
            message = job.message  # by now it states the disagreement
        return Outcome(self.end.case, self.end.status, message, self.seconds, job=job)


def predict_cases(
    cases: Iterable[Case],
    predictors: Sequence[Predictor],
    batch_options: BatchOptions,
    attempts: Attempts | None = None,
) -> Generator[Outcome, None, None]:
    """Predict case by case and yield each outcome, in order, once its files are written.

    With one predictor, at most three planes are in memory: one being read, one in the networks, one being written.
    An error of one case is its outcome and affects no other; none of its outputs remains, not even of an earlier run.
    Warnings are logged. If the caller stops early, what is being written is still finished, and what is not begun is
    dropped.

    Parameters
    ----------
    cases : iterable of Case
        A case that another process is predicting, or died of, is put off until all others are done.
    predictors : sequence of Predictor
        One a device, alike but for that.
    batch_options : BatchOptions
    attempts : Attempts, optional
        What marks the images in progress, for a caller that closes it when its process is ended in the middle.
    """
    batch = _Batch(predictors, batch_options, attempts or Attempts())
    with closing(batch.attempts):
        yield from batch.run(cases, alone=False)
        for case in batch.put_off:
            log.info("%s: another run is or was at it; it comes now, alone.", case.title)
            yield from batch.run([case], alone=True)


class _Batch:
    """The threads of `predict_cases`: one reads, one a device computes, one writes."""

    def __init__(self, predictors: Sequence[Predictor], options: BatchOptions, attempts: Attempts) -> None:
        self.pool, self.options = DevicePool(predictors), options
        self.planner = predictors[0]
        self.devices = len(predictors)
        self.attempts = attempts
        self.put_off: list[Case] = []

    def run(self, cases: Iterable[Case], alone: bool) -> Generator[Outcome, None, None]:
        """Predict cases; those that are not to be begun yet are put off."""
        reader, writer, networks = (ThreadPoolExecutor(workers) for workers in (1, 1, self.devices))
        steps = (step for case in cases for step in self._read(case, alone))
        computing: deque[tuple[Step, Future[PlanePredicted]]] = deque()
        keeping, last = _finished(), None
        begun = time.perf_counter()
        try:
            following = reader.submit(next, steps, None)
            while (step := following.result()) is not None or computing:
                if step is not None:
                    following = reader.submit(next, steps, None)
                    computing.append((step, networks.submit(self._forward, step.plane)))
                    if len(computing) < 2 * self.devices - 1:  # a device that is done early has one to go on with
                        continue
                step, predicted = computing.popleft()
                result = predicted.result()
                if step.plane is not None:
                    _note_plane(step.plane, result)
                    keeping.result()  # so that no more than one plane waits for the disk
                    keeping = writer.submit(self._keep, step.plane, result.outputs)
                if step.end is None:
                    continue
                writing = writer.submit(self._finish, step.end)
                before, last = last, PendingWrite(step.end, time.perf_counter() - begun, writing)
                if before is not None:
                    yield self._outcome(before)
                begun = time.perf_counter()
            if last is not None:
                yield self._outcome(last)
        finally:
            for threads in (reader, networks):
                threads.shutdown(wait=False, cancel_futures=True)  # nobody needs what they still read or compute
            writer.shutdown()

    def _read(self, case: Case, alone: bool) -> Iterator[Step]:
        """Read and preprocess the planes of a case, or of each scene of its file, that are not there yet."""
        try:
            if not (self.attempts.begin_alone if alone else self.attempts.begin)(case):
                if alone:
                    yield Step(None, CaseEnd(case, Status.ELSEWHERE, Status.ELSEWHERE.value))
                else:
                    self.put_off.append(case)
                return
            scenes = yield from self._read_open(case)
        except Exception as error:  # whatever is wrong with one image must not affect the others
            yield Step(None, CaseEnd(case, Status.FAILED, Status.FAILED.value, error=error))
            return
        if scenes:
            self.attempts.end(case)
        for scene in scenes:
            yield from self._read(scene, alone)

    def _read_open(self, case: Case) -> Generator[Step, None, list[Case]]:
        """Read the planes of a case, unless its file turns out to hold several scenes: their cases are returned."""
        wanted = self.options.selection.scene
        try:
            with open_stack(case.source, case.scene) as stack:
                scenes = [] if case.scene is not None else case.of_scenes(stack.info.scenes, wanted)
                if not scenes:
                    yield from self._read_planes(case, stack)
        except SceneError as error:  # the first one is wrong; the others may be read
            if case.scene is not None:
                raise
            scenes = case.of_scenes(error.scenes, wanted)
        refuse_equal_outputs(scenes)
        return scenes

    def _read_planes(self, case: Case, stack: Stack) -> Iterator[Step]:
        job = open_job(case, stack, self.planner, self.options)
        if job is None:
            yield Step(None, CaseEnd(case, Status.IS_PREDICTION, Status.IS_PREDICTION.value))
            return
        if not self.options.force and job.is_written():
            already = Status.ALREADY_PREDICTED
            yield Step(None, CaseEnd(case, already, f"{job.message}, {already.value}", job))
            return
        end = CaseEnd(case, Status.PREDICTED, job.message, job)
        missing = list(range(job.planes)) if self.options.force else job.missing_planes()
        for number in missing:
            if job.error is not None:
                missing = []
                break
            t, z = job.selected.positions[number]
            pixels = stack.read_plane(t, job.selected.channel, z)
            inputs = self.planner.preprocess(pixels, job.plane_plan(number))
            yield Step(PlaneRead(job, number, inputs), end if number == missing[-1] else None)
        if not missing:
            yield Step(None, end)

    def _forward(self, plane: PlaneRead | None) -> PlanePredicted:
        """Run the networks on a plane."""
        if plane is None or plane.job.error is not None:
            return PlanePredicted()
        begun = time.perf_counter()
        try:
            outputs = self.pool.forward(plane.inputs)
        except Exception as error:
            return PlanePredicted(error=error)
        return PlanePredicted(outputs, seconds=time.perf_counter() - begun)

    def _keep(self, plane: PlaneRead, outputs: NetworkOutputs | None) -> None:
        """Postprocess a plane and keep it until its case is complete; an error is the job's."""
        if outputs is None:
            return
        try:
            keep_plane(plane.job, plane.number, plane.inputs, outputs)
            self.attempts.progressed(plane.job.case)
        except Exception as error:
            plane.job.error = error

    def _finish(self, end: CaseEnd) -> None:
        """Write the files of a case whose planes are complete; remove them where anything went wrong."""
        job, error = end.job, end.error
        try:
            if error is None and job is not None:
                error = job.error
            if error is not None:
                raise error
            if job is not None and end.status is Status.PREDICTED:
                write_case(job)
        except SelectionError:
            raise
        except Exception:
            remove_outputs(end.case, self.options.outputs)
            raise

    def _outcome(self, pending: PendingWrite) -> Outcome:
        """Wait for the writer."""
        outcome = pending.outcome()
        self.attempts.end(pending.end.case)
        return outcome


def _note_plane(plane: PlaneRead, predicted: PlanePredicted) -> None:
    """Log what there is to say of a plane, in the order of the planes; an error is the job's."""
    job = plane.job
    if predicted.outputs is None and predicted.error is None:
        return
    for warning in job.new_warnings(plane.inputs.warnings):
        log.warning("%s: %s.", job.case.title, warning)
    if predicted.error is not None:
        job.error = job.error or predicted.error
    elif job.planes > 1:
        log.info("%s: plane %d of %d, %.1f s", job.case.title, plane.number + 1, job.planes, predicted.seconds)


def _finished() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
