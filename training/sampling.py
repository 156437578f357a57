"""Balanced batches: equally many samples from each labelled organelle's list in every batch (paper section 2.2).

Batch number n is a pure function of (seed, n): no random state runs along, so the stream can be read ahead by
threads, and a resumed run goes on with the very batch that comes next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import UserError
from model.labels import Organelle
from training.index import Field


@dataclass(frozen=True)
class Pick:
    """One sample: its field, its plane, and the organelle from whose list it was drawn."""

    field: Field
    z: int
    drawn_for: Organelle


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
        return self.per_organelle * len(self.lists)

    def draw(self, number: int) -> tuple[list[Pick], np.random.Generator]:
        """Draw the samples of batch `number`; the generator goes on with their augmentation."""
        rng = np.random.default_rng([self.seed, number])
        picks = []
        for organelle, listed in self.lists.items():
            chosen = rng.choice(len(listed), self.per_organelle, replace=len(listed) < self.per_organelle)
            for i in chosen:
                planes = list(listed[i].planes)
                picks.append(Pick(listed[i], planes[int(rng.integers(len(planes)))], organelle))
        return picks, rng
