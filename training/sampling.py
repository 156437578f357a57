"""Balanced batches: equally many samples from each labelled organelle's list in every batch (paper section 2.2).

Batch number n is a pure function of (seed, n): no random state runs along, so the stream can be read ahead by
threads, and a resumed run goes on with the very batch that comes next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.errors import UserError
from model.labels import Organelle
from training.index import Field


@dataclass(frozen=True)
class Pick:
    """One sample: its field, its plane, and the organelle from whose list it was drawn, if from one."""

    field: Field
    z: int
    drawn_for: Organelle | None = None


class Sampler(Protocol):
    """Draws batches, each a pure function of its number."""

    @property
    def batch_size(self) -> int:
        """Samples in a batch."""

    def draw(self, number: int) -> tuple[list[Pick], np.random.Generator]:
        """Draw the samples of batch `number`; the generator goes on with their augmentation."""


class BalancedSampler:
    """Draws the same number of fields from the list of each labelled organelle, for every batch.

    Fields are uniform over the list and do not repeat within a batch's draw from it, as long as the list is
    long enough; the plane is uniform over the field's planes.

    Parameters
    ----------
    fields : sequence of Field
    per_organelle : int
        Samples drawn from each list.
    seed : int

    Raises
    ------
    UserError
        Where no field is labelled.
    """

    def __init__(self, fields: Sequence[Field], per_organelle: int, seed: int) -> None:
        self.lists = {o: [f for f in fields if o in f.labels] for o in Organelle}
        self.lists = {o: listed for o, listed in self.lists.items() if listed}
        if not self.lists:
            raise UserError("the training part of the data holds no labelled field, expected at least one")
        self.per_organelle = per_organelle
        self.seed = seed

    @property
    def batch_size(self) -> int:
        """Samples in a batch."""
        return self.per_organelle * len(self.lists)

    def draw(self, number: int) -> tuple[list[Pick], np.random.Generator]:
        """Draw the samples of batch `number`; the generator goes on with their augmentation."""
        rng = np.random.default_rng([self.seed, number])
        picks = []
        for organelle, listed in self.lists.items():
            chosen = rng.choice(len(listed), self.per_organelle, replace=len(listed) < self.per_organelle)
            for i in chosen:
                picks.append(Pick(listed[i], _plane(listed[i], rng), organelle))
        return picks, rng


class PlainSampler:
    """Draws from all labelled fields alike, for comparison; batches are as large as `BalancedSampler`'s."""

    def __init__(self, fields: Sequence[Field], per_organelle: int, seed: int) -> None:
        self.batch_size = BalancedSampler(fields, per_organelle, seed).batch_size
        self.fields = [f for f in fields if f.labels]
        self.seed = seed

    def draw(self, number: int) -> tuple[list[Pick], np.random.Generator]:
        """Draw the samples of batch `number`; the generator goes on with their augmentation."""
        rng = np.random.default_rng([self.seed, number])
        chosen = rng.choice(len(self.fields), self.batch_size, replace=len(self.fields) < self.batch_size)
        return [Pick(self.fields[i], _plane(self.fields[i], rng)) for i in chosen], rng


def _plane(entry: Field, rng: np.random.Generator) -> int:
    planes = list(entry.planes)
    return planes[int(rng.integers(len(planes)))]
