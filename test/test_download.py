"""The command `download.py`: what is chosen, what is fetched, what it says, and what is left on the disk."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile_server import HostileServer, archive
from urllib3.util import Retry

from model.errors import UserError
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse
from training import download
from training.archive import STUDIES, Choice, read_file_list, read_names
from training.exclusive import one_at_a_time
from training.scan import scan
from training.transfer import Client, TransferError

ROOT = Path(__file__).resolve().parents[1]
FILE_LISTS = ROOT.parent / "shared" / "lmc-filelists"
AT_ONCE = Retry(total=4, other=2, backoff_factor=0.001)
IN_PROCESS = (
    "import sys; from urllib3.util import Retry; from training import download;"
    "raise SystemExit(download.main(sys.argv[1:], Retry(total=6, other=3, backoff_factor=0.01)))"
)


def field(image: int, modality: Modality, *organelles: Organelle, planes: int = 2) -> list[str]:
    """Names of one field of view."""
    inputs = [InputName(image, modality, z).filename for z in range(planes)]
    return inputs + [TargetName(image, organelle).filename for organelle in organelles]


IMAGES = {
    f"Study_{study}/{name}": np.random.default_rng([study, number]).bytes(1000 + number)
    for study, names in {
        1: field(0, Modality.BF, Organelle.NUCLEUS) + field(1, Modality.BF, Organelle.ACTIN),
        4: field(7, Modality.DIC, Organelle.NUCLEUS, Organelle.MITOCHONDRIA),
        5: field(9, Modality.PC, Organelle.TUBULIN),
    }.items()
    for number, name in enumerate(names)
}
SIZE = sum(map(len, IMAGES.values()))


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(archive(IMAGES)) as server:
        yield server


def run(url: str, output: Path, *options: str, retry: Retry = AT_ONCE) -> int:
    studies = [] if "--study" in options else ["--study", "1", "4", "5"]
    return download.main(["--url", url, "--output", str(output), *studies, *options], retry)


def on_disk(output: Path) -> dict[str, bytes]:
    """All files with their content, but the archive's lists and the lock."""
    files = (path for path in output.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = {path.relative_to(output).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith("FileList/")}


def images_asked(server: HostileServer) -> list[str]:
    return [path for path, _ in server.requests if not path.startswith("FileList/")]


def test_everything_arrives_in_the_challenges_layout(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server.url, tmp_path / "lmc") == 0
    assert on_disk(tmp_path / "lmc") == IMAGES
    out, err = capsys.readouterr()
    assert err == ""
    assert "Study_1   BF            6 files  6.01kB" in out and "Study_4   DIC           4 files  4.01kB" in out
    assert "Chosen: 13 files, 13.0kB. To fetch: 13 files, 13.0kB." in out and "Free on the disk: " in out
    assert "Fetched 13 of 13 files, 13.0kB of images, 13.0kB received, in " in out
    index = scan([tmp_path / "lmc"])
    assert len(index.fields) == 4 and not index.skipped and index.studies == ("Study_1", "Study_4", "Study_5")


def test_a_second_run_fetches_only_what_is_missing(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server.url, tmp_path) == 0
    server.requests.clear()
    assert run(server.url, tmp_path) == 0
    assert server.requests == []  # the lists are there too: it needs no network
    missing, broken = sorted(IMAGES)[3:5]
    (tmp_path / missing).unlink()
    (tmp_path / broken).write_bytes(b"what another program left")
    assert run(server.url, tmp_path) == 0
    assert sorted(path for path, _ in server.requests) == [f"Images/{missing}", f"Images/{broken}"]
    assert on_disk(tmp_path) == IMAGES
    assert f"{broken}: found another size than the archive's list has; it is replaced." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--study", "4", "5", "4"], "Study_[45]/.*"),
        (["--modality", "DIC"], "Study_4/.*"),
        (["--modality", "BF", "PC"], "Study_[15]/.*"),
        (["--study", "1", "5", "--modality", "PC"], "Study_5/.*"),
        (["--file-list", "names.txt"], "Study_1/image_1_BF_z0.*|Study_4/image_7_Nucleus.*"),
        (["--file-list", "names.txt", "--modality", "DIC"], "Study_4/image_7_Nucleus.*"),
    ],
)
def test_studies_modalities_and_names_choose(
    tmp_path: Path, server: HostileServer, monkeypatch: pytest.MonkeyPatch, options: list[str], chosen: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("image_1_BF_z0.ome.tiff\n\n  data/Study_4/image_7_Nucleus.ome.tiff\r\n")
    assert run(server.url, Path("lmc"), *options) == 0
    assert on_disk(Path("lmc")) == {name: content for name, content in IMAGES.items() if re.fullmatch(chosen, name)}


def test_a_field_of_two_modalities_shares_its_targets(tmp_path: Path) -> None:
    images = dict.fromkeys(field(3, Modality.BF, Organelle.ACTIN) + field(3, Modality.PC), b"x")
    lists = archive({f"Study_2/{name}": content for name, content in images.items()})
    (tmp_path / "list.json").write_bytes(lists["FileList/Study_2.json"])
    files = read_file_list(tmp_path / "list.json", 2).files
    chosen = Choice(modalities=[Modality.PC]).select(files)
    assert [file.name for file in chosen] == [parse(name) for name in images if "_BF_" not in name]


def test_dry_run_says_sizes_and_fetches_only_lists(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server.url, tmp_path, "--dry-run") == 0
    assert images_asked(server) == [] and on_disk(tmp_path) == {}
    assert "Chosen: 13 files, 13.0kB. To fetch: 13 files, 13.0kB." in capsys.readouterr().out


def entries(*listed: tuple[str, int], kind: str = "file") -> list[dict[str, object]]:
    return [{"path": path, "size": size, "attributes": [{"name": "Z"}], "type": kind} for path, size in listed]


def test_what_is_odd_in_a_list_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: HostileServer
) -> None:
    """Twice with the same path and size: once. With another size: neither, as which is meant is unknown."""
    twice, conflict = "Images/Study_1/image_0_Nucleus.ome.tiff", "Images/Study_1/image_1_Actin.ome.tiff"
    listed = json.loads(server.files["FileList/Study_1.json"])
    listed += entries((twice, len(server.files[twice])), (conflict, 5), ("Images/readme.txt", 3))
    listed += entries(("Images/Study_1/image_5_BF_z0.ome.tiff", 0), kind="directory")
    server.files["FileList/Study_1.json"] = json.dumps(listed).encode()
    assert run(server.url, tmp_path, "--study", "1") == 1
    names = {name for name in IMAGES if name.startswith("Study_1/")} - {conflict.removeprefix("Images/")}
    assert set(on_disk(tmp_path)) == names and len(images_asked(server)) == len(names)
    out, err = capsys.readouterr()
    assert "Listed twice, fetched once: 1, such as Study_1/image_0_Nucleus.ome.tiff." in out
    assert "Listed, but no images of the challenge: 2, such as Images/readme.txt." in out
    assert err == "Study_1/image_1_Actin.ome.tiff: found no single entry in the archive's lists, expected one.\n"


