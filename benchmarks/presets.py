"""What overlap, rotations and whole images cost and gain: the curve from which `--preset fast` was chosen.

    python -m benchmarks.presets --output runs/presets

Renders simulated fields of 1600 px at challenge pixel sizes, so that on the network's grid most are larger than a
window, predicts each in every settings with the shipped checkpoints, and scores it against the truth (PCC, SSIM) and
against the paper's setting (PSNR). Cost is the seconds in the networks, all manners in turn on each image.
Writes benchmarks/results/presets.json and docs/images/presets.png, and prints a Markdown table.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from benchmarks.planes import Plane, planes
from evaluation.metrics import pcc, ssim
from experiments.project_commands import simulate
from model.labels import Organelle
from model.memory import tune_malloc
from model.predictor import Predictor
from model.settings import PRESETS, InferenceSettings

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "presets.json"
PICTURE = ROOT / "docs" / "images" / "presets.png"
UNSEEN_SEED = 90211
SIDE = 1600
SETTINGS = [
    InferenceSettings(overlap, rotations, whole_image)
    for whole_image, overlaps in ((False, (0.8, 0.5, 0.25, 0.0)), (True, (0.25,)))
    for overlap in overlaps
    for rotations in (4, 2, 1)
]
PAPER, FAST = SETTINGS.index(PRESETS["paper"]), SETTINGS.index(PRESETS["fast"])


def words(settings: InferenceSettings) -> str:
    return "whole image" if settings.whole_image else f"overlap {settings.overlap:g}"


def measure(plane: Plane, predictors: list[Predictor]) -> list[dict[str, float]]:
    """For each settings: seconds in the networks, and PCC, SSIM and PSNR by organelle."""
    image, truths = plane.image, plane.truths()
    rows, reference = [], dict[Organelle, NDArray[np.uint16]]()
    for predictor in predictors:
        plan = predictor.plan(plane.name.modality, image.info.shape, image.info.pixel_size_um)
        inputs = predictor.preprocess(image.pixels, plan)
        began = time.perf_counter()
        outputs = predictor.forward(inputs)
        row = {"seconds": time.perf_counter() - began}
        predictions = predictor.postprocess(outputs, plan)
        reference = reference or predictions
        for organelle, prediction in predictions.items():
            error = prediction.astype(float) - reference[organelle]
            row[f"pcc/{organelle}"] = pcc(prediction, truths[organelle])
            row[f"ssim/{organelle}"] = ssim(prediction, truths[organelle])
            row[f"noise/{organelle}"] = float(np.mean(error**2))
        rows.append(row)
    return rows


def summarise(rows: list[dict[str, float]], paper: list[dict[str, float]]) -> dict[str, float]:
    """Means over the images of one settings, its cost relative to the paper's."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    before = {key: float(np.mean([row[key] for row in paper])) for key in paper[0]}
    summary = {"times_faster": before["seconds"] / means["seconds"]}
    for kind in ("pcc", "ssim"):
        gains = [means[f"{kind}/{o}"] - before[f"{kind}/{o}"] for o in Organelle]
        summary |= {f"mean_{kind}": float(np.mean([means[f"{kind}/{o}"] for o in Organelle]))}
        summary |= {f"{kind}_gain/{o}": gain for o, gain in zip(Organelle, gains, strict=True)}
    noise = max(means[f"noise/{o}"] for o in Organelle)
    return summary | {"psnr_db": float("inf") if noise == 0 else float(10 * np.log10(65535**2 / noise))}


def draw(summaries: list[dict[str, float]]) -> None:
    """Quality against cost, one line for each way to lay windows, rotations marked."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, kind in zip(axes, ("pcc", "ssim"), strict=True):
        for way in dict.fromkeys(map(words, SETTINGS)):
            chosen = [i for i, settings in enumerate(SETTINGS) if words(settings) == way]
            cost = [100 / summaries[i]["times_faster"] for i in chosen]
            axis.plot(cost, [summaries[i][f"mean_{kind}"] for i in chosen], ".-", label=way)
            for i, x in zip(chosen, cost, strict=True):
                axis.annotate(f" {SETTINGS[i].rotations}", (x, summaries[i][f"mean_{kind}"]), fontsize=8)
        for name, i in (("paper", PAPER), ("fast", FAST)):
            place = 100 / summaries[i]["times_faster"], summaries[i][f"mean_{kind}"]
            axis.plot(*place, "o", ms=12, mfc="none", mec="black")
            axis.annotate(name, place, xytext=(0, -18), textcoords="offset points", ha="center")
        axis.set(xscale="log", xlabel="time in the networks, % of the paper's setting")
        axis.set_ylabel(f"mean {kind.upper()} of four organelles, simulated cells")
        axis.margins(y=0.2)
    figure.legend(*axes[0].get_legend_handles_labels(), title="numbers: rotations", loc="outside right center")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the fields")
    parser.add_argument("--fields", type=int, default=4, help="for each modality")
    options = parser.parse_args()
    given = ("--fields", options.fields, "--seed", UNSEEN_SEED, "--size", SIDE, "--planes", 1)  # in focus
    data = simulate(options.output / "data", *given)
    tune_malloc()  # as the command does
    predictors = [Predictor.open(ROOT / "resources", settings=settings) for settings in SETTINGS]
    for predictor in predictors:
        predictor.load_networks()
    images = [measure(plane, predictors) for plane in planes(data)]
    columns = list(zip(*images, strict=True))
    summaries = [summarise(list(rows), list(columns[PAPER])) for rows in columns]
    print("| windows | rotations | times faster | PSNR to paper | " + " | ".join(f"PCC {o}" for o in Organelle) + " |")
    print("|" + "---|" * (4 + len(Organelle)))
    for settings, summary in zip(SETTINGS, summaries, strict=True):
        gains = " | ".join(f"{summary[f'pcc_gain/{o}']:+.4f}" for o in Organelle)
        print(f"| {words(settings)} | {settings.rotations} | {summary['times_faster']:.1f} ", end="")
        print(f"| {summary['psnr_db']:.1f} | {gains} |")
    rows = [{"way": words(m), "rotations": m.rotations} | s for m, s in zip(SETTINGS, summaries, strict=True)]
    document = {"fields": options.fields, "seed": UNSEEN_SEED, "side": SIDE, "settings": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    draw(summaries)


if __name__ == "__main__":
    main()
