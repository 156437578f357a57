"""Means over images, as the challenge takes them: each image counts once, whatever its size."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from evaluation.metrics import METRICS
from evaluation.scoring import Result
from model.labels import Modality, Organelle

Key = TypeVar("Key", bound=Hashable)

UNSTATED = "not stated"


@dataclass(frozen=True)
class Mean:
    """Mean metrics of a group of results of one organelle, and their number."""

    metrics: Mapping[str, float]
    images: int


@dataclass(frozen=True)
class ProvenanceGroup:
    """How a group of predictions of one organelle was made, by their files' own account.

    Attributes
    ----------
    organelle : Organelle
    checkpoint, trained_on : str
        `UNSTATED` where the files say nothing.
    images : int
        Number of predictions.
    settings : mapping of str to str
        Whatever else the files state alike.
    """

    organelle: Organelle
    checkpoint: str
    trained_on: str
    images: int
    settings: Mapping[str, str]


def per_organelle(results: Iterable[Result]) -> dict[Organelle, Mean]:
    """Return one mean for each organelle, in the order of `Organelle`."""
    groups = _group(results, lambda result: result.pair.organelle)
    return {organelle: _mean(groups[organelle]) for organelle in Organelle if organelle in groups}


def per_modality(results: Iterable[Result]) -> dict[str, dict[Organelle, Mean]]:
    """Return means by modality (BF, PC, DIC, unknown), then by organelle; empty groups are left out."""
    groups = _group(results, lambda result: result.modality)
    order = [modality.value for modality in Modality]
    names = sorted(groups, key=lambda name: order.index(name) if name in order else len(order))
    return {name: per_organelle(groups[name]) for name in names}


def per_z_deviation(results: Iterable[Result]) -> dict[Organelle, dict[int, Mean]]:
    """Return means by organelle, then by |z - best z|, ascending; results of unknown focus are left out."""
    by_organelle: dict[Organelle, dict[int, Mean]] = {}
    known = _group(
        (result for result in results if result.z_deviation is not None), lambda result: result.pair.organelle
    )
    for organelle in (organelle for organelle in Organelle if organelle in known):
        groups = _group(known[organelle], lambda result: result.z_deviation or 0)
        by_organelle[organelle] = {deviation: _mean(groups[deviation]) for deviation in sorted(groups)}
    return by_organelle


def provenance_groups(results: Iterable[Result]) -> list[ProvenanceGroup]:
    """Return the distinct checkpoints, by organelle and number of images, with what they were trained on."""
    groups = _group(
        results,
        lambda result: (
            result.pair.organelle,
            result.provenance.get("checkpoint", UNSTATED),
            result.provenance.get("trained_on", UNSTATED),
        ),
    )
    found = []
    for (organelle, checkpoint, trained_on), members in groups.items():
        alike = set.intersection(*(set(member.provenance.items()) for member in members))
        settings = {
            key: value for key, value in sorted(alike) if key not in ("checkpoint", "trained_on", "disagreement")
        }
        found.append(ProvenanceGroup(organelle, checkpoint, trained_on, len(members), settings))
    order = list(Organelle)
    return sorted(found, key=lambda group: (order.index(group.organelle), -group.images, group.checkpoint))


def worst_first(results: Iterable[Result]) -> dict[Organelle, list[Result]]:
    """Sort the results of each organelle by ascending PCC, then SSIM."""
    groups = _group(results, lambda result: result.pair.organelle)
    return {
        organelle: sorted(groups[organelle], key=lambda result: (result.metrics["PCC"], result.metrics["SSIM"]))
        for organelle in Organelle
        if organelle in groups
    }


def to_document(results: Sequence[Result]) -> dict[str, Any]:
    """Build the content of ``metrics.json``.

    Returns
    -------
    dict
        JSON types only. ``results`` (one entry for each image), ``aggregate`` (by organelle), ``transmitted_light``
        (by modality, organelle) and ``z_deviation`` (by organelle, |z - best z|) are shaped and named as the
        challenge's own; groups without images are left out. ``counts`` holds the number of images by modality and
        organelle, ``provenance`` how they were made.
    """
    by_modality = per_modality(results)
    return {
        "results": _entries(results),
        "aggregate": _metrics(per_organelle(results)),
        "transmitted_light": {name: _metrics(means) for name, means in by_modality.items()},
        "z_deviation": {
            organelle.value: {str(z): dict(mean.metrics) for z, mean in means.items()}
            for organelle, means in per_z_deviation(results).items()
        },
        "counts": {
            name: {organelle.value: mean.images for organelle, mean in means.items()}
            for name, means in by_modality.items()
        },
        "provenance": [
            {
                "organelle": group.organelle.value,
                "checkpoint": group.checkpoint,
                "trained_on": group.trained_on,
                "images": group.images,
                "settings": dict(group.settings),
            }
            for group in provenance_groups(results)
        ],
    }


def _entries(results: Iterable[Result]) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for result in results:
        entry = entries.setdefault(
            result.pair.key,
            {"image_name": result.pair.key, "modality": result.modality, "z_deviation": result.z_deviation},
        )
        entry[result.pair.organelle.value] = dict(result.metrics)
    return list(entries.values())


def _metrics(means: Mapping[Organelle, Mean]) -> dict[str, dict[str, float]]:
    return {organelle.value: dict(mean.metrics) for organelle, mean in means.items()}


def _mean(results: Sequence[Result]) -> Mean:
    names = METRICS[results[0].pair.organelle]
    return Mean({name: float(np.mean([result.metrics[name] for result in results])) for name in names}, len(results))


def _group(results: Iterable[Result], key: Callable[[Result], Key]) -> dict[Key, list[Result]]:
    groups: dict[Key, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return dict(groups)
