"""Faults in a real container, under the platform's restrictions: what it says, and that nothing is lost."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import test_czi
import test_lif
import tifffile
from containers import ROOT, Dish, docker
from test_inference import write_image

from model.images import read_image
from model.images.ome_zarr_writer import write_ome_zarr
from model.images.open_stack import open_stack
from model.images.stack import OutputChannel
from model.labels import Organelle

pytestmark = pytest.mark.container

SAMPLES = ROOT.parent / "shared" / "samples"


def empty_folder(dish: Dish) -> Sequence[str]:
    return []


def unreadable_input(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "secret.tiff").chmod(0)
    return []


def read_only_output(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    return [f"--volume={dish.output}:/output:ro"]


def output_of_another_user(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    dish.output.chmod(0o755)
    return []


def full_disk(dish: Dish) -> Sequence[str]:
    write_image(dish.input / "a.tiff")
    return ["--tmpfs=/output:size=16k"]


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


def stack_without_axes(dish: Dish) -> Sequence[str]:
    tifffile.imwrite(dish.input / "stack.tiff", np.zeros((3, 2, 16, 16), np.uint16), photometric="minisblack")
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
        (stack_without_axes, 1, "/input/stack.tiff: found 3 x 2 planes along axes without a name"),
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


def test_stacks_and_ome_zarr_are_read_and_written(dish: Dish) -> None:
    planes = np.random.default_rng(0).integers(0, 4000, (2, 1, 1, 40, 33)).astype(np.uint16)
    write_ome_zarr(
        dish.input / "a.ome.zarr",
        iter(planes[:, 0, 0]),
        shape=(2, 1, 1, 40, 33),
        channels=[OutputChannel("PC", "FFFFFF", (0, 4000))],
        pixel_size_um=(0.3, 0.3),
        z_step_um=None,
        time_increment_s=2.0,
        provenance={},
    )
    dish.options = [*dish.options, "--layout", "merged", "--format", "zarr"]
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    with open_stack(dish.output / "images/organelles-merged/a.ome.zarr") as stack:
        assert (stack.info.times, stack.info.time_increment_s) == (2, 2.0)
        assert [channel.name for channel in stack.info.channels] == ["Input", *(o.label for o in Organelle)]
        np.testing.assert_array_equal(stack.read_plane(1, 0, 0), planes[1, 0, 0])
        assert stack.read_plane(1, 2, 0).std() > 0


def test_files_of_microscopes_are_read(dish: Dish) -> None:
    test_czi.write(dish.input / "a.czi", [test_czi.STACK[:1, :, :1]] * 2, planes=[(0, 0, 0), (0, 1, 0)])
    test_lif.write(dish.input / "b.lif", test_lif.series("MYX", settings=["TL-PH"]))
    expected = ["a_scene0", "a_scene1", *(f"b_scene{tile}" for tile in range(4))]
    for sample in SAMPLES.glob("example-multichannel.nd2"):  # real files are not in the project
        shutil.copy(sample, dish.input / "c.nd2")
        expected.append("c")
    dish.options = [*dish.options, "--preset", "fast", "--channel", "0"]
    done = dish.run()
    assert (done.returncode, f"{len(expected)} images predicted" in done.stdout) == (0, True), done.stderr
    folder = dish.output / "images/nucleus-fluorescence-ome-tiff"
    assert sorted(path.stem for path in folder.iterdir()) == expected


def test_weights_of_the_model_volume_win(dish: Dish, resources: Path) -> None:
    write_image(dish.input / "a.tiff")
    shutil.copytree(resources, dish.model, dirs_exist_ok=True)
    for file in [dish.model, *dish.model.iterdir()]:
        file.chmod(0o755)
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "networks from /opt/ml/model" in done.stdout and "trained on nothing at all" in done.stdout


@pytest.mark.parametrize(("order", "code"), [("kill", 137), ("stop", 130)])
def test_killed_or_stopped_it_leaves_whole_files_and_goes_on(dish: Dish, order: str, code: int) -> None:
    names = [f"{number:02d}" for number in range(24)]
    for name in names:
        write_image(dish.input / f"{name}.tiff")
    with dish.start() as container:
        deadline = time.monotonic() + 120
        while len([path for path in dish.written() if path.suffix == ".tiff"]) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        docker(order, container.name)
        assert container.exit_code() == code  # 137 is also what Docker kills after 10 s
    for path in dish.written():
        if path.suffix == ".tiff":
            assert read_image(path).pixels.shape == (40, 33)
    done = dish.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "already predicted" in done.stdout
    images = [path for path in dish.written() if path.suffix == ".tiff"]
    assert sorted(path.stem for path in images) == sorted(names * len(Organelle))
