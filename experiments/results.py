"""The scores of a claim as a file: for each method and seed the means over the planes. Seeds may come one by one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from experiments.scoring import MeanScore
from model.errors import UserError
from model.files import write_text

Scores = Mapping[str, Mapping[int, list[MeanScore]]]
"""By method and seed."""


@dataclass(frozen=True)
class Result:
    """What stands in the file."""

    scale: str
    scores: dict[str, dict[int, list[MeanScore]]]


_FORMAT = TypeAdapter(Result)


def read_result(path: Path) -> Result:
    """Read a file that `add_seed` wrote; raises UserError where it is something else."""
    try:
        return _FORMAT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def add_seed(path: Path, scale: str, seed: int, found: Mapping[str, list[MeanScore]]) -> Scores:
    """Write the scores of a seed into a file that may have others already.

    Parameters
    ----------
    path : Path
    scale : str
        Name of the scale.
    seed : int
    found : mapping of str to list of MeanScore
        By method.

    Returns
    -------
    Scores
        Of all seeds, sorted.

    Raises
    ------
    UserError
        Where the file has scores of another scale or of other methods.
    """
    before = read_result(path) if path.is_file() else Result(scale, {method: {} for method in found})
    if before.scale != scale:
        raise UserError(f"{path}: has scores at scale {before.scale}, expected {scale}; remove it.")
    if before.scores.keys() != found.keys():
        expected = ", ".join(found)
        raise UserError(f"{path}: has scores of {', '.join(before.scores)}, expected those of {expected}; remove it.")
    scores = {method: dict(sorted({**before.scores[method], seed: found[method]}.items())) for method in found}
    write_text(path, json.dumps(_FORMAT.dump_python(Result(scale, scores), mode="json")) + "\n")
    return scores
