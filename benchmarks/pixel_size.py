"""What a wrong pixel size costs, and what the preset multiscale gains.

    python -m benchmarks.pixel_size --output runs/pixel_size

Renders simulated fields of a seed that no training used, predicts them by the preset fast with pixel sizes that are
wrong by a factor, and by multiscale and paper with the right one. Prints Markdown and writes
benchmarks/results/pixel_size.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.planes import Plane, planes
from evaluation.metrics import pcc
from experiments.project_commands import simulate
from model import PRESETS, Organelle, Predictor

RESULTS = Path(__file__).with_name("results") / "pixel_size.json"
SEED = 818181
SETTINGS = ("challenge", "ordinary")
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
WAYS = [*(("fast", factor) for factor in FACTORS), ("multiscale", 1.0), ("paper", 1.0)]


def scores(plane: Plane, predictor: Predictor, factor: float) -> dict[Organelle, float]:
    """PCC with each truth, of the prediction with a pixel size that is wrong by a factor."""
    image = plane.image
    assert image.info.pixel_size_um is not None
    height, width = image.info.pixel_size_um
    predicted = predictor.predict(image.pixels, plane.name.modality, pixel_size_um=(height * factor, width * factor))
    return {o: pcc(predicted[o].astype(np.float64), truth.astype(np.float64)) for o, truth in plane.truths().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the simulated fields")
    parser.add_argument("--fields", type=int, default=12, help="for each modality and setting")
    options = parser.parse_args()
    document: dict[str, dict[str, dict[str, float]]] = {}
    print("| setting | preset, pixel size times | " + " | ".join(Organelle) + " | s |\n" + "|---" * 7 + "|")
    for setting in SETTINGS:
        given = ("--setting", setting, "--fields", options.fields, "--seed", SEED, "--planes", 1)
        data = simulate(options.output / setting, *given)
        document[setting] = {}
        for preset, factor in WAYS:
            with Predictor.open(settings=PRESETS[preset]) as predictor:
                predictor.load_networks()
                start = time.perf_counter()
                found = [scores(plane, predictor, factor) for plane in planes(data)]
                seconds = time.perf_counter() - start
            means = {str(o): round(float(np.mean([score[o] for score in found])), 4) for o in Organelle}
            document[setting][f"{preset} {factor:g}"] = {**means, "seconds": round(seconds, 1)}
            numbers = " | ".join(f"{value:.3f}" for value in means.values())
            print(f"| {setting} | {preset} {factor:g} | {numbers} | {seconds:.0f} |", flush=True)
    RESULTS.write_text(json.dumps({"seed": SEED, "fields": options.fields, **document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
