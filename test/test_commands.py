"""What all commands share: streams that take any name, exit codes, numbers of the command line, one sentence."""

import argparse
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_inference import FAST, ROOT, expected, write_image

from model.commands import log_to_standard_streams, number, one_sentence, printable, whole_number
from model.errors import UserError
from model.images import inspect

LATIN = os.fsdecode(b"\xb5m \xe4\xff_BF_1.tiff")


@given(st.text(st.characters()))
def test_whatever_is_printable_can_be_encoded_and_sound_text_stays(text: str) -> None:
    printed = printable(text)
    printed.encode("utf-8")
    if not re.search("[\ud800-\udfff]", text):
        assert printed == text


def test_the_bytes_of_a_name_are_shown() -> None:
    assert printable(LATIN) == "\\xb5m \\xe4\\xff_BF_1.tiff"
    assert printable("\ud800") == "\\ud800"


def test_an_error_is_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    assert one_sentence(UserError(f"in/{LATIN}:\nfound  nothing.")) == f"in/{printable(LATIN)}: found nothing."
    assert one_sentence(MemoryError()) == "not enough memory"
    assert not caplog.records
    assert one_sentence(KeyError("a")) == "unexpected KeyError: 'a'"


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("7", 7), ("-1", None), ("8", None), ("1.5", None), ("", None), ("many", None)]
)
def test_whole_numbers_of_a_range(text: str, value: int | None) -> None:
    if value is not None:
        assert whole_number(0, 7)(text) == value
        return
    with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}', expected a whole number from 0 to 7"):
        whole_number(0, 7)(text)


def test_ranges_without_a_maximum_and_of_fractions() -> None:
    assert whole_number(1)("1000000") == 1_000_000
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number at least 1"):
        whole_number(1)("0")
    assert number(0, 0.9)("0.9") == 0.9
    for text in ("0.91", "nan", "-0.1", "half"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"found '{text}', expected a number from 0 to 0.9"):
            number(0, 0.9)(text)


def test_a_stream_that_was_closed_costs_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    log_to_standard_streams()
    logging.getLogger("model").info("progress")
    assert capsys.readouterr().err == ""


LOCALES = {
    "C": {"LC_ALL": "C"},
    "C without Python's UTF-8": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "ASCII": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("locale", LOCALES)
def test_names_that_are_not_utf_8_are_predicted_and_told(tmp_path: Path, resources: Path, locale: str) -> None:
    study = tmp_path / "in" / os.fsdecode(b"\xc4tude")
    write_image(study / LATIN, channel="transmitted")  # without pixel size: a warning names it, too
    (study / os.fsdecode(b"bad\xfe.tiff")).write_bytes(b"no image")
    command = [sys.executable, str(ROOT / "inference.py"), "--input", "in", "--output", os.fsdecode(b"out\xe9")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [*command, "--resources", str(resources), *FAST, "--modality", "PC"],
        cwd=tmp_path,
        capture_output=True,
        env=environment | LOCALES[locale],
        timeout=120,
    )
    stdout, stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in stderr and "Logging error" not in stderr
    assert "\\xb5m \\xe4\\xff_BF_1.tiff: the file says BF, --modality PC is not followed" in stderr
    assert stderr.splitlines()[-1].startswith("1 of 2 images failed; the first: in/\\xc4tude/bad\\xfe.tiff: found ")
    assert "[2/2] \\xb5m \\xe4\\xff_BF_1.tiff: 40 x 33 px, BF" in stdout
    written = [path for path in (tmp_path / os.fsdecode(b"out\xe9")).rglob("*") if path.is_file()]
    name = os.fsdecode(b"\xc4tude/") + LATIN
    assert sorted(str(path.relative_to(tmp_path / os.fsdecode(b"out\xe9"))) for path in written) == expected(name)
    assert all(inspect(path).provenance["modality"] == "BF" for path in written)
