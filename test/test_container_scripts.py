"""build.sh, test.sh and export.sh with a real engine, in clones, and interrupted."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import EXEC, INVOKE, ROOT, docker

pytestmark = pytest.mark.container

TRIAL = f"in-silico-labelling:trial-{os.getpid()}"
"""What the scripts get here for the image of either mode, so that nobody's images are touched."""


def _default_signals() -> None:
    """As in a terminal: nohup would have them ignored, and bash cannot trap what was ignored at its start."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Clone:
    """A fresh clone, and its scripts run against images of another name."""

    def __init__(self, folder: Path, umask: int = 0o022) -> None:
        self.folder = folder / f"clone_{umask:03o}"
        self.umask = umask
        subprocess.run(["git", "clone", "--quiet", ROOT, self.folder], check=True, capture_output=True, umask=umask)
        self.temporary = folder / f"tmp_{umask:03o}"
        self.temporary.mkdir()
        self.environment = {**os.environ, "TMPDIR": str(self.temporary)}

    def use_trial_image(self) -> None:
        """Let `docker` take `TRIAL` for the image of either mode."""
        wrapper = self.temporary.parent / "bin" / "docker"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(
            "#!/bin/bash\n"
            f'arguments=("${{@/{EXEC}/{TRIAL}}}")\n'
            f'exec {shutil.which("docker")} "${{arguments[@]/{INVOKE}/{TRIAL}}}"\n'
        )
        wrapper.chmod(0o755)
        self.environment["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"

    def start(self, script: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.folder / script, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
            umask=self.umask,
            start_new_session=True,
            preexec_fn=_default_signals,
        )

    def run(self, script: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *options, **environment)
        output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def refusal(self, script: str, *options: str, **environment: str) -> str:
        done = self.run(script, *options, **environment)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    def revision(self) -> str:
        command = ["git", "-C", self.folder, "rev-parse", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def note_as_tested(self, mode: str) -> None:
        (self.folder / "dist").mkdir(exist_ok=True)
        (self.folder / "dist" / f"tested_{mode}").write_text(docker("image", "inspect", "--format={{.Id}}", TRIAL))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def trial(clone: Clone) -> Iterator[Clone]:
    clone.use_trial_image()
    yield clone
    subprocess.run(["docker", "rmi", "--force", TRIAL], capture_output=True)


def make_trial_image(*lines: str) -> None:
    """The image that was built, and more lines of a Dockerfile."""
    text = "\n".join([f"FROM {EXEC}", *lines])
    command = ["docker", "build", "--quiet", "--tag", TRIAL, "-"]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def make_empty_image(architecture: str, revision: str) -> None:
    """An archive as ``docker save`` writes it, with one layer that holds nothing."""
    layer = bytes(10240)  # an empty tar
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": {"org.opencontainers.image.revision": revision}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [TRIAL], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode()}
    files["manifest.json"] = json.dumps(manifest).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    subprocess.run(["docker", "load", "--quiet"], input=archive.getvalue(), check=True, capture_output=True)


# test.sh


def test_a_clone_under_umask_077_passes_and_its_image_is_noted(tmp_path: Path) -> None:
    clone = Clone(tmp_path, 0o077)
    done = clone.run("test.sh", "--no-build")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "exec: all as it should be."
    noted = (clone.folder / "dist" / "tested_exec").read_text().strip()
    assert noted == docker("image", "inspect", "--format={{.Id}}", EXEC)
    assert list(clone.temporary.iterdir()) == []


@pytest.mark.parametrize("mode", ["exec", "invoke"])
def test_other_weights_are_checked_formally(clone: Clone, mode: str) -> None:
    model = Path(shutil.copytree(ROOT / "resources", clone.temporary.parent / "my model"))
    model.chmod(0o700)
    done = clone.run("test.sh", "--mode", mode, "--no-build", "--model", str(model))
    assert done.returncode == 0, done.stderr
    assert "all as it should be, pixels not compared; not noted for ./export.sh" in done.stdout.splitlines()[-1]
    if mode == "exec":
        assert "networks from /opt/ml/model" in done.stdout
    assert not (clone.folder / "dist").exists()


def test_options_make_other_pixels_which_are_not_compared(clone: Clone) -> None:
    done = clone.run("test.sh", "--no-build", "--", "--preset", "fast")
    assert done.returncode == 0, done.stderr
    assert "all as it should be, pixels not compared; not noted for ./export.sh" in done.stdout.splitlines()[-1]


def test_an_entrypoint_with_options_is_tested_as_it_is_and_noted(trial: Clone) -> None:
    make_trial_image('ENTRYPOINT ["python3", "/opt/app/inference.py", "--preset", "fast"]')
    done = trial.run("test.sh", "--no-build", "--", "--preset", "fast")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "exec: all as it should be, pixels not compared."
    assert (trial.folder / "dist" / "tested_exec").is_file()


def test_a_model_folder_without_routing_fails_the_test(clone: Clone) -> None:
    (clone.folder / "weights").mkdir()
    (clone.folder / "weights" / "best.ckpt").touch()
    done = clone.run("test.sh", "--no-build", "--model", str(clone.folder / "weights"))
    assert done.returncode == 1
    refused, failed = done.stderr.splitlines()[-2:]
    assert refused.startswith("/opt/ml/model: found best.ckpt, expected")
    assert failed == "test.sh: Study_1/image_1_BF_z0: the container failed with code 2."
    assert list(clone.temporary.iterdir()) == []


@pytest.mark.parametrize("mode", ["exec", "invoke"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_interrupted_it_says_so_and_leaves_nothing(clone: Clone, mode: str, number: signal.Signals) -> None:
    process = clone.start("test.sh", "--mode", mode, "--no-build")
    mine = ("ps", "--all", "--quiet", "--filter", f"label=in-silico-labelling.test={process.pid}")
    while not docker(*mine):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "test.sh: interrupted." in errors.splitlines()
    assert docker(*mine) == ""
    assert list(clone.temporary.iterdir()) == []


@pytest.mark.parametrize("script", ["test.sh", "export.sh"])
def test_an_image_for_another_architecture_is_named(trial: Clone, script: str) -> None:
    make_empty_image("arm64", trial.revision())
    options = ["--no-build"] if script == "test.sh" else []
    assert "is for linux/arm64, expected linux/amd64" in trial.refusal(script, *options)


# export.sh


def test_an_image_of_another_revision_or_untested_is_not_exported(trial: Clone) -> None:
    assert "is not there, expected ./build.sh to have made it" in trial.refusal("export.sh")
    make_empty_image("amd64", 40 * "0")
    trial.note_as_tested("exec")
    assert f"is of revision {40 * '0'}, expected {trial.revision()}" in trial.refusal("export.sh")
    make_empty_image("amd64", f"{trial.revision()}-dirty")
    trial.note_as_tested("exec")
    assert "was built from files that are in no commit" in trial.refusal("export.sh")
    make_empty_image("amd64", trial.revision())
    assert "is not one that passed the test, expected ./test.sh --no-build" in trial.refusal("export.sh")
    trial.note_as_tested("exec")
    with (trial.folder / "serve.py").open("a") as file:
        file.write("# changed\n")
    assert f"expected {trial.revision()}-dirty" in trial.refusal("export.sh")
    assert [path.name for path in (trial.folder / "dist").iterdir()] == ["tested_exec"]


def test_model_tarball_has_the_same_bytes_from_every_clone(trial: Clone, tmp_path: Path) -> None:
    make_empty_image("amd64", trial.revision())
    other = Clone(tmp_path, 0o077)
    other.environment["PATH"] = trial.environment["PATH"]
    archives = []
    for clone in (trial, other):
        clone.note_as_tested("invoke")
        done = clone.run("export.sh", "--mode", "invoke", "--output", str(clone.temporary))
        assert done.returncode == 0, done.stderr
        image, model = sorted(clone.temporary.iterdir())
        assert image.name.startswith("in-silico-labelling_invoke_")
        assert {path.stat().st_mode & 0o777 for path in (image, model)} == {0o644}
        archives.append(model)
    first, second = (archive.read_bytes() for archive in archives)
    assert first == second
    with tarfile.open(archives[0]) as archive:
        names = {member.name for member in archive}
        assert names == {path.name for path in (ROOT / "resources").iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_export_is_called_that_and_leaves_nothing(trial: Clone, number: signal.Signals) -> None:
    make_trial_image(f"LABEL org.opencontainers.image.revision={trial.revision()}")
    trial.note_as_tested("exec")
    process = trial.start("export.sh", "--output", str(trial.temporary))
    while not any(path.stat().st_size > 1_000_000 for path in trial.temporary.glob(".unfinished.*/file")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (128 + number, "", "export.sh: interrupted.\n")
    assert list(trial.temporary.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing_partial(trial: Clone) -> None:
    make_empty_image("amd64", trial.revision())
    trial.note_as_tested("exec")
    small_files = 'ulimit -f 1000; trap "" XFSZ; exec "$@"'  # 1 MB: enough for this image, too little for the weights
    command = ["bash", "-c", small_files, "bash", trial.folder / "export.sh", "--output", trial.temporary]
    environment = {**trial.environment, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1
    reason, sentence = done.stderr.splitlines()[-2:]
    assert reason == "gzip: stdout: File too large"
    model = trial.temporary / "model.tar.gz"
    assert sentence == f"export.sh: {model} could not be written; the lines above say why."
    (image,) = trial.temporary.iterdir()
    assert image.name.startswith("in-silico-labelling_exec_") and image.name.endswith(".tar.gz")


# build.sh


def test_a_base_that_cannot_be_reached_says_what_base_image_is_for(clone: Clone) -> None:
    base = "127.0.0.1:9/nobody/nothing:1"
    sentence = clone.refusal("build.sh", BASE_IMAGE=base)
    assert f"the base image {base} can be neither found nor pulled" in sentence
    assert "or BASE_IMAGE to name a local image with Python 3.11 or newer and torch 2.13.0" in sentence


def test_an_interrupted_build_says_so_and_leaves_no_container(clone: Clone) -> None:
    before = docker("ps", "--all", "--quiet", "--no-trunc")
    options = f"{os.environ.get('DOCKER_BUILD_OPTIONS', '')} --no-cache"
    process = clone.start("build.sh", DOCKER_BUILD_OPTIONS=options)
    while docker("ps", "--all", "--quiet", "--no-trunc") == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "build.sh: interrupted."
    deadline = time.monotonic() + 60
    while docker("ps", "--all", "--quiet", "--no-trunc") != before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
