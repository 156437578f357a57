"""Read every file before a run begins, so that none can end it: the reader of prediction decides what is usable."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from model.discovery import is_prediction
from model.errors import UserError
from model.images import read_image
from training.index import Field, Index, Skipped

Shape = tuple[int, int]


def check(index: Index) -> Index:
    """Read every file and leave out what cannot be learned from, with the reason.

    A target or plane that is refused by the reader, or differs in shape, is left out alone; a field is left out when no
    plane or no target remains. The returned fields have their `shape`.
    """
    paths = dict.fromkeys(path for f in index.fields for path in (*f.planes.values(), *f.labels.values()))
    found = _read_all(list(paths))
    skipped = [*index.skipped, *(Skipped(str(path), what) for path, what in found.items() if isinstance(what, str))]
    fields = []
    for field in index.fields:
        shapes = {path: what for path, what in found.items() if not isinstance(what, str)}
        kept, reasons = _usable_part(field, shapes)
        skipped += reasons
        if kept is not None:
            fields.append(kept)
    return replace(index, fields=tuple(fields), skipped=tuple(skipped))


def _usable_part(field: Field, shapes: dict[Path, Shape]) -> tuple[Field | None, list[Skipped]]:
    """What remains of a field, if anything, and why the rest does not; `shapes` are those of all readable files."""
    readable = [shapes[path] for path in field.planes.values() if path in shapes]
    if not readable:
        return None, [Skipped(field.name, "no readable input is left")]
    shape = max(readable, key=readable.count)
    skipped = [
        Skipped(str(path), f"is {shapes[path]}, {others} are {shape}")
        for group, others in ((field.planes, "the field's other planes"), (field.labels, "its inputs"))
        for path in group.values()
        if path in shapes and shapes[path] != shape
    ]
    labels = {organelle: path for organelle, path in field.labels.items() if shapes.get(path) == shape}
    planes = {z: path for z, path in field.planes.items() if shapes.get(path) == shape}
    if not labels:
        return None, [*skipped, Skipped(field.name, "no readable target is left")]
    return replace(field, planes=planes, labels=labels, shape=shape), skipped


def _read_all(paths: Sequence[Path]) -> dict[Path, Shape | str]:
    """(Y, X) of each file's plane, or what is wrong with it; decoding releases the interpreter, so threads help."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        shapes = tqdm(pool.map(_shape, paths), total=len(paths), desc="Checking", unit="file", disable=None)
        return dict(zip(paths, shapes, strict=True))


def _shape(path: Path) -> Shape | str:
    try:
        image = read_image(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    if is_prediction(image.info):
        return "found a prediction of this program, expected a microscope's image"
    return image.info.shape
