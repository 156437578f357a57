"""A written file is whole or absent."""

import errno
import os
from pathlib import Path

import pytest

from model.errors import UserError
from model.files import whole_or_absent, write_text


def test_a_failed_write_keeps_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_text(path, "old")
    with pytest.raises(KeyError), whole_or_absent(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        write_text(tmp_path / "new", "text")
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "µm")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "µm"
