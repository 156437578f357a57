"""Faults in a real container, under the platform's restrictions: what it says, and that nothing is lost.

Runs in-silico-labelling:latest, made by ./build.sh.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from test_inference import write_image

from model.images import read_image
from model.labels import Organelle

pytestmark = pytest.mark.container

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "in-silico-labelling:latest"
FAST = ("--overlap", "0", "--rotations", "1")
SOMEBODY = "12345:12345"


def restrictions() -> list[str]:
    script = 'source container/common.sh; printf "%s\\n" "${RESTRICTIONS[@]}"'
    return subprocess.run(["bash", "-c", script], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


class Dish:
    """The folders of one container."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output, self.model = folder / "in", folder / "out", folder / "model"
        for made in (self.input, self.output, self.model):
            made.mkdir()
        self.output.chmod(0o777)

    def command(self, *options: str, detach: bool = False) -> list[str]:
        head = ["docker", "run", "--detach" if detach else "--rm", *restrictions(), "--user", SOMEBODY]
        head += ["--volume", f"{self.input}:/input:ro", "--volume", f"{self.model}:/opt/ml/model:ro"]
        if not any(option.endswith("/output") or "/output:" in option for option in options):
            head += ["--volume", f"{self.output}:/output"]
        return [*head, *options, IMAGE, *FAST]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=300)

    def written(self) -> list[Path]:
        return sorted(path for path in self.output.rglob("*") if path.is_file())


@pytest.fixture
def dish(tmp_path: Path) -> Dish:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    return Dish(tmp_path)


def empty_folder(dish: Dish) -> Sequence[str]:
    return []


def unreadable_input(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "secret.tiff").chmod(0)
    return []


