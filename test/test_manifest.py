"""Lists of images and parts of a batch."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_inference import FAST, ROOT, Run, write_image

from model.command_line import main
from model.discovery import discover
from model.errors import UserError
from model.manifest import WHOLE, ListedCases, Shard, write_list


def listed(folder: Path, lines: Sequence[str] | bytes, shard: Shard = WHOLE) -> list[str]:
    (folder / "in").mkdir(exist_ok=True)
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    (folder / "list").write_bytes(content)
    cases = ListedCases(folder / "list", folder / "in", folder / "out", shard)
    found = list(cases)
    assert len(found) == len(cases)
    for case in found:
        assert case.output == folder / "out"
    return [f"{os.path.relpath(case.source, folder / 'in')} -> {case.name}" for case in found]


def test_a_written_list_gives_the_cases_of_the_folder(tmp_path: Path) -> None:
    names = ["b.tiff", "sub/a.ome.tif", "sub/ü é.tif", os.fsdecode(b"\xff.tif"), "x.nd2"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    found = discover(tmp_path / "in", tmp_path / "out")
    write_list(tmp_path / "list", found, tmp_path / "in")
    assert list(ListedCases(tmp_path / "list", tmp_path / "in", tmp_path / "out")) == found
    assert len(found) == len(names)


def test_lines_of_other_programs(tmp_path: Path) -> None:
    absolute = str(tmp_path / "in/d.tif")
    lines = b"\xef\xbb\xbf./a.tif\r\n\r\nsub//b.tif\n" + absolute.encode() + b"\nsub/../c.tif"
    expected = ["a.tif -> a.tiff", "sub/b.tif -> sub/b.tiff", "d.tif -> d.tiff", "c.tif -> c.tiff"]
    assert listed(tmp_path, lines) == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "list: found no path, expected one a line"),
        (["a.tif", "../b.tif"], "list, line 2: ../b.tif: found a path that is not, expected an image in"),
        (["/elsewhere/b.tif"], "list, line 1: /elsewhere/b.tif: found a path that is not"),
        (["a.tif\0"], "list: found no text in UTF-8, expected one path a line."),
        (["."], "line 1: .: found a path that is not"),
        (["a.tif", "b.tif", "a.tiff"], "found a.tif and a.tiff, which are predicted into the same file"),
    ],
)
def test_a_list_that_cannot_be_meant(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        listed(tmp_path, lines)
    assert message in str(error.value)


def test_inputs_among_the_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to(tmp_path / "out/images/nucleus-fluorescence-ome-tiff")
    with pytest.raises(UserError, match=r"line 1: link/a\.tif: found a file among the outputs"):
        listed(tmp_path, ["link/a.tif"])


def test_the_same_path_twice_is_no_harm(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        write_image(tmp_path / f"in/{name}.tiff")
    (tmp_path / "list").write_text("b.tiff\na.tiff\nb.tiff\nb.tiff\n")
    run = Run(tmp_path, resources, capsys, "--list", str(tmp_path / "list"))
    assert run.code == 0
    assert any("2 images predicted, 2 already predicted" in line for line in run.stdout)
    assert {path.stem for path in (tmp_path / "out").rglob("*.tiff")} == {"a", "b"}


def test_missing_images_of_a_list_are_named(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in/a.tiff")
    (tmp_path / "list").write_text("nothing.tiff\na.tiff\n")
    run = Run(tmp_path, resources, capsys, "--list", str(tmp_path / "list"))
    assert run.code == 1 and "nothing.tiff" in run.stderr[0] and len(run.stderr) == 2


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=60), st.integers(1, 9))
def test_each_name_is_in_one_shard_whatever_else_there_is(names: list[str], count: int) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert all(sum(shard.holds(name) for shard in shards) == 1 for name in names)


def test_shards_are_about_equally_large() -> None:
    names = [f"plate_{number % 7}/well_{number:05d}.tiff" for number in range(20_000)]
    for count in (2, 7, 64):
        sizes = [sum(Shard(number, count).holds(name) for name in names) for number in range(1, count + 1)]
        mean = len(names) / count
        assert max(abs(size - mean) for size in sizes) < 5 * mean**0.5


def test_shards_predict_the_whole_folder_into_one(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {f"{number:02d}" for number in range(8)}
    for name in names:
        write_image(tmp_path / f"in/{name}.tiff")
    write = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *FAST]
    assert main([*write, "--write-list", str(tmp_path / "list")]) == 0
    assert not (tmp_path / "out").exists()
    parts = []
    for number in (1, 2, 3):
        listing = ["--list", str(tmp_path / "list")] if number < 3 else []  # with and without a list
        run = Run(tmp_path, resources, capsys, "--shard", f"{number}/3", "--preview", *listing)
        assert run.code == 0
        parts.append({path.stem for path in (tmp_path / "out").rglob("*.tiff")})
        assert (tmp_path / f"out/preview_{number}_of_3/index.html").is_file() or parts[-1] == set()
    assert parts[0] < parts[1] < parts[2] == names


def test_a_shard_without_images_is_done(tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in/a.tiff")
    codes = {Run(tmp_path, resources, capsys, "--shard", f"{number}/5").code for number in range(1, 6)}
    assert codes == {0}
    assert len(list((tmp_path / "out").rglob("*.tiff"))) == 4


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "1/-2", "a/b", "1/2/3"])
def test_a_shard_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--shard", text])
    assert ended.value.code == 2 and "expected I/N with I from 1 to N" in capsys.readouterr().err


def test_a_name_with_a_line_break_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a\nb.tif").touch()
    with pytest.raises(UserError, match="expected names without line breaks"):
        write_list(tmp_path / "list", discover(tmp_path / "in", tmp_path / "out"), tmp_path / "in")


MILLION = """
import resource, sys
from pathlib import Path
from model.manifest import ListedCases, Shard
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
counts = []
for shard in (Shard(1, 1), Shard(1, 2), Shard(2, 2)):
    cases = ListedCases(folder / "list", folder / "in", folder / "out", shard)
    counts += [len(cases), sum(1 for _ in cases)]
print(*counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_million_lines_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "list").open("w") as file:
        file.writelines(f"plate_{number // 1000:04d}/field_{number:07d}.ome.tiff\n" for number in range(1_000_000))
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    *counts, kilobytes = map(int, done.stdout.split())
    assert counts[:2] == [1_000_000, 1_000_000]
    assert counts[2] == counts[3] and counts[4] == counts[5] and counts[2] + counts[4] == 1_000_000
    assert kilobytes < 50_000
