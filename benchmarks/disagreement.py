"""Whether the disagreement of an image's rotations tells which predictions are bad: rank correlation with the PCC.

    python simulate.py --output data/disagreement --fields 24 --seed 424242 --planes 3
    python -m benchmarks.disagreement --simulated data/disagreement --real ../shared/real --output runs/disagreement

Simulated planes have all organelles; of the real Study_101 (bright field) and Study_104 (phase contrast) only nuclei
are known, split into halves as in `real_nuclei`. Spearman's rho with a bootstrap interval of 95 %: -1 would be a
perfect warning, 0 none. The ten images of Study_101 that disagree most are drawn to --output, outside the repository.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.planes import planes
from benchmarks.real_nuclei import halves
from evaluation.metrics import pcc
from model import PRESETS, Predictor
from model.disagreement import disagreement

RESULTS = Path(__file__).with_name("results") / "disagreement.json"
RESAMPLINGS, DRAWN = 2000, 10


def relative_mean(mean_YX: Tensor, std_YX: Tensor) -> float:
    return float(std_YX.mean() / mean_YX.std().clamp_min(1e-6))


def foreground(mean_YX: Tensor, std_YX: Tensor) -> float:
    bright = mean_YX > torch.quantile(mean_YX.flatten()[:: max(1, mean_YX.numel() // 10**6)], 0.8)
    return float(std_YX[bright].mean() / mean_YX.std().clamp_min(1e-6))


MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "rms / contrast (in use)": disagreement,
    "mean / contrast": relative_mean,
    "mean in the brightest fifth / contrast": foreground,
    "mean": lambda mean_YX, std_YX: float(std_YX.mean()),
    "no disagreement: -contrast": lambda mean_YX, std_YX: -float(mean_YX.std()),
}


@dataclass(frozen=True)
class Judged:
    """One prediction: where from, how bad by each measure, and how good in truth."""

    group: str
    name: str
    measures: dict[str, float]
    pcc: float
    pixels: NDArray[np.uint16]
    prediction: NDArray[np.uint16]


def judged(folder: Path, groups: dict[int, str], label: str, predictor: Predictor) -> Iterator[Judged]:
    """Predict each plane of the challenge's layout below a folder and judge the organelles that have a truth."""
    for plane in planes(folder):
        image, name, truths = plane.image, plane.name, plane.truths()
        plan = predictor.plan(name.modality, image.info.shape, image.info.pixel_size_um)
        outputs = predictor.forward(predictor.preprocess(image.pixels, plan))
        for organelle, prediction in predictor.postprocess(outputs, plan).items():
            if organelle not in truths or organelle not in outputs.std:
                continue
            value = pcc(prediction.astype(np.float64), truths[organelle].astype(np.float64))
            measures = {
                key: measure(outputs.mean[organelle], outputs.std[organelle]) for key, measure in MEASURES.items()
            }
            half = f" {groups[name.image]}" if name.image in groups else ""
            yield Judged(f"{label}{half}, {organelle}", plane.path.name, measures, value, image.pixels, prediction)


def rank_correlation(found: list[Judged], measure: str) -> tuple[float, float, float]:
    """Spearman's rho, and the bounds of its bootstrap interval."""
    values = np.array([judgement.measures[measure] for judgement in found])
    truth, rng = np.array([judgement.pcc for judgement in found]), np.random.default_rng(0)
    drawn = (rng.integers(len(found), size=len(found)) for _ in range(RESAMPLINGS))
    resampled = [spearmanr(values[index], truth[index])[0] for index in drawn]
    low, high = np.nanpercentile(resampled, (2.5, 97.5))
    return float(spearmanr(values, truth)[0]), float(low), float(high)


def draw(found: list[Judged], path: Path) -> None:
    """Draw the images that disagree most, the worst first: input above prediction."""
    key = next(iter(MEASURES))
    worst = sorted(found, key=lambda judgement: -judgement.measures[key])[:DRAWN]
    figure, axes = plt.subplots(4, DRAWN // 2, figsize=(3 * DRAWN // 2, 12.5), squeeze=False)
    for number, judgement in enumerate(worst):
        block, column = divmod(number, DRAWN // 2)
        for axis, image in zip(
            axes[2 * block : 2 * block + 2, column], (judgement.pixels, judgement.prediction), strict=True
        ):
            low, high = np.percentile(image, (0.5, 99.8))
            axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1))
            axis.axis("off")
        title = f"{judgement.name}\n{judgement.measures[key]:.2f}, PCC {judgement.pcc:.2f}"
        axes[2 * block, column].set_title(title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=Path, help="folder that simulate.py made")
    parser.add_argument("--real", type=Path, help="folder with the studies and their index files")
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures, outside the repository")
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--resources", type=Path, help="folder of checkpoints (default: the shipped ones)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found: list[Judged] = []
    with Predictor.open(options.resources, settings=PRESETS[options.preset]) as predictor:
        if options.simulated:
            found += judged(options.simulated, {}, "simulated", predictor)
        for study in ("Study_101", "Study_104") if options.real else ():
            of_study = list(judged(options.real / study, halves(options.real, study), study, predictor))
            draw(of_study, options.output / f"{study}.png")
            found += of_study
    results: dict[str, dict[str, float]] = {}
    print(f"| predictions | planes | {' | '.join(MEASURES)} |\n|---|---|{'---|' * len(MEASURES)}")
    for group in dict.fromkeys(judgement.group for judgement in found):
        members = [judgement for judgement in found if judgement.group == group]
        cells = []
        for measure in MEASURES:
            rho, low, high = rank_correlation(members, measure)
            cells.append(f"{rho:.2f} ({low:.2f} to {high:.2f})")
            results.setdefault(group, {})[measure] = round(rho, 3)
        print(f"| {group} | {len(members)} | {' | '.join(cells)} |", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
