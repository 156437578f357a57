"""Render a labelled data set of simulated cells in the layout of the Light My Cells challenge."""

import argparse
import csv
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model import __version__
from model.commands import (
    DONE,
    INTERRUPTED,
    NOT_BEGUN,
    SOME_FAILED,
    log_to_standard_streams,
    one_sentence,
    whole_number,
)
from model.errors import UserError
from model.files import prepare_folder, write_text
from model.images import write_plane
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName
from simulation.microscope import Setting
from simulation.specimen_store import PIXEL_UM, write_specimen
from simulation.study import CHALLENGE_LABELS, draw_study, render

log = logging.getLogger("simulation")

MARKER = "SIMULATED.json"
ORIGIN = "simulated cells"
SETTINGS: tuple[Setting, ...] = get_args(Setting)
FIELD_SIZE, SPECIMEN_SIZE = 512, 600
MIXTURE: dict[Setting, float] = {"challenge": 0.25, "low": 0.15, "ordinary": 0.56, "empty": 0.04}


Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RenderJob:
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


def render_job(job: RenderJob) -> list[tuple[str, str, int, int]]:
    """Render and write one field; returns its rows of focus.csv. Raises UserError where that cannot be done."""
    seeds = [job.seed, list(Modality).index(job.modality), job.study]
    study_rng = np.random.default_rng(seeds)
    study = draw_study(study_rng, job.modality, draw_setting(study_rng, job.setting))
    sets = CHALLENGE_LABELS[job.modality]
    labelled = set(Organelle) if job.labels == "all" else sets[int(study_rng.integers(len(sets)))]
    try:
        field = render(np.random.default_rng([*seeds, job.field]), study, job.size, job.planes)
    except MemoryError as error:
        raise UserError(
            f"{job.folder}: a field of {job.size} pixels at {job.planes} planes does not fit in memory."
        ) from error

    def write(name: str, pixels: NDArray[np.uint16], channel: str) -> None:
        provenance = {"origin": ORIGIN, "seed": str(job.seed), "version": __version__}
        pixel_size_um = (study.pixel_size_um,) * 2
        write_plane(job.folder / name, pixels, channel=channel, pixel_size_um=pixel_size_um, provenance=provenance)

    rows = []
    for z, plane in enumerate(field.planes):
        name = InputName(job.image, job.modality, z).filename
        write(name, plane, job.modality)
        rows.append((f"{job.folder.name}/{name}", job.modality.value, z, field.best_plane))
    for organelle in sorted(labelled):
        write(TargetName(job.image, organelle).filename, field.truths[organelle], organelle.label)
    return rows


@dataclass(frozen=True)
class SpecimenJob:
    """One specimen to be stored; every random choice follows from (seed, number)."""

    folder: Path
    number: int
    seed: int
    setting: str
    size: int


def specimen_job(job: SpecimenJob) -> None:
    """Grow and store one specimen."""
    rng = np.random.default_rng([job.seed, job.number])
    write_specimen(job.folder / f"specimen_{job.number}.safetensors", draw_setting(rng, job.setting), job.size, rng)


def draw_setting(rng: np.random.Generator, name: str) -> Setting:
    """The setting of one study: the one that is named, or drawn by MIXTURE where that is "mixed"."""
    if name == "mixed":
        name = str(rng.choice(list(MIXTURE), p=list(MIXTURE.values())))
    return next(setting for setting in SETTINGS if setting == name)


def plan(arguments: argparse.Namespace) -> Iterator[RenderJob]:
    """The fields of all studies, modality by modality."""
    image = study_number = 0
    for modality in dict.fromkeys(arguments.modalities):
        for index in range(arguments.fields):
            study, field = divmod(index, arguments.fields_per_study)
            study_number += field == 0
            image += 1
            yield RenderJob(
                folder=arguments.output / f"Study_{study_number}",
                image=image,
                modality=modality,
                study=study,
                field=field,
                seed=arguments.seed,
                setting=arguments.setting,
                size=arguments.size or FIELD_SIZE,
                planes=arguments.planes,
                labels=arguments.labels,
            )


