"""Balanced batches: equally many samples from each labelled organelle's list in every batch (paper section 2.2).

Batch number n is a pure function of (seed, n), and sample s of it one of (seed, n, s): no random state runs along. So
threads can read ahead, a resumed run goes on with the very batch that comes next, and a batch is the same whether one
process learns from all of it or several from a part each.
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
    """One sample: its number in the batch, its field, its plane, and the organelle from whose list, if from one."""

    sample: int
    field: Field
    z: int
    drawn_for: Organelle | None = None


class Sampler(Protocol):
    """Draws batches, each a pure function of its number."""

    @property
    def batch_size(self) -> int:
        """Samples of all parts of a batch."""

    def draw(self, number: int) -> list[list[Pick]]:
        """Draw the samples of batch `number`, part by part."""


def sample_rng(seed: int, number: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample's augmentation, whoever draws the other samples of batch `number`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, sample)))


class BalancedSampler:
    """Draws the same number of fields from the list of each labelled organelle, for every batch.

    Fields are uniform over the list and do not repeat within a batch's draw from it, as long as the list is
    long enough; the plane is uniform over the field's planes.

    Parameters
    ----------
    fields : sequence of Field
    per_organelle : int
        Samples drawn from each list for each part.
    seed : int
    parts : int
        Parts of a batch, each as balanced as the whole.

    Raises
    ------
    UserError
        Where no field is labelled.
    """

    def __init__(self, fields: Sequence[Field], per_organelle: int, seed: int, parts: int = 1) -> None:
        self.lists = {o: [f for f in fields if o in f.labels] for o in Organelle}
        self.lists = {o: listed for o, listed in self.lists.items() if listed}
        if not self.lists:
            raise UserError("the training part of the data holds no labelled field, expected at least one")
        self.per_organelle = per_organelle
        self.seed = seed
        self.parts = parts

    @property
    def batch_size(self) -> int:
        """Samples of all parts."""
        return self.parts * self.per_organelle * len(self.lists)

    def draw(self, number: int) -> list[list[Pick]]:
        """Draw the samples of batch `number`, part by part."""
        rng = np.random.default_rng([self.seed, number])
        parts: list[list[Pick]] = [[] for _ in range(self.parts)]
        size = self.parts * self.per_organelle
        for organelle, listed in self.lists.items():
            first = sum(map(len, parts))
            chosen = rng.choice(len(listed), size, replace=len(listed) < size)
            for place, i in enumerate(chosen):
                pick = Pick(first + place, listed[i], _plane(listed[i], rng), organelle)
                parts[place // self.per_organelle].append(pick)
        return parts


class PlainSampler:
    """Draws from all labelled fields alike, for comparison; batches are as large as `BalancedSampler`'s."""

    def __init__(self, fields: Sequence[Field], per_organelle: int, seed: int, parts: int = 1) -> None:
        self.batch_size = BalancedSampler(fields, per_organelle, seed, parts).batch_size
        self.fields = [f for f in fields if f.labels]
        self.seed = seed
        self.parts = parts

    def draw(self, number: int) -> list[list[Pick]]:
        """Draw the samples of batch `number`, part by part."""
        rng = np.random.default_rng([self.seed, number])
        chosen = rng.choice(len(self.fields), self.batch_size, replace=len(self.fields) < self.batch_size)
        picks = [Pick(s, self.fields[i], _plane(self.fields[i], rng)) for s, i in enumerate(chosen)]
        size = self.batch_size // self.parts
        return [picks[first : first + size] for first in range(0, self.batch_size, size)]


def _plane(entry: Field, rng: np.random.Generator) -> int:
    planes = list(entry.planes)
    return planes[int(rng.integers(len(planes)))]
