"""From pairs of files to results: read, check, score, in parallel where there are many."""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from evaluation.focus import Focus, FocusTable
from evaluation.metrics import score
from evaluation.pairing import Pair
from model.errors import UserError
from model.images import inspect, read_image
from model.labels import Modality
from model.naming import modality_token

UNKNOWN_MODALITY = "unknown"
PAIRS_PER_WORKER = 32  # a process takes seconds to start: not worth it for fewer


@dataclass(frozen=True)
class Result:
    """The metrics of one prediction and what they are to be grouped by."""

    pair: Pair
    modality: str
    """BF, PC or DIC, else `UNKNOWN_MODALITY`."""
    z_deviation: int | None
    """Planes between the input and the best focus, |z - best z|; None where no `focus.csv` tells."""
    metrics: Mapping[str, float]
    provenance: Mapping[str, str]
    """What the prediction's file says about its making."""


def score_pairs(pairs: Sequence[Pair], focus: FocusTable, workers: int) -> Iterator[Result]:
    """Yield the result of each pair, in order, computed in up to `workers` processes.

    Raises `UserError`, naming the file, for the first one that cannot be read or has the wrong shape.
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
    """Score one prediction. Raises `UserError` if a file is unreadable or the shapes differ."""
    _require_two_axes(pair)
    prediction, truth = read_image(pair.prediction).pixels, read_image(pair.truth).pixels
    try:
        metrics = score(prediction, truth, pair.organelle)
    except UserError as error:
        raise UserError(f"{pair.prediction}: {error} Ground truth: {pair.truth}.") from None
    provenance = inspect(pair.prediction).provenance
    return Result(
        pair,
        modality=_modality(pair, focus, provenance),
        z_deviation=focus.z_deviation if focus else None,
        metrics=metrics,
        provenance=provenance,
    )


def _require_two_axes(pair: Pair) -> None:
    """A (1, Y, X) prediction is one plane to us, but fails the challenge's evaluation."""
    axes = inspect(pair.prediction).axes
    if axes != "YX":
        raise UserError(f"{pair.prediction}: found an image with the axes {axes}, expected two axes (YX).")


def _modality(pair: Pair, focus: Focus | None, provenance: Mapping[str, str]) -> str:
    found: Modality | None = modality_token(pair.key) or (focus.modality if focus else None)
    if found is None and pair.source is not None:
        found = inspect(pair.source).modality
    return found or provenance.get("modality", UNKNOWN_MODALITY)
