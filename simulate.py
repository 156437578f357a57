"""Render a labelled data set of simulated cells in the layout of the Light My Cells challenge."""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model import __version__
from model.errors import UserError
from model.naming import InputName, TargetName
from model.ome import write_plane
from model.vocabulary import Modality, Organelle
from simulation.study import CHALLENGE_LABELS, draw_study, render

MARKER = "SIMULATED.json"


@dataclass(frozen=True)
class Order:
    """One field to be rendered; every random choice follows from (seed, modality, study, field)."""

    folder: Path
    image: int
    modality: Modality
    study: int
    field: int
    seed: int
    setting: str
    size: int
    planes: int
    labels: str


def fill(order: Order) -> list[tuple[str, str, int, int]]:
    """Render and write one field; returns its rows of focus.csv."""
    modality_seed = list(Modality).index(order.modality)
    study_rng = np.random.default_rng([order.seed, modality_seed, order.study])
    setting = order.setting if order.setting != "mixed" else str(study_rng.choice(["challenge", "low"]))
    study = draw_study(study_rng, order.modality, "low" if setting == "low" else "challenge")
    sets = CHALLENGE_LABELS[order.modality]
    labelled = set(Organelle) if order.labels == "all" else sets[int(study_rng.integers(len(sets)))]
    field = render(
        np.random.default_rng([order.seed, modality_seed, order.study, order.field]), study, order.size, order.planes
    )
    pixel_size = (study.microscope.pixel_size_um,) * 2
    provenance = {"origin": "simulated cells", "seed": str(order.seed), "version": __version__}
    rows = []
    for z, plane in enumerate(field.planes):
        name = InputName(order.image, order.modality, z).filename
        write_plane(
            order.folder / name, plane, channel=order.modality, pixel_size_um=pixel_size, provenance=provenance
        )
        rows.append((f"{order.folder.name}/{name}", order.modality.value, z, field.best_plane))
    for organelle in sorted(labelled):
        name = TargetName(order.image, organelle).filename
        write_plane(
            order.folder / name,
            field.truths[organelle],
            channel=organelle.label,
            pixel_size_um=pixel_size,
            provenance=provenance,
        )
    return rows


def plan(arguments: argparse.Namespace) -> Iterator[Order]:
    """The fields of all studies, modality by modality."""
    image = study_number = 0
    for modality in arguments.modalities:
        for index in range(arguments.fields):
            study, field = divmod(index, arguments.fields_per_study)
            study_number += field == 0
            image += 1
            yield Order(
                arguments.output / f"Study_{study_number}",
                image,
                modality,
                study,
                field,
                arguments.seed,
                arguments.setting,
                arguments.size,
                arguments.planes,
                arguments.labels,
            )


def simulate(arguments: argparse.Namespace) -> None:
    """Render the data set, then write focus.csv and the marker that says it is simulated."""
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise UserError(f"{arguments.output}: found a folder that is not empty, expected a new or empty one.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    orders = list(plan(arguments))
    started = time.monotonic()
    with ProcessPoolExecutor(arguments.workers) as pool:
        done = list(tqdm(pool.map(fill, orders), total=len(orders), unit="field", disable=None))
    with (arguments.output / "focus.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "modality", "image_z", "best_z"))
        writer.writerows(row for rows in done for row in rows)
    options = {key: str(value) for key, value in vars(arguments).items() if key not in ("output", "workers")}
    (arguments.output / MARKER).write_text(
        json.dumps({"trained_on": "simulated cells", "version": __version__, "options": options}, indent=2) + "\n"
    )
    seconds = time.monotonic() - started
    print(
        f"Rendered {len(orders)} simulated fields ({', '.join(arguments.modalities)}) "
        f"in {seconds:.0f} s to {arguments.output}"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number of at least 1")
    return value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--fields", type=positive, default=6, help="fields of view for each modality")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--size", type=positive, default=512, help="side of the images in pixels")
    parser.add_argument(
        "--modalities", nargs="+", type=Modality, choices=list(Modality), default=list(Modality), help="BF, PC, DIC"
    )
    parser.add_argument("--planes", type=positive, default=3, help="focal planes for each field")
    parser.add_argument(
        "--labels", choices=("all", "challenge"), default="all", help="all four organelles, or as in the challenge"
    )
    parser.add_argument(
        "--setting",
        choices=("challenge", "low", "mixed"),
        default="challenge",
        help="objectives: 40x to 100x as in the challenge, 20x, or either",
    )
    parser.add_argument(
        "--fields-per-study", type=positive, default=3, help="fields that share culture, microscope and camera"
    )
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(arguments)


def run() -> int:
    """The command; returns the exit code."""
    try:
        simulate(parse())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the data set is incomplete.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
