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
from .images.ome_tiff import Plane, read_plane, read_provenance, write_plane
from .labels import Modality, Organelle
from .naming import modality_token
from .predictor import NetworkInputs, PixelSize, Predictor

log = logging.getLogger(__name__)

Provenance = dict[Organelle, dict[str, str]]

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
    """One case as read: what is known of it, what its outputs will say, and its image; None: they are there."""

    shape: tuple[int, int]
    pixel_size_um: PixelSize | None
    modality: Modality | None
    provenance: Provenance
    image: NetworkInputs | None


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
    plane = read_plane(case.source)
    modality = _find_modality(case, plane, batch_options)
    provenance = predictor.provenance(modality, plane.pixel_size_um)
    sha256 = file_sha256(case.source)
    for metadata in provenance.values():
        metadata["input_sha256"] = sha256
    done = not batch_options.force and all(
        _is_done(case, organelle, metadata) for organelle, metadata in provenance.items()
    )
    image = None if done else predictor.preprocess(plane.pixels, modality, plane.pixel_size_um)
    return LoadedCase((plane.pixels.shape[0], plane.pixels.shape[1]), plane.pixel_size_um, modality, provenance, image)


def _predict(
    case: Case, reading: Future[LoadedCase], predictor: Predictor, writer: ThreadPoolExecutor
) -> tuple[str, Future[None]]:
    """Run the networks on what was read and hand the result to the writer; an error waits in the future."""
    try:
        read = reading.result()
        message = f"{read.shape[0]} x {read.shape[1]} px, {read.modality or 'unknown modality'}"
        if read.image is None:
            return f"{message}, is there already", _finished()
        if read.modality is None:
            log.warning(f"{_modality_unknown(case)}, so the unified network predicts all organelles.")
        if warning := predictor.scale_warning(read.modality, read.pixel_size_um):
            log.warning(f"{case.title}: {warning}.")
        outputs = predictor.forward(read.image)
    except Exception as error:  # whatever is wrong with one image must not cost the others
        return "failed", _finished(error)
    return message, writer.submit(_write, case, read, outputs)


def _write(case: Case, read: LoadedCase, outputs: Mapping[Organelle, Tensor]) -> None:
    for organelle, prediction in Predictor.postprocess(read.shape, outputs).items():
        write_plane(
            case.outputs[organelle],
            prediction,
            channel=organelle.label,
            pixel_size_um=read.pixel_size_um,
            provenance=read.provenance[organelle],
        )


def _finished(error: Exception | None = None) -> Future[None]:
    future: Future[None] = Future()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


def _find_modality(case: Case, plane: Plane, batch_options: BatchOptions) -> Modality | None:
    """What the file says itself comes first, then its name at upload, then what the user says."""
    if plane.modality is not None:
        return plane.modality
    if case.original_name and (named := modality_token(case.original_name)):
        return named
    if batch_options.modality is None and batch_options.strict:
        raise UserError(f"{_modality_unknown(case)}, expected its channel name, its file name or --modality to say so.")
    return batch_options.modality


def _modality_unknown(case: Case) -> str:
    return f"{case.title}: nothing tells whether this is BF, PC or DIC"


def _is_done(case: Case, organelle: Organelle, metadata: Mapping[str, str]) -> bool:
    """Whether the output is there, whole, and says of itself what it would say if it were made now."""
    path = case.outputs[organelle]
    try:
        recorded = read_provenance(path)
    except UserError:  # absent or no image of ours: to be made
        return False
    return all(recorded.get(key) == value for key, value in metadata.items() if key not in NOT_COMPARED)
