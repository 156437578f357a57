"""Predict with the networks of a method by ``inference.py``, and score by ``evaluate.py``."""

import csv
import hashlib
import json
import math
import shutil
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import normalize
from experiments.definitions import METRICS, Claim, Method, Side
from experiments.project_commands import run_command
from experiments.training import checkpoint_of
from model.files import write_text
from model.grand_challenge import output_folder
from model.images import read_image
from model.labels import Modality, Organelle
from model.naming import TargetName, parse, prediction_filename
from model.routing import CheckpointFile, Ensemble, Route, Routing

FINE_UM = (1.0, 3.0)
"""Periods in µm whose power is the sharpness."""


@dataclass(frozen=True)
class Row:
    """Scores of one prediction."""

    image: str
    modality: Modality
    organelle: Organelle
    z_deviation: int | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class MeanScore:
    """Means over predictions of one organelle, in one modality or at one distance from the best focus.

    Attributes
    ----------
    organelle : Organelle
    modality : Modality or None
        None: of any.
    z_deviation : int or None
        In planes. None: of any.
    metrics : dict of str to float
    """

    organelle: Organelle
    modality: Modality | None
    z_deviation: int | None
    metrics: dict[str, float]


def score(claim: Claim, method: Method, seed: int, planes: Path, runs: Path, device: str) -> list[MeanScore]:
    """Predict and score the planes of the modalities that a method has networks for; UserError where that fails."""
    folder = _folder(method, seed, planes, runs)
    images = [path for m in method.networks for path in sorted(planes.rglob(f"*_{m}_z*.ome.tiff"))]
    if not (folder / "metrics.csv").is_file():
        _write_resources(method, seed, runs, folder / "resources")
        write_text(folder / "list.txt", "".join(f"{path.relative_to(planes)}\n" for path in images))
        predictions = folder / "predictions"
        source = ["--input", planes, "--list", folder / "list.txt"]
        resources = ["--resources", folder / "resources", "--device", device]
        run_command("inference.py", *source, "--output", predictions, *resources, *method.options, quiet=True)
        shutil.rmtree(folder / "scores", ignore_errors=True)
        truth = ["--predictions", predictions, "--ground-truth", _of_modalities(images, planes, folder / "truth")]
        run_command("evaluate.py", *truth, "--output", folder / "scores", "--pictures", "0", quiet=True)
        write_text(folder / "metrics.csv", (folder / "scores" / "metrics.csv").read_text(encoding="utf-8"))
    rows = _read(folder / "metrics.csv")
    if "sharpness" in claim.metrics:
        for row in rows:
            row.metrics["sharpness"] = _sharpness(row, planes, folder / "predictions")
    return means(rows, claim)


def prediction_file(method: Method, seed: int, planes: Path, runs: Path, image: Path, organelle: Organelle) -> Path:
    """Return the file of one prediction that `score` made of an image of `planes`."""
    return _prediction(_folder(method, seed, planes, runs) / "predictions", image.relative_to(planes), organelle)


def _folder(method: Method, seed: int, planes: Path, runs: Path) -> Path:
    """Claims that ask for the same predictions share them."""
    facts = [method.networks, method.heads, method.options, seed, planes.name]
    return runs / "scores" / hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:12]


def _prediction(predictions: Path, image: Path, organelle: Organelle) -> Path:
    return output_folder(predictions, organelle) / image.parent / prediction_filename(image.name)


def means(rows: list[Row], claim: Claim) -> list[MeanScore]:
    """Average the metrics of a claim over the predictions of each group."""
    groups: dict[tuple[Organelle, Modality | None, int | None], list[Row]] = defaultdict(list)
    for row in rows:
        by_focus = claim.group_by == "z_deviation"
        groups[row.organelle, None if by_focus else row.modality, row.z_deviation if by_focus else None].append(row)
    return [
        MeanScore(*group, {name: round(_mean([row.metrics[name] for row in members]), 4) for name in claim.metrics})
        for group, members in groups.items()
    ]


def mean(scores: list[MeanScore], metric: str, side: Side) -> float:
    """Mean over organelles of the mean over groups: each organelle counts the same, and each group; NaN of none."""
    chosen = [
        score
        for score in scores
        if side.modality in (None, score.modality) and side.z_deviation in (None, score.z_deviation)
    ]
    organelles = [side.organelle] if side.organelle else list(Organelle)
    return _mean([_mean([s.metrics[metric] for s in chosen if s.organelle is o]) for o in organelles])


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _write_resources(method: Method, seed: int, runs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for network in method.used:
        target = folder / f"{network}.safetensors"
        shutil.copyfile(checkpoint_of(runs, network, seed), target)
        files[network] = CheckpointFile.of(target)
    first = next(iter(method.networks.values()))  # a routing wants all modalities
    routes: dict[Modality | None, dict[Organelle, Ensemble]]
    routes = {m: {o: (Route(method.networks.get(m, first), o),) for o in Organelle} for m in Modality}
    for head, network in method.heads.items():
        modality, organelle = head.split("/")
        routes[Modality(modality)][Organelle(organelle)] = (Route(network, Organelle(organelle)),)
    Routing(files, routes).write(folder)


def _of_modalities(images: list[Path], planes: Path, folder: Path) -> Path:
    """Link the images and their targets, since every truth that is there wants a prediction."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in images:
        target = folder / path.relative_to(planes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
        name = parse(path.name)
        assert name is not None
        for organelle in Organelle:
            truth = TargetName(name.image, organelle).filename
            if not (target.parent / truth).exists() and (path.parent / truth).exists():
                (target.parent / truth).hardlink_to(path.parent / truth)
    if (planes / "focus.csv").is_file():
        (folder / "focus.csv").hardlink_to(planes / "focus.csv")
    return folder


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                row["image"],
                Modality(row["modality"]),
                Organelle(row["organelle"].lower()),
                int(row["z_deviation"]) if row["z_deviation"] else None,
                {name: float(row[name]) for name in METRICS if row.get(name)},
            )
            for row in csv.DictReader(file)
        ]


def _sharpness(row: Row, planes: Path, predictions: Path) -> float:
    """Amplitude of fine structures in a prediction over that in its truth, each in units of its percentile range."""
    source = next(planes.glob(f"{row.image}*"))
    name = parse(source.name)
    assert name is not None
    truth = read_image(source.parent / TargetName(name.image, row.organelle).filename)
    predicted = read_image(_prediction(predictions, source.relative_to(planes), row.organelle))
    assert truth.info.pixel_size_um is not None
    wanted, found = (_fine(image.pixels, truth.info.pixel_size_um[0]) for image in (truth, predicted))
    return found / wanted if wanted else float("nan")


def _fine(pixels: NDArray[np.uint16], pixel_um: float) -> float:
    normalized = normalize(pixels)
    power = np.abs(np.fft.rfft2(normalized - normalized.mean())) ** 2
    y, x = np.fft.fftfreq(pixels.shape[0], pixel_um), np.fft.rfftfreq(pixels.shape[1], pixel_um)
    frequency = np.hypot(y[:, None], x[None])
    band = (frequency > 1 / FINE_UM[1]) & (frequency < 1 / FINE_UM[0])
    return float(np.sqrt(power[band].sum() / pixels.size**2))
