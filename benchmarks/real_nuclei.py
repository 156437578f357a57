"""How well checkpoints predict the nuclei of real cells, which they have never learned from.

    python -m benchmarks.real_nuclei --real ../shared/real --output runs/real

Each study is in two halves: on half A settings may be chosen, half B is the result. Study_101 (bright field, 20x) is
split by acquisition, in turn by the order of their names; Study_104 (phase contrast, 20x) by cell type, HeLa being
half A; Study_102 (phase contrast, one field) has three planes in focus, all in half A. Prints Markdown and writes
benchmarks/results/real_nuclei.json; pictures of the worst fields go to --output, outside the repository.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from benchmarks.planes import Plane, planes
from evaluation.metrics import pcc
from model import PRESETS, InferenceSettings, Organelle, Predictor

RESULTS = Path(__file__).with_name("results") / "real_nuclei.json"
IN_FOCUS = (10, 11, 12)  # z planes of Study_102
WORST = 5


@dataclass(frozen=True)
class Score:
    """One input plane: its half, PCC of the nucleus, and the pictures."""

    name: str
    half: str
    pcc: float
    pixels: NDArray[np.uint16]
    prediction: NDArray[np.uint16]
    truth: NDArray[np.uint16]


def halves(real: Path, study: str) -> dict[int, str]:
    """Image number to "A" or "B"."""
    index = real / f"index_{study}.tsv"
    if not index.exists():
        return {}
    with index.open(newline="") as file:
        group = {int(row["image"]): row["name"].split("_")[0] for row in csv.DictReader(file, delimiter="\t")}
    if study == "Study_104":
        return {image: "A" if name == "HeLa" else "B" for image, name in group.items()}
    order = sorted(set(group.values()))
    return {image: "AB"[order.index(name) % 2] for image, name in group.items()}


def study_planes(real: Path, study: str) -> Iterator[tuple[str, Plane]]:
    """Half and plane of all of a study (of Study_102 those in focus), in the order of their names."""
    half = halves(real, study)
    for plane in planes(real / study):
        if study != "Study_102" or plane.name.z in IN_FOCUS:
            yield half.get(plane.name.image, "A"), plane


def scores(real: Path, study: str, predictor: Predictor) -> list[Score]:
    """Predict every plane of a study and score its nuclei."""
    found = []
    for half, plane in study_planes(real, study):
        image, truth = plane.image, plane.truths()[Organelle.NUCLEUS]
        size = image.info.pixel_size_um
        prediction = predictor.predict(image.pixels, plane.name.modality, pixel_size_um=size)[Organelle.NUCLEUS]
        value = pcc(prediction.astype(np.float64), truth.astype(np.float64))
        found.append(Score(plane.path.name, half, value, image.pixels, prediction, truth))
    return found


def draw_worst(rows: list[Score], path: Path) -> None:
    """Input, prediction and truth of the worst planes, one row each."""
    rows = sorted(rows, key=lambda score: score.pcc)[:WORST]
    figure, axes = plt.subplots(len(rows), 3, figsize=(9, 3.1 * len(rows)), squeeze=False)
    for line, score in zip(axes, rows, strict=True):
        for axis, image in zip(line, (score.pixels, score.prediction, score.truth), strict=True):
            low, high = np.percentile(image, (0.5, 99.8))
            axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1))
            axis.axis("off")
        line[0].set_title(score.name, fontsize=8)
        line[1].set_title(f"predicted, PCC {score.pcc:.2f}", fontsize=8)
        line[2].set_title("fluorescence", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder with the studies and their index files")
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures, outside the repository")
    parser.add_argument("--resources", type=Path, help="folder of checkpoints (default: the shipped ones)")
    parser.add_argument("--studies", nargs="+", default=["Study_101", "Study_102", "Study_104"])
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    settings: InferenceSettings = PRESETS[options.preset]
    document: dict[str, dict[str, float | int]] = {}
    print("| study | half | planes | nucleus PCC, mean | worst five |\n|---|---|---|---|---|")
    with Predictor.open(options.resources, settings=settings) as predictor:
        for study in options.studies:
            found = scores(options.real, study, predictor)
            draw_worst(found, options.output / f"worst_{study}.png")
            for half in sorted({score.half for score in found}):
                values = sorted(score.pcc for score in found if score.half == half)
                worst = ", ".join(f"{value:.2f}" for value in values[:WORST])
                print(f"| {study} | {half} | {len(values)} | {np.mean(values):.3f} | {worst} |", flush=True)
                document[f"{study} {half}"] = {"PCC": round(float(np.mean(values)), 4), "planes": len(values)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
