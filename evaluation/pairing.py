"""Which prediction is compared with which truth.

A transmitted-light image is known by its **key**: its path below the folder that was predicted, without
suffix and with forward slashes (`Study_3/image_1_BF_z0`, or `<uuid>` on the platform). Predictions lie in
four folders, `images/{organelle}-fluorescence-ome-tiff/<key>.tiff`. Truth comes in either of two layouts:

- the platform's: the same four folders, one truth for every key;
- the challenge's: `Study_K/image_N_Nucleus.ome.tiff`, shared by all planes `Study_K/image_N_BF_zZ` of the
  field.
"""

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model import naming
from model.discovery import is_prediction
from model.errors import UserError
from model.grand_challenge import INPUT_SLUG, MERGED_FOLDER, OUTPUT_FOLDERS, output_slug
from model.images import inspect
from model.labels import Organelle

log = logging.getLogger(__name__)

_SOCKETS = {*OUTPUT_FOLDERS, INPUT_SLUG}

Files = Mapping[str, Path]
"""Image files by key."""


@dataclass(frozen=True)
class Pair:
    """One prediction and its truth.

    Attributes
    ----------
    key : str
        Of the image that was predicted, see above.
    organelle : Organelle
    prediction, truth : Path
    source : Path or None
        The image that was predicted, where it lies beside the truth.
    """

    key: str
    organelle: Organelle
    prediction: Path
    truth: Path
    source: Path | None


def find_pairs(predictions: Path, ground_truth: Path) -> list[Pair]:
    """Match every truth with its predictions.

    Predictions without truth are no fault; an organelle that some image lacks altogether is warned of, since the
    challenge wants all four of every image.

    Parameters
    ----------
    predictions : Path
        Output folder of ``inference.py``, or the folder ``images`` in it.
    ground_truth : Path
        Folder in either layout, see above.

    Returns
    -------
    list of Pair
        One at least, ordered by organelle and key.

    Raises
    ------
    UserError
        Where a folder is missing or holds nothing of its kind, nothing matches, two files stand for one truth, or a
        truth lacks a prediction: as in the challenge, one missing file fails the whole evaluation.
    """
    predicted = _find_predictions(predictions)
    _require_folder(ground_truth, "ground truth")
    sockets = _socket_root(ground_truth)
    if sockets and (sockets.resolve() == _socket_root_of(predictions).resolve() or _holds_predictions(sockets)):
        sockets = None  # predictions written into the truth's own folder: nothing must be compared with them
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
    _warn_of_absent_organelles(predicted, {pair.key for pair in pairs})
    order = list(Organelle)
    return sorted(pairs, key=lambda pair: (order.index(pair.organelle), natural(pair.key)))


def _holds_predictions(root: Path) -> bool:
    """Whether the first readable image in the organelles' folders was predicted by this program."""
    for path in (path for organelle in Organelle for path in _images(root / output_slug(organelle)).values()):
        with suppress(UserError):
            return is_prediction(inspect(path).provenance)
    return False


def _warn_of_absent_organelles(predicted: Mapping[Organelle, Files], keys: set[str]) -> None:
    for organelle, files in predicted.items():
        if absent := len(keys - set(files)):
            log.warning(
                "%d of %d images lack a prediction of %s: not scored here, but refused by the challenge.",
                absent, len(keys), organelle,
            )  # fmt: skip


def _find_predictions(folder: Path) -> dict[Organelle, Files]:
    """Predictions of each organelle, below `folder` or `folder/images`; UserError where there are none."""
    _require_folder(folder, "predictions")
    root = _socket_root_of(folder)
    found: dict[Organelle, Files] = {organelle: _images(root / output_slug(organelle)) for organelle in Organelle}
    if not any(found.values()):
        kind = "no predictions"
        zarrs = (path for organelle in Organelle for path in (root / output_slug(organelle)).rglob("*.zarr"))
        merged = (folder / MERGED_FOLDER, folder / "images" / MERGED_FOLDER)
        if any(path.is_dir() for path in merged) or any(zarrs):
            kind = "predictions of --layout merged or --format zarr"
        raise UserError(
            f"{folder}: found {kind}, expected images/{{organelle}}-fluorescence-ome-tiff/*.tiff "
            "as inference.py writes them without these options."
        )
    return found


def natural(key: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key to sort by that puts ``image_2`` before ``image_10``."""
    digits = "".join(c if c.isdecimal() else f" {c} " for c in key).split()
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in digits)


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
        log.warning("%s: ignored, expected a name such as image_1_Nucleus.ome.tiff.", _first_of(ignored))
    # Planes of a field are those beside its truth, and those that were predicted: truth may come without
    # inputs.
    planes: dict[tuple[str, int], set[str]] = {}
    for key in (*files, *(key for by_key in predicted.values() for key in by_key)):
        if isinstance(name := _parse(key), naming.InputName):
            planes.setdefault((_folder(key), name.image), set()).add(key)
    _warn_of_equal_planes({key for keys in planes.values() for key in keys})
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
    for first, second in _same_meaning(targets):
        raise UserError(
            f"{targets[second]}: found a name that means the same as that of {targets[first].name}, expected one truth."
        )


def _warn_of_equal_planes(keys: Iterable[str]) -> None:
    for first, second in _same_meaning(keys):
        log.warning("%s: its name means the same plane as that of %s, both are scored.", second, first)


def _same_meaning(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of keys of one folder with different names that `naming.parse` reads alike."""
    taken: dict[tuple[str, naming.InputName | naming.TargetName | None], str] = {}
    for key in sorted(keys):
        first = taken.setdefault((_folder(key), _parse(key)), key)
        if first != key:
            yield first, key


def _images(folder: Path) -> dict[str, Path]:
    """Every image below `folder` by key.

    Left out are hidden folders and folders of predictions; with a warning, links to folders, which `inference.py` does
    not follow either, and folders that cannot be read.
    """
    found: dict[str, Path] = {}
    left_out: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: left_out.append(error.filename)):
        visible = [name for name in sorted(folders) if not name.startswith(".") and name not in _SOCKETS]
        links = [name for name in visible if Path(parent, name).is_symlink()]
        left_out.extend(os.path.join(parent, name) for name in links)
        folders[:] = [name for name in visible if name not in links]
        for path in (Path(parent, name) for name in sorted(names)):
            if not naming.is_image(path.name) or not path.is_file():
                continue
            key = (PurePosixPath(path.relative_to(folder).parent) / naming.stem(path.name)).as_posix()
            if key in found:
                raise UserError(f"{path}: found a second file for '{key}' beside {found[key].name}, expected one.")
            found[key] = path
    if left_out and folder.is_dir():
        log.warning("%s: left out, expected a folder that can be read and is no link.", _first_of(left_out))
    return found


def _first_of(paths: Sequence[str | Path]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])


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
    scenes = sorted(root.glob(f"{output_slug(missing[0].organelle)}/{glob.escape(missing[0].key)}_scene*.tiff"))
    if scenes:
        found = f"{scenes[0].name} and {len(scenes) - 1} more" if scenes[1:] else scenes[0].name
        return f"{paths[0]}: found {found} instead, expected the prediction of a file of one scene."
    count = "a prediction is" if len(missing) == 1 else f"{len(missing)} predictions are"
    return f"The evaluation fails as the challenge would, since {count} missing: {', '.join(paths)}{more}."