def test_names_that_the_archive_lacks_are_reported(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("Study_1/image_0_BF_z0.ome.tiff\nStudy_1/image_9_PC_z0.ome.tiff\n")
    assert run(server.url, tmp_path / "lmc", "--file-list", str(tmp_path / "names.txt")) == 1
    assert list(on_disk(tmp_path / "lmc")) == ["Study_1/image_0_BF_z0.ome.tiff"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Study_1/image_9_PC_z0.ome.tiff: found no single entry in the archive's lists, expected one."


def test_a_file_that_the_archive_has_not_costs_that_file(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Absent, or listed with a size that the server contradicts, as the target that is metadata without pixels."""
    absent, contradicted = sorted(IMAGES)[:2]
    del server.files[f"Images/{absent}"]
    server.files[f"Images/{contradicted}"] = b"metadata only"
    assert run(server.url, tmp_path) == 1
    assert on_disk(tmp_path) == {name: IMAGES[name] for name in IMAGES if name not in (absent, contradicted)}
    out, err = capsys.readouterr()
    assert "Fetched 11 of 13 files" in out
    *failed, last = err.splitlines()
    size = len(IMAGES[contradicted])
    assert sorted(failed) == [
        f"{server.url}/Images/{absent}: the server answers 404 Not Found, expected the file.",
        f"{server.url}/Images/{contradicted}: found 13 bytes, expected {size} by the archive's list.",
    ]
    assert last == "Not there: 2. The same command tries them again."
    assert server.asked(f"Images/{absent}") == [None]


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/Files"


def test_no_network_is_one_sentence(tmp_path: Path, dead_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dead_url, tmp_path) == 2
    expected = "the connection failed (Connection refused), expected an answer over the network."
    assert capsys.readouterr().err == f"{dead_url}/FileList/Study_1.json: {expected}\n"
    assert on_disk(tmp_path) == {}


def test_a_network_that_goes_away_ends_the_run(
    tmp_path: Path, server: HostileServer, dead_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server.url, tmp_path, "--dry-run") == 0
    assert run(dead_url, tmp_path, "--workers", "1") == 1
    *failed, stopped, last = capsys.readouterr().err.splitlines()
    assert len(failed) == download.FAILURES_IN_A_ROW == 10 and all("Connection refused" in line for line in failed)
    assert stopped == "10 files in a row failed, expected an answer: the rest is not tried."
    assert last == "Not there: 13. The same command tries them again."


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<html>503</html>", "found invalid json: "),
        (b'[{"path": "image_0_BF_z0.ome.tiff"}]', "found field required [0]['size'], expected "),
        (b'[{"path": "image_0_BF_z0.ome.tiff", "size": -1}]', "found input should be greater than or equal to 0 "),
    ],
)
def test_a_list_that_is_none_is_refused_and_not_kept(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str], content: bytes, found: str
) -> None:
    good, server.files["FileList/Study_4.json"] = server.files["FileList/Study_4.json"], content
    assert run(server.url, tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    path = tmp_path / "FileList" / "Study_4.json"
    assert line.startswith(f"{path}: {found}") and line.endswith("expected the archive's list of paths and sizes.")
    server.files["FileList/Study_4.json"] = good
    assert run(server.url, tmp_path) == 0


def test_too_little_space_is_said_before_anything_is_fetched(
    tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    large = entries(("Images/Study_4/image_7_DIC_z0.ome.tiff", 10**18))
    server.files["FileList/Study_4.json"] = json.dumps(large).encode()
    assert run(server.url, tmp_path, "--study", "4") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        re.escape(str(tmp_path)) + r": found [\d.]+[GTP]B free on its disk, expected 1.00EB at least\.", line
    )
    assert images_asked(server) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_ends_the_run_and_leaves_whole_files(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {
        f"Study_1/{InputName(n, Modality.BF, 0).filename}": np.random.default_rng(n).bytes(60_000) for n in range(3)
    }
    with HostileServer(archive(images)) as server:
        assert run(server.url, small_disk, "--study", "1", "--dry-run") == 0
        server.pace_s = 0.05
        ballast = small_disk / "ballast"
        # The other program writes after the space was checked, before the first byte arrives.
        server.on_request = lambda: ballast.exists() or ballast.write_bytes(bytes(100_000))
        assert run(server.url, small_disk, "--study", "1", "--workers", "1") == 1
        whole = {name: content for name, content in on_disk(small_disk).items() if name.endswith(".tiff")}
        assert 0 < len(whole) < 3 and whole.items() <= images.items()
        assert "it cannot be written (No space left on device)." in capsys.readouterr().err
        ballast.unlink()
        server.on_request = lambda: None
        assert run(server.url, small_disk, "--study", "1") == 0
        assert on_disk(small_disk) == images


def test_one_download_a_folder(tmp_path: Path, server: HostileServer, capsys: pytest.CaptureFixture[str]) -> None:
    with one_at_a_time(tmp_path, "download"):
        assert run(server.url, tmp_path) == 2
    assert capsys.readouterr().err == f"{tmp_path}: found another download in this folder, expected one at a time.\n"
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--study", "31"], "found '31', expected a whole number from 1 to 30"),
        (["--url", "ftp://ftp.ebi.ac.uk"], "found 'ftp://ftp.ebi.ac.uk', expected an address with https://"),
        (["--workers", "0"], "found '0', expected a whole number from 1 to 32"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        download.main(["--output", str(tmp_path), *options])
    assert message in capsys.readouterr().err


def test_the_script_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "download.py"), "--output", str(tmp_path / "new"), "--study", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "found '0', expected a whole number from 1 to 30" in done.stderr
    assert not (tmp_path / "new").exists()


def test_nothing_chosen_and_unreadable_names(tmp_path: Path, server: HostileServer) -> None:
    assert run(server.url, tmp_path, "--study", "1", "--modality", "PC") == 2
    (tmp_path / "empty.txt").write_text("\n\n")
    for path in (tmp_path / "empty.txt", tmp_path / "absent.txt"):
        with pytest.raises(UserError, match=f"{re.escape(str(path))}: .*expected one"):
            read_names(path)


def start(url: str, output: Path, *studies: int) -> subprocess.Popen[str]:
    """The command in a process of its own, with short waits."""
    options = ["--url", url, "--output", str(output), "--study", *map(str, studies)]
    command = [sys.executable, "-c", IN_PROCESS, *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(process: subprocess.Popen[str], server: HostileServer, requests: int) -> None:
    deadline = time.monotonic() + 120
    while len(images_asked(server)) < requests:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with HostileServer(archive(IMAGES)) as server:
        server.pace_s = 0.5
        process = start(server.url, tmp_path, 1, 4, 5)
        try:
            wait_until(process, server, 4)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, errors) == (130, "Interrupted. What has arrived stays: the same command goes on.\n")
        found = on_disk(tmp_path)
        assert {name for name in found if not name.endswith(".part")} < set(IMAGES)
        server.pace_s = 0
        assert run(server.url, tmp_path) == 0
        assert on_disk(tmp_path) == IMAGES


COSTLY = [
    *([["long"]] * 3),
    *([["short"]] * 3),
    *([["drop", "ignore-range"]] * 3),
    *([["drop", "other-range"]] * 2),
    *([["reset"]] * 4),
]
"""What makes a server send again what it has sent, whatever the client does; 15 of 200 files meet it."""

CHEAP = [
    ["drop"],
    ["drop", "drop"],
    ["close"],
    ["503"],
    ["429 1"],
    ["slow"],
    ["chunked-drop"],
    ["drop", "503", "close", "drop"],
]


@pytest.mark.slow
def test_two_hundred_files_from_a_hostile_server_and_a_kill(tmp_path: Path) -> None:
    """Every file meets a fault; the process is killed half-way; one file is not there at all."""
    rng = np.random.default_rng(0)
    names = [name for image in range(40) for name in field(image, Modality.BF, Organelle.NUCLEUS, planes=4)]
    images = {f"Study_1/{name}": rng.bytes(int(rng.integers(20_000, 60_000))) for name in names}
    order = rng.permutation(list(images)).tolist()
    faults = {f"Images/{name}": (COSTLY + CHEAP * 24)[n] for n, name in enumerate(order)}
    absent = order.pop()
    with HostileServer(archive(images), faults) as server:
        needed = sum(len(images[name]) for name in order)
        del server.files[f"Images/{absent}"]
        del images[absent]
        server.pace_s = 0.01
        process = start(server.url, tmp_path, 1)
        try:
            wait_until(process, server, 180)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        killed = {name: content for name, content in on_disk(tmp_path).items() if not name.endswith(".part")}
        assert 40 < len(killed) < 160 and killed.items() <= images.items()

        process = start(server.url, tmp_path, 1)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 1, errors
        assert on_disk(tmp_path) == images and len(images) == 199
        assert f"Fetched {199 - len(killed)} of {200 - len(killed)} files" in out
        assert errors.splitlines() == [
            f"{server.url}/Images/{absent}: the server answers 404 Not Found, expected the file.",
            "Not there: 1. The same command tries them again.",
        ]
        sent = sum(sent for path, sent in server.sent.items() if path.startswith("Images/"))
        assert needed <= sent <= 1.1 * needed
        assert not any(server.faults[f"Images/{name}"] for name in order)  # every fault was met

        server.requests.clear()
        assert run(server.url, tmp_path, "--study", "1") == 1
        assert server.requests == [(f"Images/{absent}", None)]


@pytest.fixture(scope="module")
def real_lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's lists as far as they are known: real names, sizes of one byte."""
    if not FILE_LISTS.is_dir():
        pytest.skip("the data set's file names are not here")
    output = tmp_path_factory.mktemp("lmc")
    (output / "FileList").mkdir()
    for study in STUDIES:
        names = (FILE_LISTS / f"Study{study}.tsv").read_text().split()
        listed = entries(*((f"Images/Study_{study}/{name}", 1) for name in names))
        (output / "FileList" / f"Study_{study}.json").write_text(json.dumps(listed))
    return output


def test_the_names_that_are_twice_in_the_real_lists(
    real_lists: Path, dead_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--url", dead_url, "--output", str(real_lists), "--dry-run", "--study", "4", "7"]
    assert download.main(options) == 0
    out, err = capsys.readouterr()
    assert "Listed twice, fetched once: 41, such as Study_4/image_61_Nucleus.ome.tiff." in out and err == ""
    assert "Study_4   DIC         408 files" in out and "Chosen: 558 files" in out
    assert download.main([*options, "--file-list", str(FILE_LISTS / "Study7.tsv")]) == 0
    assert "Chosen: 150 files" in capsys.readouterr().out


def test_the_table_of_the_docs_is_what_the_lists_say(real_lists: Path) -> None:
    page = (ROOT / "docs" / "light-my-cells.md").read_text()
    studies: dict[Modality, dict[int, list[InputName | TargetName]]] = {modality: {} for modality in Modality}
    for study in STUDIES:
        lists = read_file_list(real_lists / "FileList" / f"Study_{study}.json", study)
        assert not lists.others and not lists.conflicts
        names = [file.name for file in lists.files]
        (modality,) = {name.modality for name in names if isinstance(name, InputName)}
        studies[modality][study] = names
    assert sum(len(names) for held in studies.values() for names in held.values()) == 56_981
    for modality, held in studies.items():
        inputs = sum(isinstance(name, InputName) for names in held.values() for name in names)
        total = sum(map(len, held.values()))
        fields = sum(len({name.image for name in names}) for names in held.values())
        ranges = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs(sorted(held)))
        figures = " | ".join(f"{number:,}" for number in (fields, inputs, total - inputs, total))
        assert f"| {modality} | {ranges} | {figures} |" in page


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return zip(starts, ends, strict=True)


def test_what_is_tried_again_after_a_wait_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(1, lambda seconds: False)
    with pytest.raises(TransferError, match="the connection failed"):
        client.fetch("http://127.0.0.1:9/a", tmp_path / "a", retry=Retry(total=4, backoff_factor=2.0))
    said = [record.getMessage() for record in caplog.records]
    assert [message.rpartition("; ")[2] for message in said] == ["trying again in 8 s.", "trying again in 16 s."]
    assert all(message.startswith("http://127.0.0.1:9/a: the connection failed") for message in said)
