"""What the BioImage Archive lists of the Light My Cells data set, and which of it is wanted.

The archive has one list for each of the 30 studies, ``FileList/Study_K.json``: an array of entries with the path below
the archive's folder ``Files``, the size in bytes and the type. It has no checksums.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from model.errors import UserError
from model.labels import Modality
from model.naming import InputName, TargetName, parse

ARCHIVE = "https://ftp.ebi.ac.uk/biostudies/fire/S-BIAD/047/S-BIAD1047/Files"
"""The folder ``Files`` of S-BIAD1047."""

STUDIES = range(1, 31)


class _Entry(BaseModel):
    path: str
    size: NonNegativeInt
    type: str = "file"


_ENTRIES = TypeAdapter(list[_Entry])


@dataclass(frozen=True)
class ListedFile:
    """One image of the archive.

    Attributes
    ----------
    study : int
    path : str
        Below the archive's folder ``Files``; which folders precede the name is the archive's affair.
    size : int
        In bytes, as listed.
    name : InputName or TargetName
    """

    study: int
    path: str
    size: int
    name: InputName | TargetName

    @property
    def local(self) -> str:
        """Its path in the challenge's layout, e.g. ``Study_4/image_178_DIC_z0.ome.tiff``."""
        return f"Study_{self.study}/{self.name.filename}"


@dataclass(frozen=True)
class FileLists:
    """The images of one or more studies, each once, and what is odd in their lists.

    Attributes
    ----------
    files : tuple of ListedFile
        In the archive's order.
    duplicates : tuple of str
        Names that are listed again with the same path and size.
    conflicts : tuple of str
        Names that are listed again with another path or size: which is meant is unknown, so they are in no `files`.
    others : tuple of str
        Listed paths that are no image of the challenge.
    """

    files: tuple[ListedFile, ...] = ()
    duplicates: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __add__(self, other: "FileLists") -> "FileLists":
        return FileLists(
            self.files + other.files,
            self.duplicates + other.duplicates,
            self.conflicts + other.conflicts,
            self.others + other.others,
        )


@dataclass(frozen=True)
class Choice:
    """Which files are wanted: those that satisfy all three.

    Attributes
    ----------
    studies : collection of int
    modalities : collection of Modality
        Inputs of these modalities, and the targets of their fields.
    names : frozenset of str or None
        As `read_names` returns them; None for all files.
    """

    studies: Collection[int] = STUDIES
    modalities: Collection[Modality] = field(default_factory=lambda: tuple(Modality))
    names: frozenset[str] | None = None

    def select(self, files: Iterable[ListedFile]) -> list[ListedFile]:
        """Return the wanted ones of the files, which are of the chosen studies, in their order."""
        files = list(files)
        fields = {
            (file.study, file.name.image)
            for file in files
            if isinstance(file.name, InputName) and file.name.modality in self.modalities
        }
        return [
            file
            for file in files
            if (file.study, file.name.image) in fields
            and (isinstance(file.name, TargetName) or file.name.modality in self.modalities)
            and (self.names is None or not self.names.isdisjoint(_names_of(file)))
        ]

    def absent(self, lists: FileLists) -> list[str]:
        """Return the chosen names that the lists do not have, or not without a conflict, sorted."""
        if self.names is None:
            return sorted(lists.conflicts)
        return sorted(self.names.difference(*map(_names_of, lists.files)))


def _names_of(file: ListedFile) -> set[str]:
    return {file.local, file.name.filename}


def read_file_list(path: Path, study: int) -> FileLists:
    """Read the archive's list of one study.

    Parameters
    ----------
    path : Path
        A copy of ``FileList/Study_K.json``.
    study : int

    Raises
    ------
    UserError
        Where the file is no such list.
    """
    try:
        entries = _ENTRIES.validate_json(path.read_bytes())
    except ValidationError as error:
        found = error.errors()[0]
        where = "".join(f"[{part!r}]" for part in found["loc"])
        raise UserError(
            f"{path}: found {found['msg'].lower()} {where}, expected the archive's list of paths and sizes."
        ) from error
    files: dict[str, ListedFile] = {}
    duplicates: list[str] = []
    conflicts: list[str] = []
    others: list[str] = []
    for entry in entries:
        name = parse(entry.path)
        if entry.type != "file" or name is None:
            others.append(entry.path)
            continue
        file = ListedFile(study, entry.path, entry.size, name)
        first = files.setdefault(file.local, file)
        if first is not file:
            (duplicates if first == file else conflicts).append(file.local)
    kept = tuple(file for local, file in files.items() if local not in conflicts)
    return FileLists(kept, tuple(duplicates), tuple(dict.fromkeys(conflicts)), tuple(others))


def read_names(path: Path) -> frozenset[str]:
    """Read a user's list of wanted files.

    Parameters
    ----------
    path : Path
        Text with one file a line, with or without its study: ``Study_4/image_178_DIC_z0.ome.tiff`` or the name alone.
        Folders before the study, and empty lines, are ignored.

    Returns
    -------
    frozenset of str
        ``Study_K/name`` or ``name``.

    Raises
    ------
    UserError
        Where it cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: it cannot be read ({error}), expected one file name a line.") from error
    names = set()
    for line in filter(None, map(str.strip, lines)):
        *folders, name = line.replace("\\", "/").split("/")
        study = folders[-1] if folders and re.fullmatch(r"Study_\d+", folders[-1]) else None
        names.add(f"{study}/{name}" if study else name)
    if not names:
        raise UserError(f"{path}: found no file name, expected one a line.")
    return frozenset(names)
