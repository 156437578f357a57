"""One file over HTTP: every fault of a server, resuming, waits and refusals."""

import os
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from hostile_server import HostileServer
from urllib3.util import Retry

from training.transfer import RETRY, Client, RefusedError, StoppedError, TransferError, partial_path

AT_ONCE = Retry(total=4, other=2)
CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "Study_1/a file.tiff"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer({NAME: CONTENT}) as server:
        yield server


def fetch(server: HostileServer, path: Path, size: int | None = len(CONTENT), retry: Retry = AT_ONCE) -> Client:
    client = Client(1, threading.Event().wait)
    client.fetch(f"{server.url}/Study_1/a%20file.tiff", path, size, retry)
    return client


@pytest.mark.parametrize(
    ("faults", "ranges", "sent"),
    [
        ([], [0], 1),
        (["slow"], [0], 1),
        (["close", "close"], [0, 0, 0], 1),
        (["503", "429", "500", "408"], [0] * 5, 1),
        (["drop"], [0, 1 / 2], 1),
        (["drop", "drop", "drop"], [0, 1 / 2, 3 / 4, 7 / 8], 1),
        (["drop", "503", "close"], [0, 1 / 2, 1 / 2, 1 / 2], 1),
        (["long", "long"], [0, 0, 0], 3),  # what is sent is hung up on, not read
        (["drop", "short"], [0, 1 / 2, 1 / 2], 1.5),
        (["chunked-drop", "chunked"], [0, 1 / 2], 1),
        (["bare-drop"], [0, 1 / 2], 1),
        (["drop", "ignore-range"], [0, 1 / 2], 1.5),
        (["drop", "other-range"], [0, 1 / 2, 0], 2),
        (["drop", "changed"], [0, 1 / 2, 0], 2),
        (["drop", "416"], [0, 1 / 2, 0], 1.5),
    ],
)
def test_a_file_arrives_whole_in_spite_of(
    tmp_path: Path, server: HostileServer, faults: list[str], ranges: list[float], sent: float
) -> None:
    server.faults[NAME] = list(faults)
    client = fetch(server, tmp_path / "new" / "a.tiff")
    assert (tmp_path / "new" / "a.tiff").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "new") == ["a.tiff"]
    starts = [round(part * len(CONTENT)) for part in ranges]
    assert server.asked(NAME) == [f"bytes={start}-" if start else None for start in starts]
    assert server.sent[NAME] == pytest.approx(sent * len(CONTENT), abs=300)
    assert len(CONTENT) <= client.received <= server.sent[NAME]


def test_a_file_arrives_whole_in_spite_of_resets(tmp_path: Path, server: HostileServer) -> None:
    server.faults[NAME] = ["reset", "reset", "drop"]  # a reset may lose what was sent, so the ranges are not known
    fetch(server, tmp_path / "a.tiff")
    assert (tmp_path / "a.tiff").read_bytes() == CONTENT


def test_what_an_earlier_process_left_is_not_fetched_again(tmp_path: Path, server: HostileServer) -> None:
    path = tmp_path / "a.tiff"
    partial_path(path).write_bytes(CONTENT[:299_000])
    assert fetch(server, path).received == 1000
    assert path.read_bytes() == CONTENT and server.asked(NAME) == ["bytes=299000-"]
    partial_path(path).write_bytes(CONTENT)  # killed before it was renamed
    assert fetch(server, path).received == 0
    assert path.read_bytes() == CONTENT and len(server.requests) == 1
    partial_path(path).write_bytes(CONTENT + b"of another file")
    assert fetch(server, path).received == len(CONTENT)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_older_than_the_file_is_not_continued(tmp_path: Path, server: HostileServer) -> None:
    part = partial_path(tmp_path / "a.tiff")
    part.write_bytes(b"older" * 1000)
    os.utime(part, (0, 0))
    fetch(server, tmp_path / "a.tiff")
    assert (tmp_path / "a.tiff").read_bytes() == CONTENT and server.asked(NAME) == ["bytes=5000-", None]


def test_a_file_of_unknown_size_starts_anew(tmp_path: Path, server: HostileServer) -> None:
    partial_path(tmp_path / "a.tiff").write_bytes(b"left")
    for faults in (["drop", "503"], ["chunked-drop", "chunked"]):
        server.faults[NAME] = faults
        fetch(server, tmp_path / "a.tiff", size=None)
        assert (tmp_path / "a.tiff").read_bytes() == CONTENT
    assert set(server.asked(NAME)) == {None}


