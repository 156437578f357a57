"""What there is to learn from: fields of view, their focal planes and their labels, found by file name.

A *field* is one position under the microscope in one modality: many planes along z that share one target per
labelled organelle. Whatever splits or counts the data does so by field, never by plane.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tifffile

from model.errors import UserError
from model.images import read_image
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse


@dataclass(frozen=True)
class Field:
    """One field of view in one modality.

    ``study`` is the folder that holds it (or the file list's name), ``planes`` maps z to the input's path,
    ``labels`` maps an organelle to its target's path. ``shape`` is (Y, X) in pixels, known once the files
    were checked.
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
    """The fields of one or more data sets, sorted by name, and what was left out."""

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
            lines.append(f"  {len(self.duplicates)} file names are listed twice, e.g. {self.duplicates[0]}")
        lines.extend(f"  skipped {s.name}: {s.reason}" for s in self.skipped)
        return "\n".join(lines)


def scan(roots: Sequence[Path]) -> Index:
    """Index the folders ``roots`` and all below them.

    The folder that holds a file is its study, so the challenge's ``Study_K/`` and one flat folder both work.
    Other files are ignored. Raises UserError where a folder is absent or holds nothing of the challenge's names.
    """
    listed: list[tuple[str, Path]] = []
    names_of_roots = [root.resolve().name for root in roots]
    for root, name_of_root in zip(roots, names_of_roots, strict=True):
        if not root.is_dir():
            raise UserError(f"{root}: no such folder, expected a data set in the challenge's layout")
        found: list[tuple[str, Path]] = []
        for folder, _, names in os.walk(root):
            # Two data sets may both have a Study_1; their fields are different cells.
            alone = len(roots) == 1
            name = name_of_root if names_of_roots.count(name_of_root) == 1 else str(root)
            below = os.path.relpath(folder, root)
            study = name if below == "." else below if alone else f"{name}/{below}"
            found.extend((study, Path(folder) / name) for name in names if parse(name) is not None)
        if not found:
            raise UserError(f"{root}: found no file named like image_1_BF_z0.ome.tiff, expected the challenge's layout")
        listed.extend(found)
    return _assemble(listed)


def read_file_lists(paths: Iterable[Path]) -> Index:
    """Index file lists, one file name a line, one study a list, for counting what a data set holds.

    The paths in the index are ``study/name`` and need not exist. Raises UserError for an unreadable list.
    """
    listed: list[tuple[str, Path]] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}), expected one file name a line") from error
        folder = Path(path.stem)
        listed.extend((path.stem, folder / line.strip()) for line in lines if line.strip())
    return _assemble(listed)


def _assemble(listed: Iterable[tuple[str, Path]]) -> Index:
    planes: dict[tuple[str, int, Modality], dict[int, Path]] = {}
    labels: dict[tuple[str, int], dict[Organelle, Path]] = {}
    duplicates, skipped = [], []
    for study, path in sorted(listed, key=lambda item: (item[0], item[1].name)):
        match parse(path.name):
            case InputName(image, modality, z):
                taken = planes.setdefault((study, image, modality), {}).setdefault(z, path)
                repeated = taken is not path
            case TargetName(image, organelle):
                repeated = labels.setdefault((study, image), {}).setdefault(organelle, path) is not path
            case None:
                skipped.append(Skipped(f"{study}/{path.name}", "is not named as in the challenge"))
                continue
        if repeated:
            duplicates.append(f"{study}/{path.name}")
    fields = []
    for (study, image, modality), stack in sorted(planes.items()):
        known = labels.get((study, image), {})
        entry = Field(
            study,
            image,
            modality,
            dict(sorted(stack.items())),
            {o: known[o] for o in Organelle if o in known},
        )
        if known:
            fields.append(entry)
        else:
            skipped.append(Skipped(entry.name, "has inputs but no target"))
    with_inputs = {(study, image) for study, image, _ in planes}
    skipped.extend(
        Skipped(f"{s}/image_{i}", "has targets but no input") for s, i in sorted(labels) if (s, i) not in with_inputs
    )
    return Index(tuple(fields), tuple(skipped), tuple(duplicates))


def check(index: Index) -> Index:
    """Look at every file's header and leave out what cannot be learned from, with the reason.

    A broken or differently shaped target or plane is left out alone; a field is left out when no plane or no
    target remains. Pixels are not decoded, so this takes about a millisecond a file. Returned fields have
    their ``shape``.
    """
    skipped = list(index.skipped)
    judged: dict[Path, tuple[int, int] | str] = {}

    def shape_of(path: Path) -> tuple[int, int] | str:
        # Targets are shared by the modalities of a position: each file is opened, and reported, once.
        if path not in judged:
            judged[path] = _header(path)
            if isinstance(judged[path], str):
                skipped.append(Skipped(str(path), str(judged[path])))
        return judged[path]

    fields = []
    for entry in index.fields:
        shapes = {z: shape_of(path) for z, path in entry.planes.items()}
        good = [shape for shape in shapes.values() if not isinstance(shape, str)]
        if not good:
            skipped.append(Skipped(entry.name, "no readable input is left"))
            continue
        shape = max(good, key=good.count)
        for z, found in shapes.items():
            if not isinstance(found, str) and found != shape:
                skipped.append(Skipped(str(entry.planes[z]), f"is {found}, the field's other planes are {shape}"))
        labels = {}
        for organelle, path in entry.labels.items():
            found = shape_of(path)
            if found == shape:
                labels[organelle] = path
            elif not isinstance(found, str):
                skipped.append(Skipped(str(path), f"is {found}, its inputs are {shape}"))
        if not labels:
            skipped.append(Skipped(entry.name, "no readable target is left"))
            continue
        planes = {z: path for z, path in entry.planes.items() if shapes[z] == shape}
        fields.append(replace(entry, planes=planes, labels=labels, shape=shape))
    return replace(index, fields=tuple(fields), skipped=tuple(skipped))


def _header(path: Path) -> tuple[int, int] | str:
    """(Y, X) of the one plane in a file, or what is wrong with it."""
    try:
        if path.suffix.lower() == ".mha":
            height, width = read_image(path).pixels.shape
            return height, width
        size = path.stat().st_size
        with tifffile.TiffFile(path) as tiff:
            if not tiff.pages:
                return "holds metadata without pixels"
            page = tiff.pages.first
            offsets, counts = page.dataoffsets, page.databytecounts
            if len(tiff.pages) != 1 or page.ndim != 2:
                return f"holds {len(tiff.pages)} pages of shape {page.shape}, expected one plane (Y, X)"
            if not sum(counts) or not page.size:
                return "holds metadata without pixels"
            if any(start + length > size for start, length in zip(offsets, counts, strict=True)):
                return "is cut off before the end of its pixels"
            if page.dtype not in (np.dtype(np.uint16), np.dtype(np.uint8)):
                return f"holds {page.dtype}, expected uint16"
            return int(page.shape[0]), int(page.shape[1])
    except Exception as error:  # tifffile raises many kinds on damaged files; each means: cannot be used
        return f"cannot be read ({type(error).__name__}: {error})"


def split(index: Index, *, by: str, fraction: float, seed: int) -> tuple[Index, Index]:
    """Part the fields into (training, validation), seeded, stratified by modality.

    ``by`` is "field" (spots of one study may lie on both sides) or "study" (harder: other microscopes and
    cells). About ``fraction`` of the units of each modality are held out, at least one where ``fraction`` > 0
    and there are two. A position seen in several modalities lies on one side with all of them.
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
