"""Predict many images: the next plane is read and the last is written while the networks compute.

An image whose outputs were predicted earlier, from the same bytes by the same checkpoints with the same settings, is
skipped: each output says in its provenance what made it. So is each plane of a stack that was not finished.
"""

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .batch_options import BatchOptions
from .case_job import CaseJob, open_job
from .disagreement import disagreement, disagreement_map
from .discovery import Case
from .images.open_stack import open_stack
from .images.stack import Stack
from .outputs import Content, OutputFile, output_files, remove_output, write_output
from .plan import NetworkInputs, NetworkOutputs
from .predictor import Predictor

log = logging.getLogger(__name__)


class Status(Enum):
    """Result of a case, as the user reads it."""

    PREDICTED = "predicted"
    ALREADY_PREDICTED = "already predicted"
    IS_PREDICTION = "skipped: a prediction of this program"
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
            message = job.message  # by now it says how much the rotations disagree
        return Outcome(self.end.case, self.end.status, message, self.seconds, job=job)


def predict_cases(
    cases: Sequence[Case], predictor: Predictor, batch_options: BatchOptions
) -> Generator[Outcome, None, None]:
    """Predict case by case and yield each outcome, in order, once its files are written.

    At most three planes are in memory: one being read, one in the networks, one being written. An error of one case
    is its outcome and affects no other; none of its outputs remains, not even of an earlier run. Warnings are logged.
    If the caller stops early, what is being written is still finished, and what is not begun is dropped.
    """
    reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    steps = (step for case in cases for step in _read(case, predictor, batch_options))
    try:
        following = reader.submit(next, steps, None)
        keeping: Future[None] = _finished()
        last: PendingWrite | None = None
        begun = time.perf_counter()
        while (step := following.result()) is not None:
            following = reader.submit(next, steps, None)
            if step.plane is not None:
                outputs = _predict(step.plane, predictor)
                keeping.result()  # so that no more than one plane waits for the disk
                keeping = writer.submit(_keep, step.plane, outputs)
            if step.end is None:
                continue
            writing = writer.submit(_finish, step.end, batch_options)
            before, last = last, PendingWrite(step.end, time.perf_counter() - begun, writing)
            if before is not None:
                yield before.outcome()
            begun = time.perf_counter()
        if last is not None:
            yield last.outcome()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)  # nobody needs what it still reads
        writer.shutdown()


def _read(case: Case, predictor: Predictor, batch_options: BatchOptions) -> Iterator[Step]:
    """Read and preprocess the planes of a case that are not there yet."""
    try:
        with open_stack(case.source) as stack:
            job = open_job(case, stack, predictor, batch_options)
            if job is None:
                yield Step(None, CaseEnd(case, Status.IS_PREDICTION, Status.IS_PREDICTION.value))
                return
            if not batch_options.force and job.is_written():
                already = Status.ALREADY_PREDICTED
                yield Step(None, CaseEnd(case, already, f"{job.message}, {already.value}", job))
                return
            end = CaseEnd(case, Status.PREDICTED, job.message, job)
            missing = list(range(job.planes)) if batch_options.force else job.missing_planes()
            for number in missing:
                if job.error is not None:
                    missing = []
                    break
                t, z = job.selected.positions[number]
                pixels = stack.read_plane(t, job.selected.channel, z)
                inputs = predictor.preprocess(pixels, job.plane_plan(number))
                yield Step(PlaneRead(job, number, inputs), end if number == missing[-1] else None)
            if not missing:
                yield Step(None, end)
    except Exception as error:  # whatever is wrong with one image must not affect the others
        yield Step(None, CaseEnd(case, Status.FAILED, Status.FAILED.value, error=error))


def _predict(plane: PlaneRead, predictor: Predictor) -> NetworkOutputs | None:
    """Run the networks on a plane; an error is the job's, and there is nothing to keep."""
    job = plane.job
    if job.error is not None:
        return None
    try:
        for warning in job.new_warnings(plane.inputs.warnings):
            log.warning("%s: %s.", job.case.title, warning)
        begun = time.perf_counter()
        outputs = predictor.forward(plane.inputs)
    except Exception as error:
        job.error = error
        return None
    if job.planes > 1:
        seconds = time.perf_counter() - begun
        log.info("%s: plane %d of %d, %.1f s", job.case.title, plane.number + 1, job.planes, seconds)
    return outputs


def _keep(plane: PlaneRead, outputs: NetworkOutputs | None) -> None:
    """Postprocess a plane and keep it until its case is complete; an error is the job's."""
    if outputs is None:
        return
    job, plan = plane.job, plane.inputs.plan
    try:
        predicted = Predictor.postprocess(outputs, plan)
        pixels = {Content(organelle): predicted[organelle] for organelle in predicted}
        provenance = {organelle: dict(entries) for organelle, entries in plan.provenance.items()}
        for organelle, std_YX in outputs.std.items():
            provenance[organelle]["disagreement"] = f"{disagreement(outputs.mean[organelle], std_YX):.3f}"
        for content in job.contents:
            if content.disagreement and content.organelle:
                pixels[content] = disagreement_map(outputs.std.get(content.organelle), plan.shape)
        job.store.add(*job.output_position(plane.number), pixels, provenance)
    except Exception as error:
        job.error = error


def _finish(end: CaseEnd, batch_options: BatchOptions) -> None:
    """Write the files of a case whose planes are complete; remove them where anything went wrong."""
    job, error = end.job, end.error
    try:
        if error is None and job is not None:
            error = job.error
        if error is not None:
            raise error
        if job is not None and end.status is Status.PREDICTED:
            _write(job)
    except Exception:
        _remove_outputs(output_files(end.case, batch_options.outputs))
        raise


def _write(job: CaseJob) -> None:
    with open_stack(job.case.source) as stack:
        planes = _PlanesOfCase(job, stack)
        for file in job.files:
            write_output(file, planes, job.geometry, job.measured_provenance(file.contents))
    if found := job.disagreement():
        numbers = ", ".join(f"{organelle} {value:.2f}" for organelle, value in found.items())
        job.message += f", rotations disagree: {numbers}"
    job.store.remove()


@dataclass(frozen=True)
class _PlanesOfCase:
    """The planes of a case's files: what was predicted, and the input itself."""

    job: CaseJob
    stack: Stack

    def read(self, t: int, z: int, content: Content) -> NDArray[np.uint16]:
        """Read one plane by its indices in the output."""
        if content.organelle is not None:
            return self.job.store.read(t, z, content)
        number = t * self.job.geometry.focal_planes + z
        stored_t, stored_z = self.job.selected.positions[number]
        return self.stack.read_plane(stored_t, self.job.selected.channel, stored_z)


def _remove_outputs(files: Sequence[OutputFile]) -> None:
    """Remove the outputs of a failed case, also of an earlier run: they could be taken for its result."""
    for file in files:
        try:
            remove_output(file)
        except OSError as error:
            log.warning("%s: this output of an earlier run cannot be removed (%s).", file.path, error.strerror)


def _finished() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
