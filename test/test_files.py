"""A written file is whole or absent."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import UserError
from model.files import atomic_folder, atomic_write, open_for_writing, prepare_folder, write_text


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


@pytest.mark.parametrize(
    "written", [lambda path: write_text(path, "1"), lambda path: open_for_writing(path, "a+").close()]
)
@pytest.mark.parametrize("made", [0, 1])
def test_a_folder_that_another_process_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Callable[[Path], object], made: int
) -> None:
    """Of two folders that are missing, the upper one goes before the lower one is made, or both before the file is."""
    make, folders = os.mkdir, [tmp_path / ".planes", tmp_path / ".planes/case"]

    def removed(folder: Path, mode: int = 0o777) -> None:
        make(folder, mode)
        if folder == folders[made]:
            monkeypatch.undo()
            for each in reversed(folders[: made + 1]):
                each.rmdir()

    monkeypatch.setattr(os, "mkdir", removed)
    written(folders[1] / "plane")
    assert (folders[1] / "plane").is_file() and os.mkdir is make


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


def test_a_folder_that_is_being_written_stays_and_one_left_behind_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a.zarr") as folder:
        (folder / "0" / "1").mkdir(parents=True)
        (folder / "0" / "1" / "2").touch()
        entries = [folder, *folder.rglob("*")]
        for entry in entries[:-1]:
            os.utime(entry, (0, 0))
        prepare_folder(tmp_path)
        assert folder.exists()  # for what lies deepest is new
        os.utime(entries[-1], (0, 0))
        prepare_folder(tmp_path)
        assert not folder.exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_former_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk"), atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
    assert [entry.relative_to(tmp_path).as_posix() for entry in tmp_path.rglob("*")] == ["a", "a/old"]


def leftover(folder: Path, name: str = ".write-0123456789abcdef.tmp") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")
    os.utime(folder / name, (0, 0))
    return folder / name


def test_a_leftover_that_cannot_be_removed_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    others, own = leftover(tmp_path), leftover(tmp_path / "images" / "sub")
    unlink = os.unlink

    def sticky(path: str) -> None:
        if Path(path) == others:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", sticky)
    prepare_folder(tmp_path)
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == f"{others}: this old temporary file cannot be removed (Operation not permitted)."
    assert others.exists() and not own.exists()


def test_several_processes_may_clean_one_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(200):
        leftover(tmp_path / str(number % 7), f".write-{number:016x}.tmp")
    failures: list[BaseException] = []

    def clean() -> None:
        try:
            prepare_folder(tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=clean) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and not caplog.records
    assert not list(tmp_path.rglob(".write-*"))


def test_a_folder_that_must_be_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new", empty=True)
    prepare_folder(tmp_path / "new", empty=True)
    with pytest.raises(UserError, match="not empty, expected a new or empty one"):
        prepare_folder(tmp_path, empty=True)
