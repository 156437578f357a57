"""Data of the experiments: simulated studies that have the labels of the real ones, and test fields with all labels."""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from experiments.definitions import FOLDER, Simulation
from experiments.project_commands import simulate
from model.files import write_text
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse

_LETTERS = {organelle.label[0]: organelle for organelle in Organelle}


@dataclass(frozen=True)
class Data:
    """Folders in the challenge's layout: to learn from, to score, and fields of many planes."""

    training: Path
    test: Path
    focus: Path


def real_studies() -> dict[Modality, list[list[tuple[frozenset[Organelle], int]]]]:
    """Read which labels the real studies have: for each study of a modality, sets of labels and numbers of fields."""
    studies: dict[Modality, dict[str, list[tuple[frozenset[Organelle], int]]]] = {m: {} for m in Modality}
    with (FOLDER / "availability.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            labels = frozenset(_LETTERS[letter] for letter in row["labels"].split())
            studies[Modality(row["modality"])].setdefault(row["study"], []).append((labels, int(row["fields"])))
    return {modality: list(of_modality.values()) for modality, of_modality in studies.items()}


def labels_of_fields(study: list[tuple[frozenset[Organelle], int]], fields: int) -> list[frozenset[Organelle]]:
    """Labels of some fields that stand for a study: its sets of labels, in their proportions, the commonest first."""
    total, labels = sum(count for _, count in study), []
    for position in range(fields):
        place, passed = (position + 0.5) / fields * total, 0
        for wanted, count in sorted(study, key=lambda entry: -entry[1]):
            passed += count
            if place <= passed:
                labels.append(wanted)
                break
    return labels


def prepare(simulation: Simulation, folder: Path, workers: int) -> Data:
    """Simulate what is not there yet; raises UserError where that fails."""
    complete = folder / "complete"
    for modality in Modality:
        fields = len(real_studies()[modality]) * simulation.fields_per_study
        options = ["--modalities", modality, "--fields", fields, "--fields-per-study", simulation.fields_per_study]
        options += ["--size", simulation.size, "--planes", simulation.planes, "--seed", simulation.training_seed]
        simulate(complete / modality, "--workers", workers, *options)
    training = folder / "training"
    if not (training / "LABELS.txt").is_file():
        shutil.rmtree(training, ignore_errors=True)
        _take_labels_away(complete, training, simulation.fields_per_study)
    test = ["--size", simulation.test_size, "--fields", simulation.test_fields, "--seed", simulation.test_seed]
    simulate(folder / "test", "--workers", workers, *test, "--planes", simulation.test_planes)
    focus = ["--size", simulation.test_size, "--fields", simulation.focus_fields, "--seed", simulation.focus_seed]
    simulate(folder / "focus", "--workers", workers, *focus, "--planes", simulation.focus_planes)
    return Data(training, folder / "test", folder / "focus")


def _take_labels_away(complete: Path, training: Path, fields_per_study: int) -> None:
    """Link the images of the complete data, without the targets that the real studies do not have."""
    lines = []
    for modality, studies in real_studies().items():
        for number, study in enumerate(studies, 1):
            source = complete / modality / f"Study_{number}"
            target = training / f"{modality}_{number}"
            target.mkdir(parents=True)
            images = [(path, parse(path.name)) for path in sorted(source.iterdir())]
            numbers = sorted({name.image for _, name in images if isinstance(name, InputName)})
            kept = dict(zip(numbers, labels_of_fields(study, fields_per_study), strict=True))
            for path, name in images:
                if isinstance(name, TargetName) and name.organelle not in kept[name.image]:
                    continue
                os.link(path, target / path.name)
            lines += [f"{target.name} {image}: {', '.join(sorted(kept[image]))}" for image in numbers]
    write_text(training / "LABELS.txt", "\n".join(lines) + "\n")
