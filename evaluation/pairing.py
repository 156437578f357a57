"""Which prediction is compared with which truth.

A transmitted-light image is known by its **key**: its path below the folder that was predicted, without
suffix and with forward slashes (`Study_3/image_1_BF_z0`, or `<uuid>` on the platform). Predictions lie in
four folders, `images/{organelle}-fluorescence-ome-tiff/<key>.tiff`. Truth comes in either of two layouts:

- the platform's: the same four folders, one truth for every key;
- the challenge's: `Study_K/image_N_Nucleus.ome.tiff`, shared by all planes `Study_K/image_N_BF_zZ` of the
  field.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model import naming
from model.errors import UserError
from model.grand_challenge import INPUT_SLUG, OUTPUT_SLUGS, output_slug
from model.labels import Organelle

log = logging.getLogger(__name__)

Files = Mapping[str, Path]
"""Image files by key."""


@dataclass(frozen=True)
class Pair:
    """One prediction, its truth, and the input they belong to where it lies beside the truth."""

    key: str
    organelle: Organelle
    prediction: Path
    truth: Path
    source: Path | None


def find_pairs(predictions: Path, ground_truth: Path) -> list[Pair]:
    """Match every truth below `ground_truth` with its predictions, ordered by organelle and key.

    Raises `UserError` if either folder is none, holds nothing of its kind, if nothing matches, or if a
    truth lacks a prediction: as in the challenge, one missing file fails the whole evaluation. Predictions
    without truth are no fault.
    """
    predicted = find_predictions(predictions)
    _require_folder(ground_truth, "ground truth")
    sockets = _socket_root(ground_truth)
    if sockets and sockets.resolve() == _socket_root_of(predictions).resolve():
        sockets = None  # predictions written into the truth's own folder: they must not be compared with themselves
    wanted = _platform_truth(sockets) if sockets else _challenge_truth(ground_truth, predicted)
    if not any(entry.key in predicted[entry.organelle] for entry in wanted):
        found = next(key for files in predicted.values() for key in files)
        expected = wanted[0].key
        raise UserError(
            f"No prediction in {predictions} matches a truth in {ground_truth}: found predictions such as "
            f"'{found}', expected such as '{expected}' (give as ground truth the folder that was predicted)."
        )
    missing = [entry for entry in wanted if entry.key not in predicted[entry.organelle]]
    if missing:
        raise UserError(_missing_sentence(predictions, missing))
    pairs = [
        Pair(entry.key, entry.organelle, predicted[entry.organelle][entry.key], entry.truth, entry.source)
        for entry in wanted
    ]
    order = list(Organelle)
    return sorted(pairs, key=lambda pair: (order.index(pair.organelle), natural(pair.key)))


def find_predictions(folder: Path) -> dict[Organelle, Files]:
    """The predictions of each organelle by key, below `folder` or `folder/images`.

    Raises `UserError` if there are none.
    """
    _require_folder(folder, "predictions")
    root = _socket_root_of(folder)
    found: dict[Organelle, Files] = {organelle: _images(root / output_slug(organelle)) for organelle in Organelle}
    if not any(found.values()):
        raise UserError(
            f"{folder}: found no predictions, expected images/{{organelle}}-fluorescence-ome-tiff/*.tiff "
            "as inference.py writes them."
        )
    return found


def natural(key: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts image_2 before image_10."""
    digits = "".join(c if c.isdigit() else f" {c} " for c in key).split()
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in digits)


@dataclass(frozen=True)
class _Wanted:
    key: str
    organelle: Organelle
    truth: Path
    source: Path | None


def _platform_truth(root: Path) -> list[_Wanted]:
    sources = _images(root / INPUT_SLUG)
    wanted = [
        _Wanted(key, organelle, truth, sources.get(key))
        for organelle in Organelle
        for key, truth in _images(root / output_slug(organelle)).items()
    ]
    if not wanted:
        raise UserError(f"{root}: found no image in the organelles' folders, expected the ground truth.")
    return wanted


