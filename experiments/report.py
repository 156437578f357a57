"""What the scores of a claim say: its checks over the seeds, a table, and a figure like the paper's Fig. 6."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import normalize, pcc
from experiments.definitions import Check, Claim, Side, read_claim
from experiments.results import Result, Scores, read_result
from experiments.scoring import mean, prediction_file
from model.files import write_text
from model.images import read_image
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse

RANKED_DISTANCE = 5
"""In planes; the challenge ranks up to here, and not all fields have planes further from their focus."""


WORDS = {True: "held", False: "did not hold", None: "undecided"}
SIGNS = {True: "✓", False: "✗", None: "?"}


@dataclass(frozen=True)
class Verdict:
    """What became of a check.

    Attributes
    ----------
    compared : str
        Metric and methods.
    where : str
        Modality, organelle or distance from the best focus that the check is about; empty for the mean over all.
    value : str
        Mean and spread over the seeds: of the difference of the two sides, with its sign, or of what is bounded.
    held : bool or None
        None: the seeds do not agree, or there are no such scores.
    """

    compared: str
    where: str
    value: str
    held: bool | None

    def __str__(self) -> str:
        return f"{', '.join(filter(None, (self.compared, self.where)))}: {self.value}, {WORDS[self.held]}"


def judge(claim: Claim, scores: Scores) -> list[Verdict]:
    """Decide about each check: it holds where it holds for every seed, and does not where it does for none."""
    return [_judge(check, scores) for check in claim.checks]


def _judge(check: Check, scores: Scores) -> Verdict:
    if check.of is not None:
        values = _of(check.metric, check.of, scores)
        low, high = check.at_least, check.at_most
        fulfilled = [(low is None or v >= low) and (high is None or v <= high) for v in values]
        bound = f"at least {low:g}" if low is not None else f"at most {high:g}"
        compared, where, sign = f"{check.metric} of {check.of.method} {bound}", _where(check.of), ""
    else:
        assert check.better is not None and check.than is not None
        better, than = (_of(check.metric, side, scores) for side in (check.better, check.than))
        values = tuple(b - t for b, t in zip(better, than, strict=True))
        fulfilled = [value > 0 for value in values]
        compared, sign = f"{check.metric} of {_over(check.better.method, check.than.method)}", "+"
        where = _over(_where(check.better), _where(check.than))
    known = not any(map(math.isnan, values))
    held = True if all(fulfilled) else False if known and not any(fulfilled) else None
    return Verdict(compared, where, spread(values, sign), held)


def claims_table(folder: Path, details: str = "") -> str:
    """Markdown: a row for each claim with results in a folder; it links to a section of the page `details`."""
    lines = ["| claim | its checks | held |", "|---|---|---|"]
    for name, claim, _, verdicts in _judged(folder):
        values: dict[str, list[str]] = {}
        for verdict in verdicts:
            value = f"{verdict.where} {verdict.value} {SIGNS[verdict.held]}".strip()
            values.setdefault(verdict.compared, []).append(value)
        found = "<br>".join(f"{compared}: {', '.join(of_checks)}" for compared, of_checks in values.items())
        held = [verdict.held for verdict in verdicts]
        together = WORDS[held[0]] if len(set(held)) == 1 else f"{held.count(True)} of {len(held)}"
        lines.append(f"| [{name}]({details}#{name}): {claim.claim} | {found} | {together} |")
    return "\n".join(lines)


def write_summary(folder: Path) -> None:
    """Write ``README.md`` from the results in a folder: whether each claim holds, then its checks, table and figure."""
    sections = ["# Results", "", claims_table(folder)]
    for name, claim, result, verdicts in _judged(folder):
        seeds = list(result.scores[claim.methods[0].name])
        command = f"python experiment.py {name} --scale {result.scale} --seeds {' '.join(map(str, seeds))}"
        sections += ["", f"## {name}", "", f"{claim.claim} ({claim.source})", "", f"`{command}`:", ""]
        sections += [*(f"- {verdict}" for verdict in verdicts), "", table(claim, result.scores), ""]
        sections += [f"![First test field, seed {min(seeds)}: {claim.claim}]({name}.jpg)"]
    write_text(folder / "README.md", "\n".join(sections) + "\n")


def _judged(folder: Path) -> Iterator[tuple[str, Claim, Result, list[Verdict]]]:
    for path in sorted(folder.glob("*.json")):
        claim, result = read_claim(path.stem), read_result(path)
        yield path.stem, claim, result, judge(claim, result.scores)


def _of(metric: str, side: Side, scores: Scores) -> tuple[float, ...]:
    return tuple(mean(of_seed, metric, side) for of_seed in scores[side.method].values())


def _where(side: Side) -> str:
    distance = {None: None, 0: "in focus"}.get(side.z_deviation, f"{side.z_deviation} planes off")
    return " ".join(str(part) for part in (side.modality, side.organelle, distance) if part)


def _over(better: str, than: str) -> str:
    return better if better == than else f"{better} over {than}"


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation over the seeds, e.g. "0.512 ± 0.010"; with "+" as `sign`, "+0.512 ± 0.010"."""
    if all(math.isnan(value) for value in values):
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.3f}{deviation}"


