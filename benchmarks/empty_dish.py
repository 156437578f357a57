"""What networks invent where there are no cells: the amplitude of predictions of an empty dish over that of cultures.

    python -m benchmarks.empty_dish --output runs/empty_dish

Renders dishes without cells, with noise, dust and uneven light, and ordinary cultures, of a seed that no training used.
The amplitude is the [2, 99.8] percentile range of a prediction. Prints Markdown, writes
benchmarks/results/empty_dish.json, and draws some empty dishes with their predictions to --output.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from benchmarks.planes import planes
from experiments.project_commands import simulate
from model import PRESETS, Modality, Organelle, Predictor

RESULTS = Path(__file__).with_name("results") / "empty_dish.json"
SEED = 616161
DRAWN = 2  # dishes of each modality


def amplitude(prediction_YX: NDArray[np.uint16]) -> float:
    low, high = np.percentile(prediction_YX, (2, 99.8))
    return float(high - low)


def draw(rows: list[tuple[str, list[NDArray[np.uint16]]]], path: Path) -> None:
    """Input and four predictions a row, predictions on one grey scale: that of the outputs."""
    figure, axes = plt.subplots(len(rows), 5, figsize=(12, 2.5 * len(rows)), squeeze=False)
    for line, (title, pictures) in zip(axes, rows, strict=True):
        low, high = np.percentile(pictures[0], (0.5, 99.5))
        line[0].imshow(pictures[0], cmap="gray", vmin=low, vmax=max(high, low + 1))
        line[0].set_title(title, fontsize=8)
        for axis, organelle, picture in zip(line[1:], Organelle, pictures[1:], strict=True):
            axis.imshow(picture, cmap="gray", vmin=8_192, vmax=40_959)
            axis.set_title(organelle, fontsize=8)
        for axis in line:
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for data and pictures")
    parser.add_argument("--resources", type=Path, help="folder of checkpoints (default: the shipped ones)")
    parser.add_argument("--fields", type=int, default=12, help="fields for each modality and setting")
    options = parser.parse_args()
    found: dict[tuple[str, Modality, Organelle], list[float]] = defaultdict(list)
    rows: list[tuple[str, list[NDArray[np.uint16]]]] = []
    with Predictor.open(options.resources, settings=PRESETS["fast"]) as predictor:
        for setting in ("empty", "ordinary"):
            given = ("--setting", setting, "--fields", options.fields, "--seed", SEED, "--planes", 1)
            for plane in planes(simulate(options.output / setting, *given)):
                image, modality = plane.image, plane.name.modality
                predicted = predictor.predict(image.pixels, modality, pixel_size_um=image.info.pixel_size_um)
                for organelle in Organelle:
                    found[setting, modality, organelle].append(amplitude(predicted[organelle]))
                if setting == "empty" and len(found["empty", modality, Organelle.NUCLEUS]) <= DRAWN:
                    rows.append((plane.path.name, [image.pixels, *(predicted[organelle] for organelle in Organelle)]))
    draw(rows, options.output / "empty_dish.png")
    ratios = {
        (m, o): float(np.mean(found["empty", m, o]) / np.mean(found["ordinary", m, o]))
        for m in Modality
        for o in Organelle
    }
    print("| empty dish / cultures | " + " | ".join(Modality) + " |\n|" + "---|" * 4)
    for organelle in Organelle:
        print(f"| {organelle} | " + " | ".join(f"{ratios[m, organelle]:.2f}" for m in Modality) + " |")
    document = {f"{m} {o}": round(value, 4) for (m, o), value in ratios.items()}
    RESULTS.write_text(json.dumps({"seed": SEED, "fields": options.fields, "ratios": document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
