"""What the shipped checkpoints are worth on real nuclei, which they have never seen.

    python -m benchmarks.real_nuclei --real ../shared/real --output runs/real

Study_101 (bright field, 20x, Hoechst) is split by acquisition, the first word of a field's name: in the order of
their names the acquisitions go in turn to half A, on which settings may be chosen, and half B, which is reported.
Study_102 is one field in phase contrast, of which the planes in focus are scored. Prints Markdown and writes
benchmarks/results/real_nuclei.json; predictions and the report stay in --output, outside the repository.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from evaluation.metrics import pcc
from model.images import read_image
from model.labels import Organelle
from model.naming import InputName, TargetName, parse

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "real_nuclei.json"
IN_FOCUS = (10, 11, 12)  # z planes of Study_102


def halves(index: Path) -> dict[int, str]:
    """Image number to "A" or "B", by acquisition."""
    with index.open(newline="") as file:
        acquisition = {int(row["image"]): row["name"].split("_")[0] for row in csv.DictReader(file, delimiter="\t")}
    order = sorted(set(acquisition.values()))
    return {image: "AB"[order.index(name) % 2] for image, name in acquisition.items()}


def copy_in_focus(study: Path, folder: Path) -> Path:
    """The planes of a study that are in focus, in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in study.iterdir():
        name = parse(path.name)
        if isinstance(name, InputName) and name.z in IN_FOCUS:
            shutil.copy(path, folder)
    return folder


def scores(study: Path, predicted: Path, predictions: Path) -> dict[tuple[int, int], float]:
    """Nucleus PCC by (image, z) of the inputs in ``predicted``, against the truths in ``study``."""
    found = {}
    folder = predictions / "images" / f"{Organelle.NUCLEUS}-fluorescence-ome-tiff"
    for path in sorted(predicted.iterdir()):
        name = parse(path.name)
        if isinstance(name, InputName):
            truth = read_image(study / TargetName(name.image, Organelle.NUCLEUS).filename).pixels
            prediction = read_image(folder / path.name.replace(".ome.tiff", ".tiff")).pixels
            found[name.image, name.z] = pcc(prediction.astype(np.float64), truth.astype(np.float64))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder with Study_101, Study_102 and the index")
    parser.add_argument("--output", type=Path, required=True, help="folder for predictions, outside the repository")
    parser.add_argument("--resources", type=Path, default=ROOT / "resources")
    parser.add_argument("--studies", nargs="+", default=["Study_101", "Study_102"])
    options = parser.parse_args()
    document: dict[str, object] = {}
    for name in options.studies:
        study, output = options.real / name, options.output / name
        inputs = study if name == "Study_101" else copy_in_focus(study, options.output / f"{name}-in-focus")
        arguments = ["--input", inputs, "--output", output, "--resources", options.resources]
        subprocess.run([sys.executable, str(ROOT / "inference.py"), *map(str, arguments)], check=True)
        found = scores(study, inputs, output)
        if name == "Study_101":
            half = halves(options.real / "index_Study_101.tsv")
            for part in "AB":
                values = [value for (image, _), value in found.items() if half[image] == part]
                print(f"{name}, half {part}: nucleus PCC {np.mean(values):.3f} over {len(values)} fields")
                document[f"{name} {part}"] = {"PCC": float(np.mean(values)), "fields": len(values)}
        else:
            for (_, z), value in sorted(found.items()):
                print(f"{name}, plane {z}: nucleus PCC {value:.3f}")
            document[name] = {f"z{z}": value for (_, z), value in sorted(found.items())}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