def table(claim: Claim, scores: Scores) -> str:
    """Markdown: a row for each metric, modality (or distance from focus) and method; a column for each organelle."""
    group = "planes from focus" if claim.group_by == "z_deviation" else "modality"
    lines = [f"| metric | {group} | method | " + " | ".join(map(str, Organelle)) + " | mean |"]
    lines.append("|" + "---|" * (len(Organelle) + 4))
    for metric in claim.metrics:
        for name, place in _groups(claim, scores):
            for method in claim.methods:
                cells = []
                for organelle in (*Organelle, None):
                    side = replace(place, method=method.name, organelle=organelle)
                    cells.append(spread(_of(metric, side, scores)))
                lines.append(f"| {metric} | {name} | {method.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(claim: Claim, scores: Scores) -> list[tuple[str, Side]]:
    """The table's rows: a name, and what is meant by it of any method."""
    every = [score for by_seed in scores.values() for of_seed in by_seed.values() for score in of_seed]
    if claim.group_by == "z_deviation":
        distances = {score.z_deviation for score in every if score.z_deviation is not None}
        return [(str(z), Side(method="", z_deviation=z)) for z in sorted(distances) if z <= RANKED_DISTANCE]
    return [(str(m), Side(method="", modality=m)) for m in Modality if any(score.modality is m for score in every)]


def draw(claim: Claim, seed: int, planes: Path, runs: Path, path: Path) -> None:
    """Draw input, truth and the prediction of each method; a row for each entry of ``claim.figure``."""
    columns = ["input", "truth", *(method.name for method in claim.methods)]
    figure, axes = plt.subplots(
        len(claim.figure), len(columns), figsize=(2.2 * len(columns), 2.35 * len(claim.figure)), squeeze=False
    )
    for title, axis in zip(columns, axes[0], strict=True):
        axis.set_title(title, fontsize=9)
    for row, entry in zip(axes, claim.figure, strict=True):
        modality, organelle = Modality(entry.split("/")[0]), Organelle(entry.split("/")[1])
        image = _example(planes, modality)
        name = parse(image.name)
        assert isinstance(name, InputName)
        truth = read_image(image.with_name(TargetName(name.image, organelle).filename)).pixels
        pictures: list[tuple[str, NDArray[np.uint16]]] = [("", read_image(image).pixels), ("", truth)]
        for method in claim.methods:
            predicted = read_image(prediction_file(method, seed, planes, runs, image, organelle)).pixels
            pictures.append((f"PCC {pcc(predicted, truth):.2f}", predicted))
        for axis, (score, picture) in zip(row, pictures, strict=True):
            axis.imshow(np.clip(normalize(picture), 0, 1), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(score, fontsize=8)
        row[0].set_ylabel(f"{modality}, {organelle}", fontsize=9)
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", pil_kwargs={"quality": 88})
    plt.close(figure)


def _example(planes: Path, modality: Modality) -> Path:
    """The plane of the first field that is in the middle of its stack of focal planes."""
    images = sorted(planes.rglob(f"image_*_{modality}_z*.ome.tiff"))
    of_first = [path for path in images if path.name.split("_z")[0] == images[0].name.split("_z")[0]]
    return of_first[len(of_first) // 2]