def read_only_output(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    return ["--volume", f"{dish.output}:/output:ro"]


def output_of_another_user(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    dish.output.chmod(0o755)
    return []


def full_disk(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    return ["--tmpfs", "/output:size=16k,mode=1777"]


def damaged_checkpoint(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    shutil.copytree(ROOT / "resources", dish.model, dirs_exist_ok=True)
    with (dish.model / "pix2pix_bf.safetensors").open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"damaged")
    return []


def tampered_hash(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    shutil.copytree(ROOT / "resources", dish.model, dirs_exist_ok=True)
    routing = json.loads((dish.model / "routing.json").read_text())
    routing["checkpoints"]["unetplusplus"]["sha256"] = 64 * "0"
    (dish.model / "routing.json").write_text(json.dumps(routing))
    return []


def huge_claim(dish: Dish) -> Sequence[str]:
    path = dish.input / "huge.tiff"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint16))
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(50_000)
    return []


def entity_bomb(dish: Dish) -> Sequence[str]:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e0 "lol">{entities}]><OME>&e9;</OME>'
    tifffile.imwrite(dish.input / "bomb.tiff", np.zeros((16, 16), np.uint16), description=bomb)
    return []


def link_out_of_the_folder(dish: Dish) -> Sequence[str]:
    (dish.input / "link.tiff").symlink_to("/opt/app/resources/routing.json")
    return []


def stack(dish: Dish) -> Sequence[str]:
    tifffile.imwrite(dish.input / "stack.tiff", np.zeros((3, 16, 16), np.uint16), photometric="minisblack")
    return []


def truncated(dish: Dish) -> Sequence[str]:
    path = write_image(dish.input / "cut.tiff")
    path.write_bytes(path.read_bytes()[:-500])
    return []


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (empty_folder, 2, "/input: found no image to predict"),
        (unreadable_input, 1, "/input/secret.tiff: it cannot be read (Permission denied)"),
        (read_only_output, 2, "/output: nothing can be written there (Read-only file system), expected a folder that"),
        (output_of_another_user, 2, "/output: nothing can be written there (Permission denied), expected a folder"),
        (full_disk, 1, "it cannot be written (no space left on the disk)"),
        (damaged_checkpoint, 2, "/opt/ml/model/pix2pix_bf.safetensors has SHA-256"),
        (tampered_hash, 2, "/opt/ml/model/unetplusplus.safetensors has SHA-256"),
        (huge_claim, 1, "/input/huge.tiff: found a plane of 50000 x 50000 px"),
        (entity_bomb, 1, "/input/bomb.tiff: "),
        (link_out_of_the_folder, 2, "/input/link.tiff: found a link that leads out of /input"),
        (stack, 1, "/input/stack.tiff: found"),
        (truncated, 1, "/input/cut.tiff: "),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_and_leaves_nothing_partial(
    dish: Dish, fault: Callable[[Dish], Sequence[str]], code: int, sentence: str
) -> None:
    done = dish.run(*fault(dish))
    print(f"{fault.__name__}: {done.stderr.strip()}")
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and sentence in lines[0]
    assert dish.written() == []


def test_odd_names_are_names(dish: Dish) -> None:
    names = ["-rf", "with blanks", "µ–細胞", "a'b\"c", "$(touch x)"]
    for name in names:
        write_image(dish.input / "deep er" / f"{name}.tiff")
    (dish.input / "notes.txt").write_text("no image")
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted({path.stem for path in dish.written()}) == sorted(names)
    assert len(dish.written()) == 4 * len(names)


def test_weights_of_the_model_volume_win(dish: Dish, resources: Path) -> None:
    write_image(dish.input / "a.tiff")
    shutil.copytree(resources, dish.model, dirs_exist_ok=True)
    for file in [dish.model, *dish.model.iterdir()]:
        file.chmod(0o755)
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "networks from /opt/ml/model" in done.stdout and "trained on nothing at all" in done.stdout


@pytest.mark.parametrize("order", ["kill", "stop"])
def test_killed_or_stopped_it_leaves_whole_files_and_goes_on(dish: Dish, order: str) -> None:
    names = [f"{number:02d}" for number in range(24)]
    for name in names:
        write_image(dish.input / f"{name}.tiff")
    started = subprocess.run(dish.command(detach=True), check=True, capture_output=True, text=True)
    container = started.stdout.strip()
    try:
        deadline = time.monotonic() + 120
        while len([path for path in dish.written() if path.suffix == ".tiff"]) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        begun = time.monotonic()
        subprocess.run(["docker", order, container], check=True, capture_output=True)
        assert time.monotonic() - begun < 8  # Docker would kill after 10 s what does not go by itself
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True)
    for path in dish.written():
        if path.suffix == ".tiff":
            assert read_image(path).pixels.shape == (40, 33)
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "already predicted" in done.stdout
    images = [path for path in dish.written() if path.suffix == ".tiff"]
    assert sorted(path.stem for path in images) == sorted(names * len(Organelle))


@pytest.mark.parametrize("script", ["build.sh", "test.sh", "export.sh"])
def test_scripts_explain_themselves_and_say_where_docker_is_missing(tmp_path: Path, script: str) -> None:
    copy = tmp_path / "a folder with blanks"
    (copy / "container").mkdir(parents=True)
    shutil.copy(ROOT / script, copy)
    shutil.copy(ROOT / "container" / "common.sh", copy / "container")
    told = subprocess.run([str(copy / script), "--help"], cwd="/", capture_output=True, text=True, check=True).stdout
    assert f"./{script}" in told and "--mode" in told and "set -" not in told
    for tool in ("bash", "dirname", "sed", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    bare = {"PATH": str(tmp_path)}
    refused = subprocess.run([str(copy / script)], cwd="/", capture_output=True, text=True, env=bare)
    assert refused.returncode == 1 and "Docker is not installed" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    wrong = subprocess.run([str(copy / script), "--mode", "fast"], cwd="/", capture_output=True, text=True)
    assert wrong.returncode == 1 and "expected exec or invoke" in wrong.stderr
    silent = {"DOCKER_HOST": "unix:///nowhere.sock", "PATH": os.environ["PATH"]}
    refused = subprocess.run([str(copy / script)], cwd="/", capture_output=True, text=True, env=silent)
    assert refused.returncode == 1 and "does not answer" in refused.stderr
