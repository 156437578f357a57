"""What there is to learn from: fields of view, their focal planes and their labels.

A *field* is one position under the microscope in one modality: many planes along z that share one target per
labelled organelle. Whatever splits or counts the data does so by field, never by plane.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from model.labels import Modality, Organelle

MOST_LISTED = 30
"""Of what is left out, the summary lists no more."""


@dataclass(frozen=True)
class Field:
    """One field of view in one modality.

    Attributes
    ----------
    study : str
        The folder that holds it (or the file list's name).
    image : int
        Number of the field in its study.
    modality : Modality
    planes : dict of int to Path
        Inputs by z.
    labels : dict of Organelle to Path
        Targets, which all planes share.
    shape : (int, int) or None
        (Y, X) in pixels, known once the files were checked.
    """

    study: str
    image: int
    modality: Modality
    planes: dict[int, Path]
    labels: dict[Organelle, Path]
    shape: tuple[int, int] | None = None

    @property
    def position(self) -> tuple[str, int]:
        """What the field shares with the same cells in another modality; a split never cuts through it."""
        return self.study, self.image

    @property
    def name(self) -> str:
        return f"{self.study}/image_{self.image}_{self.modality}"


@dataclass(frozen=True)
class Skipped:
    """A file or field that is left out, and why, in words for the user."""

    name: str
    reason: str


@dataclass(frozen=True)
class Index:
    """The fields of one or more data sets, sorted by name, and what was left out.

    Attributes
    ----------
    fields : tuple of Field
    skipped : tuple of Skipped
    duplicates : tuple of str
        Files that several ways lead to, counted once.
    """

    fields: tuple[Field, ...]
    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[str, ...] = field(default=())

    @property
    def studies(self) -> tuple[str, ...]:
        return tuple(sorted({f.study for f in self.fields}))

    def inputs(self) -> int:
        """Number of input planes."""
        return sum(len(f.planes) for f in self.fields)

    def targets(self) -> int:
        """Number of target files; a target that serves several modalities of one position counts once."""
        return len({path for f in self.fields for path in f.labels.values()})

    def labelled(self) -> dict[Modality, tuple[Organelle, ...]]:
        """Which organelles are labelled at least once, for each modality that is present."""
        return {
            modality: tuple(o for o in Organelle if any(f.modality is modality and o in f.labels for f in self.fields))
            for modality in Modality
            if any(f.modality is modality for f in self.fields)
        }

    def only(self, modalities: Iterable[Modality]) -> "Index":
        """The same index with the fields of these modalities alone."""
        wanted = frozenset(modalities)
        return replace(self, fields=tuple(f for f in self.fields if f.modality in wanted))

    def complete(self) -> "Index":
        """The same index with those fields alone that have all labels that occur in their modality."""
        wanted = self.labelled()
        return replace(self, fields=tuple(f for f in self.fields if f.labels.keys() == set(wanted[f.modality])))

    def digest(self) -> str:
        """Hash of planes, labels and shapes; the folders may move."""
        facts = [(f.study, f.image, f.modality, list(f.planes), list(f.labels), f.shape) for f in self.fields]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def summary(self) -> str:
        """A few lines to print: totals, then fields per modality with the number of each label."""
        lines = [
            f"{len(self.studies)} studies, {len(self.fields)} fields, {self.inputs()} inputs, {self.targets()} targets"
        ]
        for modality in self.labelled():
            fields = [f for f in self.fields if f.modality is modality]
            counts = ", ".join(f"{o.value} {sum(o in f.labels for f in fields)}" for o in Organelle)
            lines.append(f"  {modality}: {len(fields)} fields, {sum(len(f.planes) for f in fields)} inputs; {counts}")
        if self.duplicates:
            lines.append(f"  {len(self.duplicates)} files are there twice and counted once, e.g. {self.duplicates[0]}")
        lines.extend(f"  skipped {s.name}: {s.reason}" for s in self.skipped[:MOST_LISTED])
        if len(self.skipped) > MOST_LISTED:
            lines.append(f"  and {len(self.skipped) - MOST_LISTED} more are skipped")
        return "\n".join(lines)


def hold_out(index: Index, studies: Collection[str]) -> tuple[Index, Index]:
    """Split by the names of the studies that are held out; returns the training and the validation part."""
    held, kept = (tuple(f for f in index.fields if (f.study in studies) is side) for side in (True, False))
    return replace(index, fields=kept), replace(index, fields=held)


def split(index: Index, *, by: str, fraction: float, seed: int) -> tuple[Index, Index]:
    """Split the fields, seeded and stratified by modality.

    A position that is seen in several modalities lies on one side with all of them.

    Parameters
    ----------
    index : Index
    by : {"field", "study"}
        What is not cut: "field" (positions of one study may lie on both sides), or "study" (harder: other microscopes
        and cells).
    fraction : float
        In [0, 1): about this share of each modality's units is held out, at least one where there are two.
    seed : int

    Returns
    -------
    training, validation : Index
    """
    assert by in ("field", "study") and 0 <= fraction < 1

    def unit(entry: Field) -> tuple[str, int]:
        return entry.position if by == "field" else (entry.study, 0)

    rng = np.random.default_rng([seed, 0x5EED])
    held: set[tuple[str, int]] = set()
    kept: set[tuple[str, int]] = set()
    for modality in Modality:
        units = sorted({unit(f) for f in index.fields if f.modality is modality})
        wanted = 0 if fraction == 0 or len(units) < 2 else max(1, round(fraction * len(units)))
        wanted -= sum(u in held for u in units)
        # A unit that an earlier modality keeps for training stays there.
        free = [u for u in units if u not in held and u not in kept]
        chosen = {free[i] for i in rng.permutation(len(free))[: max(0, wanted)]}
        held |= chosen
        kept |= set(units) - held
    parts = [tuple(f for f in index.fields if (unit(f) in held) is side) for side in (False, True)]
    return replace(index, fields=parts[0]), replace(index, fields=parts[1])
