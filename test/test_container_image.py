"""What is in the image: everything once, the same from every clone, and for any user."""

import os
import subprocess
import tarfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from containers import EXEC, INVOKE, ROOT, Dish, base_image, docker
from test_inference import expected, write_image

from model.routing import Routing

pytestmark = pytest.mark.container


def layers(image: str) -> list[str]:
    return docker("image", "inspect", '--format={{join .RootFS.Layers " "}}', image).split()


def size(image: str) -> int:
    return int(docker("image", "inspect", "--format={{.Size}}", image))


def files_by_layer(image: str, wanted: str) -> Counter[str]:
    """How many layers hold each file below a folder."""
    found: Counter[str] = Counter()
    with (
        subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved,
        tarfile.open(fileobj=saved.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if member.name.endswith("layer.tar") or member.name.startswith("blobs/"):
                with (
                    suppress(tarfile.ReadError),  # a blob of JSON
                    tarfile.open(fileobj=archive.extractfile(member), mode="r|") as layer,
                ):
                    found.update(file.name for file in layer if file.isfile() and file.name.startswith(wanted))
    return found


def test_license_and_code_are_inside_as_they_are_here() -> None:
    for name in ("LICENSE", "inference.py", "resources/routing.json"):
        command = ["docker", "run", "--rm", "--entrypoint", "cat", EXEC, f"/opt/app/{name}"]
        assert subprocess.run(command, check=True, capture_output=True).stdout == (ROOT / name).read_bytes()


def test_each_file_is_stored_once() -> None:
    found = files_by_layer(EXEC, "opt/app")
    routed = {f"opt/app/resources/{file.path.name}" for file in Routing.read(ROOT / "resources").checkpoints.values()}
    assert routed and routed == {name for name in found if name.endswith(".safetensors")}
    assert set(found.values()) == {1}
    assert not [name for name in found if "/torch/" in name]


def test_it_adds_little_to_its_base() -> None:
    added = size(EXEC) - size(base_image())
    print(f"{added / 1e6:.0f} MB above the base")
    assert added < 550e6  # half of it is SimpleITK, which reads .mha


def test_both_modes_are_the_base_and_the_same_two_layers() -> None:
    base = layers(base_image())
    assert layers(EXEC)[: len(base)] == base
    assert len(layers(EXEC)) == len(base) + 2
    assert layers(INVOKE) == layers(EXEC)


@pytest.mark.parametrize("user", ["user", "12345:12345"])
def test_a_named_volume_can_be_written_to(dish: Dish, user: str) -> None:
    write_image(dish.input / "a.tiff")
    volume = docker("volume", "create")
    try:
        dish.user = user
        done = dish.run(f"--volume={volume}:/output")
        assert (done.returncode, done.stderr) == (0, "")
        find = ("--entrypoint", "find", EXEC, "/output", "-type", "f", "-printf", "%P\n")
        assert sorted(docker("run", "--rm", f"--volume={volume}:/output", *find).splitlines()) == expected("a.tiff")
    finally:
        docker("volume", "rm", volume)


def test_another_clone_on_another_day_makes_the_same_layers(tmp_path: Path) -> None:
    """From a clone under umask 077, without the engine's cache."""
    clone, tag = tmp_path / "clone", f"in-silico-labelling:again-{os.getpid()}"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True, capture_output=True, umask=0o077)
    script = "source container/common.sh; revision"
    revision = subprocess.run(["bash", "-c", script], cwd=clone, check=True, capture_output=True, text=True)
    label = '--format={{index .Config.Labels "org.opencontainers.image.revision"}}'
    if docker("image", "inspect", label, EXEC) != revision.stdout.strip():
        pytest.skip("the image is not of the commit that is checked out")
    options = os.environ.get("DOCKER_BUILD_OPTIONS", "").split()
    base = f"--build-arg=BASE_IMAGE={base_image()}"
    docker("build", "--no-cache", "--force-rm", base, *options, "--tag", tag, str(clone), timeout_s=900)
    try:
        assert layers(tag) == layers(EXEC)
    finally:
        docker("rmi", tag)
