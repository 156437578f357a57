"""What the shipped ensembles gain over one network, and what they cost.

    python -m benchmarks.ensemble --output runs/ensemble

Renders simulated fields of a seed that no training used, predicts them by the preset fast with the first network of
each ensemble, with the second, and with both, which share the rotations. Prints PCC, and the time in the networks
relative to the first alone; writes benchmarks/results/ensemble.json.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cost import Timed
from benchmarks.planes import planes
from evaluation.metrics import pcc
from experiments.project_commands import simulate
from model import PRESETS, Modality, Organelle
from model.devices import find_device
from model.memory import tune_malloc
from model.routing import Routes, Routing, shipped_resources

RESULTS = Path(__file__).with_name("results") / "ensemble.json"
SEED = 828282
SETTINGS = ("challenge", "ordinary")
WAYS = {"first network": slice(0, 1), "second network": slice(1, 2), "ensemble": slice(None)}


def part_of(routing: Routing, members: slice) -> Routing:
    """Return the routing with some networks of each ensemble; one network alone stays."""

    def chosen(routes: Routes) -> Routes:
        return {m: {o: ensemble[members] or ensemble for o, ensemble in ways.items()} for m, ways in routes.items()}

    low = routing.low_magnification
    return replace(
        routing,
        routes=chosen(routing.routes),
        low_magnification=replace(low, routes=chosen(low.routes)) if low else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the simulated fields")
    parser.add_argument("--resources", type=Path, help="folder of checkpoints (default: the shipped ones)")
    parser.add_argument("--fields", type=int, default=12, help="for each modality and setting")
    options = parser.parse_args()
    tune_malloc()  # as the command does
    routing = Routing.read(options.resources or shipped_resources())
    predictors = {
        way: Timed(part_of(routing, members), find_device("auto"), PRESETS["fast"], rescale=True)
        for way, members in WAYS.items()
    }
    for predictor in predictors.values():
        predictor.load_networks()
    document = []
    print("| setting | | modality | " + " | ".join(Organelle) + " | time |\n" + "|---" * 8 + "|")
    for setting in SETTINGS:
        given = ("--setting", setting, "--fields", options.fields, "--seed", SEED, "--planes", 1)
        scores: dict[tuple[str, Modality], list[list[float]]] = defaultdict(list)
        seconds: dict[tuple[str, Modality], float] = defaultdict(float)
        for plane in planes(simulate(options.output / setting, *given)):
            image, modality, truths = plane.image, plane.name.modality, plane.truths()
            for way, predictor in predictors.items():  # in turn on each image: a busy machine is busy for all
                before = predictor.in_networks
                predicted = predictor.predict(image.pixels, modality, pixel_size_um=image.info.pixel_size_um)
                seconds[way, modality] += predictor.in_networks - before
                scores[way, modality].append([pcc(predicted[organelle], truths[organelle]) for organelle in Organelle])
        for (way, modality), rows in sorted(scores.items(), key=lambda item: list(Modality).index(item[0][1])):
            means = {str(o): round(float(mean), 4) for o, mean in zip(Organelle, np.mean(rows, 0), strict=True)}
            cost = round(seconds[way, modality] / seconds["first network", modality], 2)
            document.append({"setting": setting, "way": way, "modality": modality, **means, "time": cost})
            numbers = " | ".join(f"{value:.3f}" for value in means.values())
            print(f"| {setting} | {way} | {modality} | {numbers} | {cost:.2f} |", flush=True)
    RESULTS.write_text(json.dumps({"seed": SEED, "fields": options.fields, "rows": document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
