"""Predict many images: the next is read and the last is written while the networks compute.

An image whose outputs were predicted earlier, from the same bytes by the same checkpoints with the same settings, is
skipped: each output says in its provenance what made it.
"""

import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from .discovery import Case, is_prediction
from .errors import UserError
from .files import file_sha256
from .images import ImageInfo, read_image, write_plane
from .labels import Modality, Organelle
from .naming import modality_token
from .plan import NetworkInputs, Plan
from .predictor import Predictor

log = logging.getLogger(__name__)

NOT_COMPARED = {"device"}
"""Provenance that may differ: a batch that was begun on a CPU may be finished on a GPU."""


@dataclass(frozen=True)
class BatchOptions:
    """How to treat images.

    Attributes
    ----------
    modality : Modality or None
        Of images that do not say theirs.
    override_modality : bool
        Whether `modality` also holds for images that say another one.
    strict : bool
        Whether an unknown modality is an error.
    force : bool
        Whether to predict what is already predicted.
    """

    modality: Modality | None = None
    override_modality: bool = False
    strict: bool = False
    force: bool = False


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
    """

    case: Case
    status: Status
    message: str
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True)
class LoadedCase:
    """One case as read.

    Attributes
    ----------
    info : ImageInfo
    plan : Plan
    inputs : NetworkInputs or None
        None: the case is already predicted.
    warnings : tuple of str
        One clause each, without the file's name.
    """

    info: ImageInfo
    plan: Plan
    inputs: NetworkInputs | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PendingWrite:
    """One case that the networks are done with, and that is being written."""

    case: Case
    status: Status
    message: str
    seconds: float
    writing: Future[None]

    def outcome(self) -> Outcome:
        """Wait for the writer."""
        error = self.writing.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        if error is not None:
            return Outcome(self.case, Status.FAILED, Status.FAILED.value, self.seconds, error)
        return Outcome(self.case, self.status, self.message, self.seconds)


def predict_cases(
    cases: Sequence[Case], predictor: Predictor, batch_options: BatchOptions
) -> Generator[Outcome, None, None]:
    """Predict case by case and yield each outcome, in order, once its four files are written.

    At most three cases are in memory: one being read, one in the networks, one being written. An error of one case
    is its outcome and affects no other; none of its outputs remains, not even of an earlier run. Warnings are logged.
    If the caller stops early, what is being written is still finished, and what is not begun is dropped.
    """
    reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    try:
        readings = (reader.submit(_read, case, predictor, batch_options) for case in cases)
        following = next(readings, None)
        last: PendingWrite | None = None
        for case in cases:
            begun = time.perf_counter()
            reading, following = following, next(readings, None)
            assert reading is not None, "as many are read as there are cases"
            status, message, writing = _predict(case, reading, predictor, writer)
            before, last = last, PendingWrite(case, status, message, time.perf_counter() - begun, writing)
            if before is not None:
                yield before.outcome()
        if last is not None:
            yield last.outcome()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)  # nobody needs what it still reads
        writer.shutdown()


def _read(case: Case, predictor: Predictor, batch_options: BatchOptions) -> LoadedCase | None:
    """Read, plan and preprocess; None where the image is itself a prediction."""
    image = read_image(case.source)
    if is_prediction(image.info):
        return None
    modality, warnings = _choose_modality(case, image.info, batch_options)
    plan = predictor.plan(modality, image.info.shape, image.info.pixel_size_um)
    plan = plan.with_provenance(input_sha256=file_sha256(case.source))
    if not batch_options.force and all(_is_done(case, organelle, plan) for organelle in Organelle):
        return LoadedCase(image.info, plan, None)
    inputs = predictor.preprocess(image.pixels, plan)
    return LoadedCase(
        image.info, inputs.plan, inputs, (*warnings, *image.info.warnings, *plan.warnings, *inputs.warnings)
    )


def _predict(
    case: Case, reading: Future[LoadedCase | None], predictor: Predictor, writer: ThreadPoolExecutor
) -> tuple[Status, str, Future[None]]:
    """Run the networks on what was read and hand the result to the writer; an error waits in the future."""
    try:
        loaded = reading.result()
        if loaded is None:
            return Status.IS_PREDICTION, Status.IS_PREDICTION.value, _finished()
        height, width = loaded.info.shape
        message = f"{height} x {width} px, {loaded.plan.modality or 'unknown modality'}"
        if loaded.inputs is None:
            return Status.ALREADY_PREDICTED, f"{message}, {Status.ALREADY_PREDICTED.value}", _finished()
        for warning in loaded.warnings:
            log.warning("%s: %s.", case.title, warning)
        outputs = predictor.forward(loaded.inputs)
    except Exception as error:  # whatever is wrong with one image must not affect the others
        _remove_outputs(case)
        return Status.FAILED, Status.FAILED.value, _finished(error)
    return Status.PREDICTED, message, writer.submit(_write, case, loaded, outputs)


def _write(case: Case, loaded: LoadedCase, outputs: Mapping[Organelle, Tensor]) -> None:
    try:
        for organelle, prediction in Predictor.postprocess(outputs, loaded.plan).items():
            write_plane(
                case.outputs[organelle],
                prediction,
                channel=organelle.label,
                pixel_size_um=loaded.info.pixel_size_um,
                provenance=loaded.plan.provenance[organelle],
            )
    except Exception:
        _remove_outputs(case)
        raise


def _remove_outputs(case: Case) -> None:
    """Remove the outputs of a failed case, also of an earlier run: they could be taken for its result."""
    for path in case.outputs.values():
        if os.path.lexists(path) and not os.path.isdir(path):
            try:
                path.unlink()
            except OSError as error:
                log.warning("%s: this output of an earlier run cannot be removed (%s).", path, error.strerror)


def _finished(error: Exception | None = None) -> Future[None]:
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


def _choose_modality(
    case: Case, info: ImageInfo, batch_options: BatchOptions
) -> tuple[Modality | None, tuple[str, ...]]:
    """Take the modality from the file, its name at upload or the option, in this order unless overridden."""
    option, stated, source = batch_options.modality, info.modality, "the file"
    if stated is None and case.original_name:
        stated, source = modality_token(case.original_name), "its name at upload"
    if stated is None:
        stated = option
    if stated is not None and option in (stated, None):
        return stated, ()
    if stated is not None and batch_options.override_modality:
        return option, (f"--modality {option} is followed, although {source} says {stated}",)
    if stated is not None:
        ignored = f"{source} says {stated}, --modality {option} is not followed; --override-modality follows it"
        return stated, (ignored,)
    unknown = "nothing tells whether this is BF, PC or DIC"
    if batch_options.strict:
        raise UserError(f"{case.title}: {unknown}, expected its channel name, its file name or --modality to say so.")
    return None, (f"{unknown}, so the unified network predicts all organelles",)


def _is_done(case: Case, organelle: Organelle, plan: Plan) -> bool:
    """Whether the output can be read to its last pixel, and says of itself what it would say if it were made now."""
    try:
        output = read_image(case.outputs[organelle])
    except UserError:  # absent, damaged, or of another program
        return False
    recorded = output.info.provenance
    return output.info.shape == plan.shape and all(
        recorded.get(key) == value for key, value in plan.provenance[organelle].items() if key not in NOT_COMPARED
    )
