"""Read every file before a run begins, so that none can end it: the reader of prediction decides what is usable."""

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from model.contrast import missing_contrast
from model.discovery import is_prediction
from model.errors import UserError
from model.images import ImageInfo, read_image
from model.images.reader import reconcile_modality
from model.images.stack import Channel
from model.margins import find_margins
from model.preprocessing import Preprocessing
from training.index import MOST_LISTED, Field, Index, Skipped

log = logging.getLogger(__name__)

Shape = tuple[int, int]


def check(index: Index, preprocessing: Preprocessing) -> Index:
    """Read every file and leave out what cannot be learned from, with the reason.

    A target or plane that is refused by the reader, or differs in shape, is left out alone; a field is left out when no
    plane or no target remains. Planes whose pixel size is missing or implausible are warned of, as in prediction.

    Parameters
    ----------
    index : Index
        As `scan` returns it.
    preprocessing : Preprocessing
        Of the network that will learn from the files.

    Returns
    -------
    Index
        Usable fields, with their `shape`; what is left out has joined `skipped`.
    """
    paths = dict.fromkeys(path for f in index.fields for path in (*f.planes.values(), *f.labels.values()))
    found = _read_all(list(paths))
    infos = {path: what for path, what in found.items() if not isinstance(what, str)}
    shapes = {path: info.shape for path, info in infos.items()}
    skipped = [*index.skipped, *(Skipped(str(path), what) for path, what in found.items() if isinstance(what, str))]
    fields = []
    for field in index.fields:
        kept, reasons = _usable_part(field, shapes)
        skipped += reasons
        if kept is not None:
            fields.append(kept)
    _warn(fields, infos, preprocessing)
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


def _warn(fields: Iterable[Field], infos: Mapping[Path, ImageInfo], preprocessing: Preprocessing) -> None:
    """Warn of what the files say and of what prediction would do otherwise, once for all files of a kind."""
    warned = defaultdict(list)
    for field in fields:
        for path in field.labels.values():
            for warning in infos[path].warnings:
                warned[warning].append(path)
        for path in field.planes.values():
            info = infos[path]
            _, contradiction = reconcile_modality(path, Channel(modality=info.modality))
            found = [warning for warning in info.warnings if warning not in contradiction]
            if info.modality not in (None, field.modality):
                found.append(f"learned from as {field.modality} by its name; prediction takes it as {info.modality}")
            if about_size := preprocessing.grid(info.shape, info.pixel_size_um).warning:
                found.append(about_size)
            for warning in found:
                warned[warning].append(path)
    for warning, paths in list(warned.items())[:MOST_LISTED]:
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        log.warning("%s%s: %s.", paths[0], others, warning)


def _read_all(paths: Sequence[Path]) -> dict[Path, ImageInfo | str]:
    """What each file holds, or what is wrong with it; decoding releases the interpreter, so threads help."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        read = pool.map(_read, paths)
        bar = tqdm(read, total=len(paths), desc="Checking", unit="file", file=sys.stdout, disable=None)
        return dict(zip(paths, bar, strict=True))


def _read(path: Path) -> ImageInfo | str:
    try:
        image = read_image(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    if is_prediction(image.info.provenance):
        return "found a prediction of this program, expected a microscope's image"
    blank = missing_contrast(image.pixels, find_margins(image.pixels))
    return replace(image.info, warnings=(*image.info.warnings, blank)) if blank else image.info
