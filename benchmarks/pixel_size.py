"""What a wrong pixel size costs, and what the mean over predictions at several pixel sizes gains.

    python -m benchmarks.pixel_size --output runs/pixel_size

Renders simulated fields of a seed that no training used, tells the networks pixel sizes that are wrong by a factor, and
scores each prediction and the mean of the three nearest the truth. Prints Markdown and writes
benchmarks/results/pixel_size.json.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from evaluation.metrics import pcc
from experiments.project_commands import run_command
from model import PRESETS, Organelle, Predictor, read_image
from model.naming import InputName, TargetName, parse

RESULTS = Path(__file__).with_name("results") / "pixel_size.json"
SEED = 818181
SETTINGS = ("challenge", "ordinary")
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
AVERAGED = (0.7, 1.0, 1.4)


def scores(image: Path, predictor: Predictor) -> dict[str, dict[Organelle, float]]:
    """PCC with each truth, by factor and for the mean over `AVERAGED`."""
    name, plane = parse(image.name), read_image(image)
    assert isinstance(name, InputName) and plane.info.pixel_size_um is not None
    height, width = plane.info.pixel_size_um
    predicted = {
        factor: predictor.predict(plane.pixels, name.modality, pixel_size_um=(height * factor, width * factor))
        for factor in FACTORS
    }
    found: dict[str, dict[Organelle, float]] = defaultdict(dict)
    for organelle in Organelle:
        truth = read_image(image.with_name(TargetName(name.image, organelle).filename)).pixels.astype(np.float64)
        for factor, organelles in predicted.items():
            found[f"{factor:g}"][organelle] = pcc(organelles[organelle].astype(np.float64), truth)
        mean = np.mean([predicted[factor][organelle] for factor in AVERAGED], axis=0)
        found["mean of three"][organelle] = pcc(mean, truth)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the simulated fields")
    parser.add_argument("--fields", type=int, default=12, help="for each modality and setting")
    options = parser.parse_args()
    values: dict[tuple[str, str, Organelle], list[float]] = defaultdict(list)
    with Predictor.open(settings=PRESETS["fast"]) as predictor:
        for setting in SETTINGS:
            data = options.output / setting
            if not (data / "SIMULATED.json").is_file():
                given = ("--setting", setting, "--fields", options.fields, "--seed", SEED, "--planes", 1)
                run_command("simulate.py", "--output", data, *given)
            for path in sorted(data.rglob("*.ome.tiff")):
                if isinstance(parse(path.name), InputName):
                    for how, by_organelle in scores(path, predictor).items():
                        for organelle, value in by_organelle.items():
                            values[setting, how, organelle].append(value)
    ways = [*(f"{factor:g}" for factor in FACTORS), "mean of three"]
    document = {
        setting: {how: {str(o): round(float(np.mean(values[setting, how, o])), 4) for o in Organelle} for how in ways}
        for setting in SETTINGS
    }
    print("| setting | pixel size times | " + " | ".join(Organelle) + " |\n" + "|---" * 6 + "|")
    for setting, by_way in document.items():
        for how, by_name in by_way.items():
            print(f"| {setting} | {how} | " + " | ".join(f"{value:.3f}" for value in by_name.values()) + " |")
    RESULTS.write_text(json.dumps({"seed": SEED, "fields": options.fields, **document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