def _challenge_truth(root: Path, predicted: Mapping[Organelle, Files]) -> list[_Wanted]:
    files = _images(root)
    targets = {key: path for key, path in files.items() if _is_target(key)}
    if not targets:
        raise UserError(
            f"{root}: found no ground truth, expected image_N_Nucleus.ome.tiff and the like, "
            "or images/{organelle}-fluorescence-ome-tiff/."
        )
    _refuse_ambiguous(targets)
    if ignored := [path for path in files.values() if naming.near_miss(path.name)]:
        others = f" and {len(ignored) - 1} more" if len(ignored) > 1 else ""
        log.warning("%s%s: ignored, expected a name such as image_1_Nucleus.ome.tiff.", ignored[0], others)
    # Planes of a field are those beside its truth, and those that were predicted: truth may come without
    # inputs.
    planes: dict[tuple[str, int], set[str]] = {}
    for key in (*files, *(key for by_key in predicted.values() for key in by_key)):
        if isinstance(name := _parse(key), naming.InputName):
            planes.setdefault((_folder(key), name.image), set()).add(key)
    wanted = []
    for target, truth in targets.items():
        name = _parse(target)
        assert isinstance(name, naming.TargetName)
        field = (_folder(target), name.image)
        if field not in planes:
            # Nothing tells which planes the field has: any prediction would do, and there is none.
            wanted.append(_Wanted(f"{target.rpartition('_')[0]}_*", name.organelle, truth, None))
        for key in sorted(planes.get(field, ())):
            wanted.append(_Wanted(key, name.organelle, truth, files.get(key)))
    return wanted


def _refuse_ambiguous(targets: Files) -> None:
    """Two names of one folder may mean the same target, such as image_1_Nucleus and image_01_nucleus."""
    taken: dict[tuple[str, naming.InputName | naming.TargetName | None], Path] = {}
    for key, path in targets.items():
        other = taken.setdefault((_folder(key), _parse(key)), path)
        if other is not path:
            raise UserError(f"{path}: found a name that means the same as that of {other.name}, expected one truth.")


def _images(folder: Path) -> dict[str, Path]:
    """Every image below `folder` by key; folders of predictions kept within are left out."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if not naming.is_image(path.name) or not path.is_file() or _within_sockets(below.parts):
            continue
        key = (PurePosixPath(*below.parts[:-1]) / naming.stem(path.name)).as_posix()
        if key in found:
            raise UserError(f"{path}: found a second file for '{key}' beside {found[key].name}, expected one.")
        found[key] = path
    return found


def _within_sockets(parts: Iterable[str]) -> bool:
    return any(part in OUTPUT_SLUGS or part == INPUT_SLUG for part in parts)


def _socket_root(folder: Path) -> Path | None:
    """The folder that holds organelle folders: `folder/images`, or `folder` itself."""
    for root in (folder / "images", folder):
        if any((root / output_slug(organelle)).is_dir() for organelle in Organelle):
            return root
    return None


def _socket_root_of(folder: Path) -> Path:
    return _socket_root(folder) or folder


def _parse(key: str) -> naming.InputName | naming.TargetName | None:
    return naming.parse(f"{PurePosixPath(key).name}.tiff")


def _is_target(key: str) -> bool:
    return isinstance(_parse(key), naming.TargetName)


def _folder(key: str) -> str:
    return PurePosixPath(key).parent.as_posix()


def _require_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"{folder}: found {found}, expected the folder of the {what}.")


def _missing_sentence(predictions: Path, missing: list[_Wanted], shown: int = 5) -> str:
    root = _socket_root_of(predictions)
    paths = [str(root / output_slug(entry.organelle) / f"{entry.key}.tiff") for entry in missing[:shown]]
    more = f" and {len(missing) - shown} more" if len(missing) > shown else ""
    count = "a prediction is" if len(missing) == 1 else f"{len(missing)} predictions are"
    return f"The evaluation fails as the challenge would, since {count} missing: {', '.join(paths)}{more}."
