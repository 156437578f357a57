"""Real nuclei from few labelled fields: fine-tuning what is shipped, the same from scratch, and a plain U-Net.

    python -m benchmarks.few_fields --real ../shared/real --output runs/few_fields

Half A of a study (see `real_nuclei`) gives k fields to learn from, in three draws (all: once), half B is scored: other
acquisitions (Study_101) or cell types (Study_104). Every way has the same minutes on one core; a U-Net with all fields
also has five times as many. What was fine-tuned is scored alone, and averaged with the shipped networks (`release
--join`). What is there already is not done again. Writes benchmarks/results/few_fields.json and
docs/images/few_fields.png. The weights stay in --output: the studies' licences do not allow their release.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from benchmarks import plain_unet
from benchmarks.planes import Plane
from benchmarks.real_nuclei import study_planes
from evaluation.metrics import pcc
from model import PRESETS, Image, Modality, Organelle, Predictor
from model.checkpoint import read_metadata
from model.routing import CheckpointFile, Routing, routes_to
from training.release import LOW, release

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results") / "few_fields.json"
FIGURE = ROOT / "docs/images/few_fields.png"
STUDIES = {"Study_101": Modality.BF, "Study_104": Modality.PC}
COUNTS, DRAWS = (1, 3, 5, 10), 3
RECIPE = ROOT / "training/recipes/few_fields.toml"
LAST = "run/last.safetensors"
SHIPPED, SCRATCH, UNET = "as shipped", "from scratch", "plain U-Net"
LONG_UNET, LONGER = "plain U-Net, five times as long", 5
TUNED, FROZEN = "fine-tuned", "fine-tuned, encoder frozen"
JOINED = "fine-tuned, averaged with the shipped networks"
FEW = 5
"""Fields with which the encoder is frozen, and from scratch is tried; the latter also with all, and in one draw."""
WAYS: dict[str, list[str]] = {
    TUNED: [],
    FROZEN: ["--freeze", "encoder"],
    SCRATCH: ["--learning-rate", "1e-3"],
    UNET: [],
}
"""What differs from the recipe."""

Prediction = Callable[[Image], NDArray[np.generic]]


@dataclass(frozen=True)
class Run:
    """One training: study, way, number of fields (0: none, what is shipped), draw."""

    study: str
    way: str
    fields: int
    draw: int

    @property
    def folder(self) -> str:
        return "_".join(map(str, astuple(self))).replace(" ", "-").replace(",", "")


def planes_of(real: Path, study: str, half: str) -> list[Plane]:
    return [plane for of, plane in study_planes(real, study) if of == half]


def drawn(run: Run, real: Path) -> list[Plane]:
    """The fields of a draw: those of a smaller k are among those of a larger one."""
    pool = planes_of(real, run.study, "A")
    order = np.random.default_rng(run.draw).permutation(len(pool))
    return [pool[index] for index in order[: run.fields]]


def runs(real: Path, study: str) -> list[Run]:
    """All trainings of a study, and what is shipped, which has no field; all fields can be drawn only once."""
    everything = len(planes_of(real, study, "A"))
    found = [Run(study, SHIPPED, 0, 0), Run(study, LONG_UNET, everything, 0)]
    for count in (*(k for k in COUNTS if k < everything), everything):
        for number in range(DRAWS if count < everything else 1):
            left_out = {FROZEN} if count != FEW else set()
            left_out |= {SCRATCH} if count not in (FEW, everything) or number else set()
            found += [Run(study, way, count, number) for way in WAYS if way not in left_out]
    return found


def shipped(modality: Modality) -> Path:
    return ROOT / f"resources/pix2pix_{modality.lower()}_low_magnification.safetensors"


def carry_out(run: Run, real: Path, output: Path, minutes: float) -> float:
    """Train and score; the mean PCC of half B."""
    torch.set_num_threads(1)
    folder, modality = output / run.folder, STUDIES[run.study]
    done = folder / "pcc.txt"
    if done.is_file():
        return float(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    fields = drawn(run, real)
    if run.way == JOINED:
        checkpoint = output / replace(run, way=TUNED).folder / LAST
        value = score(run.study, real, nuclei_of(joined(checkpoint, modality, folder), modality))
    elif run.way in (UNET, LONG_UNET):
        images = [(plane.image.pixels, plane.truths()[Organelle.NUCLEUS]) for plane in fields]
        network = plain_unet.train(images, minutes * (LONGER if run.way == LONG_UNET else 1), run.draw)
        value = score(run.study, real, lambda image: plain_unet.predict(network, image.pixels))
    else:
        checkpoint = shipped(modality) if not run.fields else train(run, fields, folder, modality, minutes)
        value = score(run.study, real, nuclei_of(alone(checkpoint), modality))
    done.write_text(f"{value}\n")
    return value


def train(run: Run, fields: list[Plane], folder: Path, modality: Modality, minutes: float) -> Path:
    """Train by train.py; the checkpoint."""
    study = folder / "data" / run.study
    study.mkdir(parents=True, exist_ok=True)
    for file in (file for plane in fields for file in (plane.path, plane.truth_path(Organelle.NUCLEUS))):
        if not (study / file.name).exists():
            (study / file.name).symlink_to(file.resolve())
    start: list[object] = ["--init", shipped(modality)]
    if run.way == SCRATCH:
        of = read_metadata(shipped(modality)).architecture
        start = ["--width", of.width, "--blocks", of.blocks, "--upsampling", of.upsampling]
    options = ["--modality", modality, "--data", folder / "data", "--output", folder / "run", "--seed", run.draw]
    length = ["--max-minutes", minutes, "--threads", 1]
    command = [sys.executable, ROOT / "train.py", "--config", RECIPE, *start, *options, *length, *WAYS[run.way]]
    shutil.rmtree(folder / "run", ignore_errors=True)  # of a run that was stopped: its minutes would not be equal
    with (folder / "log").open("w") as log:
        subprocess.run([str(word) for word in command], check=True, stdout=log, stderr=log)
    return folder / LAST


def alone(checkpoint: Path) -> Predictor:
    routing = Routing({"one": CheckpointFile.of(checkpoint)}, routes_to("one"))
    return Predictor(routing, torch.device("cpu"), PRESETS["fast"], rescale=True)


def joined(checkpoint: Path, modality: Modality, folder: Path) -> Predictor:
    """Average a checkpoint with the shipped networks; a rotation of each."""
    name = f"pix2pix-{modality.lower()}{LOW}"
    release({name: checkpoint}, folder / "resources", base=ROOT / "resources", join=True)
    return Predictor.open(folder / "resources", device="cpu", settings=replace(PRESETS["fast"], rotations=4))


def nuclei_of(predictor: Predictor, modality: Modality) -> Prediction:
    """How networks predict nuclei."""

    def predict(image: Image) -> NDArray[np.uint16]:
        return predictor.predict(image.pixels, modality, pixel_size_um=image.info.pixel_size_um)[Organelle.NUCLEUS]

    return predict


def score(study: str, real: Path, predict: Prediction) -> float:
    """Mean PCC of half B."""
    of_half = planes_of(real, study, "B")
    return float(np.mean([pcc(predict(plane.image), plane.truths()[Organelle.NUCLEUS]) for plane in of_half]))


def draw(values: dict[Run, float], path: Path) -> None:
    """PCC over the number of fields, a panel for each study: mean and range of the draws."""
    studies = sorted({run.study for run in values})
    size = (4.2 * len(studies), 4)
    figure, axes = plt.subplots(1, len(studies), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, study in zip(axes[0], studies, strict=True):
        for way in (JOINED, *WAYS, LONG_UNET):
            by_count: dict[int, list[float]] = defaultdict(list)
            for run, value in values.items():
                if (run.study, run.way) == (study, way) and run.fields:
                    by_count[run.fields].append(value)
            counts = sorted(by_count)
            means = [float(np.mean(by_count[count])) for count in counts]
            spread = np.abs([[min(by_count[c]), max(by_count[c])] for c in counts] - np.array(means)[:, None]).T
            axis.errorbar(counts, means, spread, marker="o", capsize=3, label=way)
        (zero,) = [value for run, value in values.items() if run.study == study and not run.fields]
        axis.axhline(zero, color="grey", linestyle="--", label="as shipped")
        axis.set(title=f"{study} ({STUDIES[study]})", xscale="log", xlabel="labelled fields", ylabel="nucleus PCC")
        ticks = sorted({run.fields for run in values if run.study == study and run.fields})
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder with the studies and their index files")
    parser.add_argument("--output", type=Path, required=True, help="folder for runs, outside the repository")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    todo = [run for study in STUDIES for run in runs(options.real, study)]
    tuned = [replace(run, way=JOINED) for run in todo if run.way == TUNED]
    values: dict[Run, float] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for part in (todo, tuned):
            arguments = zip(*((run, options.real, options.output, options.minutes) for run in part), strict=True)
            values |= zip(part, pool.map(carry_out, *arguments), strict=True)
    print("| study | way | fields | nucleus PCC, mean of the draws | draws |\n|---|---|---|---|---|")
    table: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for run, value in values.items():
        table[run.study, run.way, run.fields].append(round(value, 4))
    for (study, way, fields), found in table.items():
        print(f"| {study} | {way} | {fields} | {np.mean(found):.3f} | {', '.join(f'{value:.2f}' for value in found)} |")
    document = [{"study": s, "way": w, "fields": k, "PCC": found} for (s, w, k), found in table.items()]
    RESULTS.write_text(json.dumps({"minutes": options.minutes, "runs": document}, indent=1) + "\n")
    draw(values, FIGURE)


if __name__ == "__main__":
    main()
