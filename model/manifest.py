"""Lists of images in a file, and shards: how several processes divide a batch among themselves."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .case import Case
from .discovery import base_folder, case_name
from .errors import UserError
from .files import atomic_write
from .grand_challenge import output_folder
from .labels import Organelle


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a batch, numbered from 1.

    A hash of an image's name decides, so that the parts are about equally large, and an image stays in its part when
    others are added. Images that would be predicted into the same file are in the same part.
    """

    number: int
    count: int

    def holds(self, name: str) -> bool:
        """Whether the case of this name (`Case.name`) is in this part."""
        return _hash(name) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard(1, 1)


def in_shard(cases: Iterable[Case], shard: Shard) -> list[Case]:
    """Return the cases of one part, in order; the list may be empty."""
    return [case for case in cases if shard.holds(case.name)]


def write_list(path: Path, cases: Iterable[Case], input: Path) -> None:
    """Write the paths of cases, one a line, relative to the input folder.

    Raises
    ------
    UserError
        Where the file cannot be written, or a name holds a line break.
    """
    base, _ = base_folder(input)
    with atomic_write(path) as file:
        for case in cases:
            line = os.path.relpath(case.source, base)
            if "\n" in line or "\r" in line:
                raise UserError(f"{base}: found the name {line!r}, expected names without line breaks for a list.")
            file.write(os.fsencode(line) + b"\n")


class ListedCases:
    """The cases of a list, read line by line: a list of a million images takes 8 MB.

    Parameters
    ----------
    path : Path
        A text file with one path a line, in the input folder, relative to it or absolute. Empty lines are ignored.
    input, output : Path
        As for `discovery.discover`.
    shard : Shard
        The part to take.

    Raises
    ------
    UserError
        Where the file cannot be read or names no image, a path leads out of the input folder or into the outputs, or
        two of them would be predicted into one file.
    """

    def __init__(self, path: Path, input: Path, output: Path, shard: Shard = WHOLE) -> None:
        self._path = path
        self._base, _ = base_folder(input)
        self._output = output
        self._shard = shard
        hashes, self._lines = array("Q"), 0
        for _, name in self._names():
            self._lines += 1
            if shard.holds(name):
                hashes.append(_hash(name))
        if not self._lines:
            raise UserError(f"{path}: found no path, expected one a line.")
        self._count = len(hashes)
        self._refuse_two_of_one_output(np.array(hashes, np.uint64))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Case]:
        for relative, name in self._names():
            if self._shard.holds(name):
                yield Case(Path(os.path.join(self._base, relative)), name, self._output)

    def _names(self) -> Iterator[tuple[str, str]]:
        """Each path relative to the input folder, and its case's name."""
        outputs = [os.path.realpath(output_folder(self._output, organelle)) for organelle in Organelle]

        @lru_cache(maxsize=1024)
        def among_outputs(folder: str) -> bool:
            real = os.path.realpath(os.path.join(self._base, folder)) + os.sep
            return any(real.startswith(output + os.sep) for output in outputs)

        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"))
                    if not text.strip():
                        continue
                    if "\0" in text:  # an image, or a text in UTF-16
                        raise UserError(f"{self._path}: found no text in UTF-8, expected one path a line.")
                    relative = self._relative(text, number)
                    if among_outputs(os.path.dirname(relative)):
                        raise self._error(number, text, "a file among the outputs", "an image to predict")
                    yield relative, case_name(relative)
        except OSError as error:
            raise UserError(f"{self._path}: it cannot be read ({error.strerror or error}).") from error

    def _relative(self, text: str, number: int) -> str:
        if not os.path.isabs(text) and os.path.normpath(text) == text and not text.startswith(os.curdir):
            return text  # what `write_list` writes; all else takes four times as long
        base = os.path.abspath(self._base)
        relative = os.path.relpath(os.path.join(base, text), base)
        if relative == os.curdir or relative.split(os.sep)[0] == os.pardir:
            raise self._error(number, text, "a path that is not", f"an image in {self._base}")
        return relative

    def _error(self, number: int, text: str, found: str, expected: str) -> UserError:
        return UserError(f"{self._path}, line {number}: {text}: found {found}, expected {expected}.")

    def _refuse_two_of_one_output(self, hashes: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
        hashes.sort()
        repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        if not repeated:
            return
        first: dict[str, str] = {}
        for relative, name in self._names():
            if _hash(name) not in repeated:
                continue
            other = first.setdefault(name, relative)
            if other != relative:  # the same path twice is no harm: it is predicted once
                raise UserError(
                    f"{self._path}: found {other} and {relative}, which are predicted into the same file, "
                    "expected names that differ in more than the suffix."
                )


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.replace(os.sep, "/").encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