def simulate(arguments: argparse.Namespace) -> None:
    """Render the data set, then write focus.csv and, last, the marker: without it a data set is incomplete."""
    output: Path = arguments.output
    if arguments.specimens:
        jobs = [
            SpecimenJob(output, number, arguments.seed, arguments.setting, arguments.size or SPECIMEN_SIZE)
            for number in range(1, arguments.fields + 1)
        ]
        started = time.monotonic()
        run_jobs(specimen_job, jobs, arguments.workers, output)
        _finish(arguments, f"Grew {len(jobs)} specimens of simulated cells ({arguments.setting})", started)
        return
    fields = list(plan(arguments))
    started = time.monotonic()
    done = run_jobs(render_job, fields, arguments.workers, output)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("name", "modality", "image_z", "best_z"))
    writer.writerows(row for rows in done for row in rows)
    write_text(output / "focus.csv", table.getvalue())
    _finish(arguments, f"Rendered {len(fields)} simulated fields ({_spell(arguments.modalities)})", started)


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, output: Path) -> list[Result]:
    """Run a function over jobs in processes; results in the order of the jobs."""
    pool = ProcessPoolExecutor(min(workers, len(jobs)), initializer=_start_worker)
    try:
        return list(tqdm(pool.map(function, jobs), total=len(jobs), unit="field", file=sys.stdout, disable=None))
    except BrokenProcessPool as error:
        raise UserError(f"{output}: a worker was killed, perhaps for want of memory; try fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)  # as a with statement would, but without finishing what was handed out


def _start_worker() -> None:
    # Ctrl-C is the parent's affair: it stops handing out fields, and the workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler
    # One process a core; and how many threads compute a transform must not decide its last bits.
    torch.set_num_threads(1)


def _finish(arguments: argparse.Namespace, what: str, started: float) -> None:
    """Write the marker and say what was done."""
    options = {key: _spell(value) for key, value in vars(arguments).items() if key not in ("output", "workers")}
    marker = {"trained_on": ORIGIN, "version": __version__, "options": options}
    write_text(arguments.output / MARKER, json.dumps(marker, indent=2) + "\n")
    log.info("%s in %.0f s to %s", what, time.monotonic() - started, arguments.output)


def _spell(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--fields", type=whole_number(1), default=6, help="fields of view for each modality")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="the same seed gives the same bytes")
    parser.add_argument(
        "--size", type=whole_number(1), help=f"side of the images in pixels ({FIELD_SIZE}, specimens {SPECIMEN_SIZE})"
    )
    parser.add_argument(
        "--modalities", nargs="+", type=Modality, choices=list(Modality), default=list(Modality), help="BF, PC, DIC"
    )
    parser.add_argument("--planes", type=whole_number(1), default=3, help="focal planes for each field")
    parser.add_argument(
        "--labels", choices=("all", "challenge"), default="all", help="all four organelles, or as in the challenge"
    )
    parser.add_argument(
        "--setting",
        choices=(*SETTINGS, "mixed"),
        default="challenge",
        help="40x to 100x as in the challenge, 20x assays with crowds, any culture at 10x to 100x, such a dish without "
        "cells, or a mixture by study",
    )
    parser.add_argument(
        "--fields-per-study", type=whole_number(1), default=1, help="fields that share sample, microscope and camera"
    )
    parser.add_argument(
        "--specimens",
        action="store_true",
        help=f"store specimens on pixels of {PIXEL_UM} µm instead of images: train.py draws microscopes for them",
    )
    parser.add_argument("--workers", type=whole_number(1), default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see `model.commands`."""
    log_to_standard_streams("simulation")
    options = parse(arguments)
    begun = False
    try:
        prepare_folder(options.output, empty=True)
        begun = True
        simulate(options)
    except KeyboardInterrupt:
        log.error("simulate.py: interrupted, the data set is incomplete.")
        return INTERRUPTED
    except Exception as error:
        log.error("%s", one_sentence(error))
        return SOME_FAILED if begun and any(options.output.rglob("*.tiff")) else NOT_BEGUN
    return DONE
