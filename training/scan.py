"""Find a data set's files by their names; the folder that holds a file is its study."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.errors import UserError
from model.grand_challenge import OUTPUT_FOLDERS
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, near_miss, parse
from training.index import Field, Index, Skipped

NOT_NAMED = "is not named as in the challenge (image_1_BF_z0.ome.tiff, image_1_Nucleus.ome.tiff)"


def scan(roots: Sequence[Path]) -> Index:
    """Index the folders `roots` and all below them.

    The challenge's ``Study_K/`` and one flat folder both work. Other files are ignored; images with a name that only
    resembles the challenge's are listed as skipped. Links are followed; a file that several roots or links lead to is
    counted once, so that no field is on both sides of a split. Hidden folders, such as a file system's snapshots, and
    folders of this program's predictions are not entered.

    Raises
    ------
    UserError
        Where a folder is absent or holds nothing of the challenge's names.
    """
    files = _Files()
    names = [root.resolve().name for root in roots]
    for root, name in zip(roots, names, strict=True):
        # Two data sets may both have a Study_1; their fields are different cells.
        files.collect(root, name if names.count(name) == 1 else str(root), alone=len(roots) == 1)
    index = _assemble(files.listed)
    return Index(index.fields, (*files.skipped, *index.skipped), (*files.repeated, *index.duplicates))


class _Files:
    """Files named as in the challenge, each once, with their study."""

    def __init__(self) -> None:
        self.listed: list[tuple[str, Path]] = []
        self.skipped: list[Skipped] = []
        self.repeated: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def collect(self, root: Path, name: str, *, alone: bool) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder, expected a data set in the challenge's layout.")
        found, real = False, root.resolve()
        entered = {_identity(folder.stat()) for folder in (real, *real.parents)}
        for folder, folders, file_names in os.walk(root, onerror=self._skip_folder, followlinks=True):
            folders[:] = self._to_enter(folder, folders, entered)
            below = os.path.relpath(folder, root)
            study = name if below == "." else below if alone else f"{name}/{below}"
            for file_name in sorted(file_names):
                path = Path(folder) / file_name
                if parse(file_name) is not None:
                    found = True
                    self._take(study, path)
                elif near_miss(file_name):
                    self.skipped.append(Skipped(str(path), NOT_NAMED))
        if not found:
            near = next((skipped.name for skipped in self.skipped if skipped.reason is NOT_NAMED), None)
            but = f" but {near}" if near else ""
            raise UserError(
                f"{root}: found no file named like image_1_BF_z0.ome.tiff{but}, expected the challenge's layout."
            )

    def _to_enter(self, folder: str, names: Sequence[str], entered: set[tuple[int, int]]) -> list[str]:
        """Sub-folders to walk into, each once: links may lead to one that is there, or to the root or above."""
        chosen = []
        # Links last, so that a study is called as its folder is.
        for path in sorted((Path(folder, name) for name in names), key=lambda path: (path.is_symlink(), path.name)):
            if path.name.startswith(".") or path.name in OUTPUT_FOLDERS:
                continue
            identity = _identity(path.stat())
            if identity in entered:
                self.skipped.append(Skipped(str(path), "leads to a folder that is counted already, or above"))
                continue
            entered.add(identity)
            chosen.append(path.name)
        return chosen

    def _take(self, study: str, path: Path) -> None:
        try:
            status = path.stat()
        except OSError as error:
            self.skipped.append(Skipped(str(path), f"cannot be read ({error.strerror})"))
            return
        if _identity(status) in self._seen:
            self.repeated.append(str(path))
            return
        self._seen.add(_identity(status))
        self.listed.append((study, path))

    def _skip_folder(self, error: OSError) -> None:
        self.skipped.append(Skipped(str(error.filename), f"the folder cannot be read ({error.strerror})"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    """What is the same for all paths that lead to one file or folder."""
    return status.st_dev, status.st_ino


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
                kept = planes.setdefault((study, image, modality), {}).setdefault(z, path)
            case TargetName(image, organelle):
                kept = labels.setdefault((study, image), {}).setdefault(organelle, path)
            case None:
                skipped.append(Skipped(f"{study}/{path.name}", NOT_NAMED))
                continue
        if kept is path:
            continue
        if kept.name == path.name:
            duplicates.append(f"{study}/{path.name}")
        else:  # image_1_BF.tif beside image_01_bf_z0.tif
            skipped.append(Skipped(f"{study}/{path.name}", f"its name means the same as that of {kept.name}"))
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
