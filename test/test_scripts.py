"""What build.sh, test.sh and export.sh say before they need a container engine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["build.sh", "test.sh", "export.sh"])
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A script in a folder whose name has blanks, called from elsewhere."""
    copy = tmp_path / "a folder with blanks"
    (copy / "container").mkdir(parents=True)
    (copy / "resources").mkdir()
    (copy / "resources" / "routing.json").touch()
    shutil.copy(ROOT / "container" / "common.sh", copy / "container")
    return Path(shutil.copy(ROOT / request.param, copy))


def call(script: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([script, *options], cwd="/", capture_output=True, text=True, env=given, timeout=60)


def refusal(script: Path, *options: str, **environment: str) -> str:
    """The one sentence that a script refuses with."""
    done = call(script, *options, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script.name}: ")
    return line


def test_help_is_the_comment_at_the_top(script: Path) -> None:
    done = call(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"./{script.name}" in done.stdout and "--mode" in done.stdout and "set -" not in done.stdout


def test_wrong_options_are_named(script: Path) -> None:
    assert "--mode is 'fast', expected exec or invoke" in refusal(script, "--mode", "fast")
    assert "--mode needs a word" in refusal(script, "--mode")
    assert "found '--fast', expected --mode" in refusal(script, "--fast")


def test_a_missing_and_a_silent_engine_are_told_apart(script: Path, tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "sed", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    assert "Docker is not installed" in refusal(script, PATH=str(tmp_path))
    silent = tmp_path / "docker"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    assert "Docker is installed but does not answer" in refusal(script, PATH=str(tmp_path))
