"""A written file is whole or absent."""

import errno
import os
from pathlib import Path

import pytest

from model.errors import UserError
from model.files import atomic_write, prepare_folder, write_text


def test_a_failed_write_keeps_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic_write(path) as file:
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


def test_a_folder_is_prepared_or_named(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: nothing can be written there .* expected a folder that user \d+ may"):
        prepare_folder(tmp_path / "file")


def test_what_a_killed_writer_left_is_removed_but_not_what_is_being_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "images" / "a") as file:
        (left,) = (tmp_path / "images").iterdir()
        prepare_folder(tmp_path)
        assert left.exists()
        os.utime(left, (0, 0))
        prepare_folder(tmp_path)
        assert not left.exists()
        file.write(b"whoever writes still can")
        raise KeyboardInterrupt
    (tmp_path / "images" / ".write-notes").touch()
    os.utime(tmp_path / "images" / ".write-notes", (0, 0))
    prepare_folder(tmp_path)
    assert (tmp_path / "images" / ".write-notes").exists()