def waits_after(server: HostileServer, path: Path, faults: list[str], **changes: float) -> list[float]:
    """Seconds that are waited between the requests, without waiting."""
    waits: list[float] = []
    server.faults[NAME] = list(faults)
    client = Client(1, lambda seconds: bool(waits.append(seconds)) if seconds else False)
    client.fetch(f"{server.url}/Study_1/a%20file.tiff", path, len(CONTENT), RETRY.new(**changes))
    return waits


def test_waits_grow_to_a_limit(tmp_path: Path, server: HostileServer) -> None:
    path = tmp_path / "a.tiff"
    assert waits_after(server, path, ["500", "close", "503", "drop", "429"], backoff_jitter=0) == [2, 4, 8, 16]
    assert waits_after(server, path, ["500"] * 8, backoff_jitter=0) == [2, 4, 8, 16, 32, 60, 60]
    first, second = waits_after(server, path, ["500"] * 3)
    assert 2 < first < 3 and 4 < second < 5


def test_the_server_says_how_long_to_wait(tmp_path: Path, server: HostileServer) -> None:
    path = tmp_path / "a.tiff"
    assert waits_after(server, path, ["429 7", "503 3", "503 86400"]) == [7, 3, 600]
    (until_date,) = waits_after(server, path, [f"503 {formatdate(4102444800, usegmt=True)}"])
    assert until_date == 600
    assert waits_after(server, path, ["503 soon", "503 soon"], backoff_jitter=0) == [2]


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        (["404"], RefusedError, "the server answers 404 Not Found, expected the file."),
        (["403"], RefusedError, "the server answers 403 Forbidden, expected the file."),
        (["503"] * 5, TransferError, "the server answers 503 Service Unavailable, expected the file."),
        (["close"] * 5, TransferError, "the connection failed (Remote end closed connection without response)"),
        (["short"] * 3, RefusedError, "found 299993 bytes, expected 300000 by the archive's list."),
    ],
)
def test_what_does_not_get_better_is_one_sentence(
    tmp_path: Path, server: HostileServer, faults: list[str], error: type[Exception], message: str
) -> None:
    server.faults[NAME] = list(faults)
    with pytest.raises(error) as caught:
        fetch(server, tmp_path / "a.tiff")
    assert str(caught.value).startswith(f"{server.url}/Study_1/a%20file.tiff: {message}")
    assert type(caught.value) is error and len(server.requests) == len(faults)
    assert not (tmp_path / "a.tiff").exists()


def test_more_bytes_than_are_listed_are_not_fetched(tmp_path: Path, server: HostileServer) -> None:
    server.faults[NAME] = ["chunked"] * 3
    with pytest.raises(RefusedError, match=r"found more than 99 bytes, expected 99 by the archive's list\."):
        fetch(server, tmp_path / "a.tiff", size=99)
    assert not (tmp_path / "a.tiff").exists() and server.asked(NAME) == [None] * 3
    assert partial_path(tmp_path / "a.tiff").read_bytes() == b""


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path, server: HostileServer) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(b"old")
    server.faults[NAME] = ["drop"] * 5
    with pytest.raises(TransferError, match=r"the connection failed \(IncompleteRead"):
        fetch(server, path)
    assert path.read_bytes() == b"old"
    assert fetch(server, path).received == pytest.approx(len(CONTENT) / 2**5, abs=1)
    assert path.read_bytes() == CONTENT


def test_a_stopped_transfer_keeps_what_has_arrived(tmp_path: Path, server: HostileServer) -> None:
    calls = iter([False, True])
    client = Client(1, lambda seconds: next(calls))
    with pytest.raises(StoppedError):
        client.fetch(f"{server.url}/Study_1/a%20file.tiff", tmp_path / "a.tiff", len(CONTENT), AT_ONCE)
    assert 0 < client.received == partial_path(tmp_path / "a.tiff").stat().st_size < len(CONTENT)
    assert client.received + fetch(server, tmp_path / "a.tiff").received == len(CONTENT)
    assert (tmp_path / "a.tiff").read_bytes() == CONTENT
