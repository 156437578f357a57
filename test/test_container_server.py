"""Invoke mode in a real container: what is answered, to whom and when, whatever else happens."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from containers import INVOKE, Dish, docker
from test_inference import expected, write_image

from model.grand_challenge import input_folder
from model.http_server import LARGEST_BODY
from model.images import write_plane

pytestmark = pytest.mark.container


@pytest.fixture
def server(dish: Dish) -> Dish:
    dish.image = INVOKE
    return dish


def case(dish: Dish, name: str = "0b5c") -> Path:
    return write_image(input_folder(dish.input) / f"{name}.tiff")


def long_case(dish: Dish) -> None:
    """An image that takes a minute on two cores with the default options."""
    case(dish)
    pixels = np.random.default_rng(0).integers(0, 65536, (1024, 1024)).astype(np.uint16)
    write_plane(input_folder(dish.input) / "0b5c.tiff", pixels, channel="BF", pixel_size_um=(0.3, 0.3))
    dish.options = ()


def outputs(dish: Dish) -> list[str]:
    return [str(path.relative_to(dish.output)) for path in dish.written()]


def test_stopped_in_the_middle_of_a_long_case_with_three_invokes_at_once(server: Dish) -> None:
    long_case(server)
    with server.start() as container, ThreadPoolExecutor(3) as clients:
        container.wait_until_ready()
        assert container.ask("GET", "/health") == (200, "ready")
        invokes = [clients.submit(container.ask, "POST", "/invoke") for _ in range(3)]
        begun = time.monotonic()
        while time.monotonic() - begun < 12:
            assert container.ask("GET", "/health", timeout_s=1) == (200, "ready")
        (waiting,) = (invoke for invoke in invokes if not invoke.done())
        told = [invoke.result() for invoke in invokes if invoke is not waiting]
        assert told == 2 * [(503, "another case is being predicted, expected one POST /invoke at a time")]
        docker("stop", container.name)
        assert waiting.result() == (500, "interrupted: the server was stopped before the case was predicted")
        assert container.exit_code() == 130
        last = container.logs().stderr.splitlines()[-1]  # before it, the image of noise may be warned of
        assert last == "Interrupted. The case that was being predicted has been answered with an error."
    assert outputs(server) == []


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_failed_case_a_good_one_and_the_end_of_an_idle_server(server: Dish, name: str) -> None:
    with server.start() as container:
        container.wait_until_ready()
        status, sentence = container.ask("POST", "/invoke")
        assert status == 500 and sentence.startswith("/input: found no image to predict")
        case(server)
        assert container.ask("POST", "/invoke") == (201, "1 image predicted")
        assert outputs(server) == expected("0b5c.tiff")
        container.signal(name)
        assert container.exit_code() == 0
        assert len(container.logs().stderr.splitlines()) == 1  # of the case that failed


def test_large_bodies_need_no_temporary_file(server: Dish) -> None:  # /tmp is read-only, as all but /output
    case(server)
    with server.start() as container:
        container.wait_until_ready()
        assert container.ask("POST", "/invoke", body_bytes=LARGEST_BODY) == (201, "1 image predicted")
        status, sentence = container.ask("POST", "/invoke", body_bytes=50 * LARGEST_BODY)
        assert status == 413 and sentence.startswith(f"found a body of {50 * LARGEST_BODY} bytes, expected none")
        assert container.ask("GET", "/health") == (200, "ready")
        assert container.logs().stderr == ""


def test_a_full_disk_is_the_answer_and_the_next_case_finds_the_server_alive(server: Dish) -> None:
    image = case(server)
    with server.start("--tmpfs=/output:size=16k,mode=1777") as container:
        container.wait_until_ready()
        for _ in range(2):
            status, sentence = container.ask("POST", "/invoke")
            assert status == 500 and "it cannot be written (no space left on the disk)" in sentence
        assert docker("exec", container.name, "find", "/output", "-type", "f") == ""
        image.unlink()
        assert container.ask("POST", "/invoke")[0] == 500
        assert container.is_running()


def test_a_port_in_use_is_one_sentence(server: Dish) -> None:
    with server.start() as container:
        container.wait_until_ready()
        command = ["docker", "exec", container.name, "python3", "/opt/app/serve.py"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2
        assert second.stderr == "Port 4743: it cannot be used (Address already in use), expected a free port.\n"
        assert container.ask("GET", "/health") == (200, "ready")
