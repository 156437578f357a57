"""Many images through one predictor: the next is read and the last is written while the networks work.

What was predicted before, from the same bytes by the same checkpoints at the same settings, is not done again:
each output says in its provenance what made it.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from .errors import UserError
from .files import file_sha256
from .grand_challenge import Case
from .images import ImageInfo, inspect, read_image, write_plane
from .labels import Modality, Organelle
from .naming import modality_token
from .plan import NetworkInputs, Plan
from .predictor import Predictor

log = logging.getLogger(__name__)

NOT_COMPARED = {"device"}
"""A GPU's prediction is as good as a CPU's: half a batch may be done on either."""


@dataclass(frozen=True)
class BatchOptions:
    """How to treat images: the modality of those that do not tell theirs, whether that is an error, doing all anew."""

    modality: Modality | None = None
    strict: bool = False
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one case: in message, or the error; seconds are those from its turn to its last prediction."""

    case: Case
    message: str
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True)
class LoadedCase:
    """One case as read: what its file says, what is planned, and what the networks get; None: its outputs are there."""

    info: ImageInfo
    plan: Plan
    inputs: NetworkInputs | None


@dataclass(frozen=True)
class PendingWrite:
    """One case that the networks are done with, and that is being written."""

    case: Case
    message: str
    seconds: float
    writing: Future[None]

    def outcome(self) -> Outcome:
        error = self.writing.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Outcome(self.case, "failed" if error else self.message, self.seconds, error)


def predict_cases(cases: Sequence[Case], predictor: Predictor, batch_options: BatchOptions) -> Iterator[Outcome]:
    """Predict case by case and yield each outcome, in order, once its four files are written.

    At most three cases are in memory: one being read, one in the networks, one being written. An error of one
    case is its outcome and costs no other. Warnings are logged. If the caller stops early, what is being
    written is still finished, and what is not begun is dropped.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        readings = (reader.submit(_read, case, predictor, batch_options) for case in cases)
        following = next(readings, None)
        last: PendingWrite | None = None
        for case in cases:
            begun = time.perf_counter()
            reading, following = following, next(readings, None)
            assert reading is not None, "as many are read as there are cases"
            message, writing = _predict(case, reading, predictor, writer)
            before, last = last, PendingWrite(case, message, time.perf_counter() - begun, writing)
            if before is not None:
                yield before.outcome()
        if last is not None:
            yield last.outcome()


def _read(case: Case, predictor: Predictor, batch_options: BatchOptions) -> LoadedCase:
    image = read_image(case.source)
    modality = _find_modality(case, image.info, batch_options)
    plan = predictor.plan(modality, image.info.shape, image.info.pixel_size_um)
    plan = plan.with_provenance(input_sha256=file_sha256(case.source))
    done = not batch_options.force and all(_is_done(case, organelle, plan) for organelle in Organelle)
    if done:
        return LoadedCase(image.info, plan, None)
    inputs = predictor.preprocess(image.pixels, plan)
    return LoadedCase(image.info, inputs.plan, inputs)


def _predict(
    case: Case, reading: Future[LoadedCase], predictor: Predictor, writer: ThreadPoolExecutor
) -> tuple[str, Future[None]]:
    """Run the networks on what was read and hand the result to the writer; an error waits in the future."""
    try:
        loaded = reading.result()
        height, width = loaded.info.shape
        message = f"{height} x {width} px, {loaded.plan.modality or 'unknown modality'}"
        if loaded.inputs is None:
            return f"{message}, is there already", _finished()
        if loaded.plan.modality is None:
            log.warning(f"{_modality_unknown(case)}, so the unified network predicts all organelles.")
        for warning in (*loaded.info.warnings, *loaded.plan.warnings, *loaded.inputs.warnings):
            log.warning(f"{case.title}: {warning}.")
        outputs = predictor.forward(loaded.inputs)
    except Exception as error:  # whatever is wrong with one image must not cost the others
        return "failed", _finished(error)
    return message, writer.submit(_write, case, loaded, outputs)


def _write(case: Case, loaded: LoadedCase, outputs: Mapping[Organelle, Tensor]) -> None:
    for organelle, prediction in Predictor.postprocess(outputs, loaded.plan).items():
        write_plane(
            case.outputs[organelle],
            prediction,
            channel=organelle.label,
            pixel_size_um=loaded.info.pixel_size_um,
            provenance=loaded.plan.provenance[organelle],
        )


def _finished(error: Exception | None = None) -> Future[None]:
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


def _find_modality(case: Case, info: ImageInfo, batch_options: BatchOptions) -> Modality | None:
    """What the file says itself comes first, then its name at upload, then what the user says."""
    if info.modality is not None:
        return info.modality
    if case.original_name and (named := modality_token(case.original_name)):
        return named
    if batch_options.modality is None and batch_options.strict:
        raise UserError(f"{_modality_unknown(case)}, expected its channel name, its file name or --modality to say so.")
    return batch_options.modality


def _modality_unknown(case: Case) -> str:
    return f"{case.title}: nothing tells whether this is BF, PC or DIC"


def _is_done(case: Case, organelle: Organelle, plan: Plan) -> bool:
    """Whether the output is there, whole, and says of itself what it would say if it were made now."""
    try:
        recorded = inspect(case.outputs[organelle]).provenance
    except UserError:  # absent or no image of ours: to be made
        return False
    return all(
        recorded.get(key) == value for key, value in plan.provenance[organelle].items() if key not in NOT_COMPARED
    )
