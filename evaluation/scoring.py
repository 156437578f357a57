"""From pairs of files to results: read, check, score, in parallel where there are many."""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from evaluation.focus import Focus, FocusTable
from evaluation.metrics import score
from evaluation.pairing import Pair
from model.contrast import missing_contrast
from model.discovery import is_prediction
from model.errors import UserError
from model.images import Image, inspect, read_image
from model.labels import Modality
from model.margins import find_margins
from model.naming import modality_token

UNKNOWN_MODALITY = "unknown"
PAIRS_PER_WORKER = 32  # a process takes seconds to start: not worth it for fewer


@dataclass(frozen=True)
class Result:
    """The metrics of one prediction and what they are grouped by.

    Attributes
    ----------
    pair : Pair
    modality : str
        BF, PC or DIC, else `UNKNOWN_MODALITY`.
    z_deviation : int or None
        Planes between the input and the best focus, |z - best z|; None where no ``focus.csv`` tells.
    metrics : mapping of str to float
        By the names of `METRICS`.
    provenance : mapping of str to str
        How the prediction was made, by its file's own account.
    warnings : tuple of str
        What there is to say of the truth, one sentence each.
    """

    pair: Pair
    modality: str
    z_deviation: int | None
    metrics: Mapping[str, float]
    provenance: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def score_pairs(pairs: Sequence[Pair], focus: FocusTable, workers: int) -> Iterator[Result]:
    """Score all pairs, in parallel where there are many.

    Parameters
    ----------
    pairs : sequence of Pair
    focus : FocusTable
        May be empty.
    workers : int
        Processes at most.

    Yields
    ------
    Result
        Of each pair, in order.

    Raises
    ------
    UserError
        For the first file that cannot be read or has the wrong shape.
    """
    rows = [focus.get(pair.key) for pair in pairs]
    workers = min(workers, len(pairs) // PAIRS_PER_WORKER)
    if workers < 2:
        yield from map(score_pair, pairs, rows)
        return
    # spawn, since a fork copies the locks of whatever threads numerical libraries have started
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(score_pair, pairs, rows)


def score_pair(pair: Pair, focus: Focus | None) -> Result:
    """Score one prediction; raises UserError where a file is unreadable or the shapes differ."""
    prediction = read_image(pair.prediction)
    axes, provenance = prediction.info.axes, prediction.info.provenance
    if axes != "YX":  # (1, Y, X) is one plane to the reader, but fails the challenge's evaluation
        raise UserError(f"{pair.prediction}: found an image with the axes {axes}, expected two axes (YX).")
    truth = read_image(pair.truth)
    if is_prediction(truth.info.provenance):
        raise UserError(f"{pair.truth}: found a prediction of this program, expected the ground truth.")
    try:
        metrics = score(prediction.pixels, truth.pixels, pair.organelle)
    except UserError as error:
        raise UserError(f"{pair.prediction}: {error} Ground truth: {pair.truth}.") from None
    return Result(
        pair,
        modality=_modality(pair, focus, provenance),
        z_deviation=focus.z_deviation if focus else None,
        metrics=metrics,
        provenance=provenance,
        warnings=_warnings(truth),
    )


def _warnings(truth: Image) -> tuple[str, ...]:
    blank = missing_contrast(truth.pixels, find_margins(truth.pixels))
    found = (*truth.info.warnings, *([blank] if blank else []))
    return tuple(f"{truth.info.path}: {warning}." for warning in found)


def _modality(pair: Pair, focus: Focus | None, provenance: Mapping[str, str]) -> str:
    found: Modality | None = modality_token(pair.key) or (focus.modality if focus else None)
    if found is None and pair.source is not None:
        found = inspect(pair.source).modality
    return found or provenance.get("modality", UNKNOWN_MODALITY)
