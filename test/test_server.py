"""The platform's invoke mode: what is answered to whom and when, and that nothing takes the server down."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from test_inference import FAST, ROOT, expected, write_image

from model import predictor as predictor_module
from model import server
from model.commands import log_to_standard_streams
from model.images import write_plane
from model.options import parse
from model.predictor import Predictor
from model.server import Service
from model.settings import InferenceSettings

SOCKET = "images/organelles-transmitted-light-ome-tiff"


def ask(port: int, method: str, path: str, timeout_s: float = 60) -> tuple[int, str]:
    """Status and sentence of a request."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode().rstrip("\n")


def health(port: int) -> int:
    """Status of /health, which the platform waits 10 s for."""
    return ask(port, "GET", "/health", timeout_s=10)[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())


def slow_image(folder: Path) -> None:
    """An image that a network of tiles of 32 px takes minutes for."""
    pixels = np.random.default_rng(0).integers(0, 65536, (3000, 3000)).astype(np.uint16)
    write_plane(folder / "in" / SOCKET / "slow.tiff", pixels, channel="BF", pixel_size_um=(0.1, 0.1))


# One case after the other, as a function of its requests


@pytest.fixture
def service(tmp_path: Path, resources: Path) -> Iterator[Service]:
    """A service whose cases another thread predicts, as the main thread of the command does."""
    given = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resources", str(resources)]
    log_to_standard_streams()
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0, rotations=1)) as predictor:
        service = Service([predictor], parse([*given, *FAST], None))

        def run() -> None:
            with suppress(KeyboardInterrupt):
                service.run()

        threading.Thread(target=run, daemon=True).start()
        yield service


def invoke(service: Service) -> tuple[int, str]:
    response = service.respond("POST", "/invoke")
    return response.status.value, response.message


def test_health_and_unknown_paths(service: Service) -> None:
    assert service.respond("GET", "/health").status == 200
    assert service.respond("HEAD", "/health").status == 200
    assert service.respond("GET", "/invoke").status == 404
    assert service.respond("POST", "/health").status == 404


def test_case_after_case(tmp_path: Path, service: Service) -> None:
    for name, channel in (("0b5c", "BF"), ("77aa", "DIC")):
        image = write_image(tmp_path / "in" / SOCKET / f"{name}.tiff", channel=channel)
        assert invoke(service) == (201, "1 image predicted")
        image.unlink()
    assert written(tmp_path) == expected("0b5c.tiff", "77aa.tiff")


def test_a_failing_case_is_500_and_its_sentence_and_the_next_is_predicted(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(service) == (500, f"{tmp_path}/in: found nothing, expected the input folder.")
    image = tmp_path / "in" / SOCKET / "a.tiff"
    image.parent.mkdir(parents=True)
    image.touch()
    status, sentence = invoke(service)
    assert status == 500 and "a.tiff: found an empty file" in sentence and "\n" not in sentence
    assert "Traceback" not in capsys.readouterr().err
    write_image(image)
    assert invoke(service)[0] == 201
    image.write_bytes((tmp_path / "out" / expected("a.tiff")[0]).read_bytes())
    assert invoke(service) == (
        500,
        f"{tmp_path}/in: found nothing but predictions of this program, expected images of unlabelled cells.",
    )


def test_a_fault_of_ours_does_not_end_the_server(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / SOCKET / "a.tiff")

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr(Predictor, "forward", fails)
    status, sentence = invoke(service)
    assert status == 500 and sentence.endswith("unexpected RuntimeError: a fault of ours")
    monkeypatch.undo()
    assert invoke(service)[0] == 201


def test_networks_are_loaded_once_and_before_the_first_case(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = predictor_module.load
    monkeypatch.setattr(
        predictor_module, "load", lambda path, **options: (loaded.append(path), load(path, **options))[1]
    )
    service.predictors[0].load_networks()
    assert len(loaded) == 4
    for channel in ("BF", "PC", "DIC"):
        write_image(tmp_path / "in" / SOCKET / "a.tiff", channel=channel)
        assert invoke(service)[0] == 201
    assert len(loaded) == 4


def test_one_case_at_a_time_and_a_stop_answers_it(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / SOCKET / "a.tiff")
    working, go_on = threading.Event(), threading.Event()

    def waits(*arguments: object, **options: object) -> None:
        working.set()
        go_on.wait(20)
        raise KeyboardInterrupt  # as a signal does in the main thread

    monkeypatch.setattr(Predictor, "forward", waits)
    with ThreadPoolExecutor(1) as client:
        first = client.submit(invoke, service)
        assert working.wait(20)
        for _ in range(5):
            assert invoke(service) == (503, "another case is being predicted, expected one POST /invoke at a time")
        monkeypatch.setattr(server, "SENDING_S", 0.0)
        assert service.stop()
        status, sentence = first.result(timeout=5)
        assert status == 500 and sentence.startswith("interrupted: ")
    assert invoke(service)[0] == 503
    go_on.set()


# Start


def test_a_port_in_use_is_known_before_networks_are_loaded(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setattr(server, "PORT", taken.getsockname()[1])
        monkeypatch.setattr(Predictor, "load_networks", lambda self: pytest.fail("loaded in vain"))
        assert server.main(["--resources", str(resources), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"Port {server.PORT}: it cannot be used (Address already in use), expected a free port."


def test_resources_that_cannot_be_used_end_it_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["--resources", str(tmp_path)]) == 2
    assert "routing.json is missing" in capsys.readouterr().err


# The command itself, on a port of its own


class Served:
    """A running server: its port, process, and what it wrote to stderr at its end."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Exit code and stderr of the process, which Docker waits 10 s for."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=10)
        return self.process.returncode, errors


@contextmanager
def serving(folder: Path, resources: Path, *options: str, change: str = "") -> Iterator[Served]:
    """Run the command; `change` is Python code that knows the module as ``server``."""
    port = free_port()
    code = f"from model import entry_points, server\nserver.PORT = {port}\n{change}\n"
    code += "raise SystemExit(entry_points.serve())"
    command = [sys.executable, "-c", code, "--input", str(folder / "in"), "--output", str(folder / "out")]
    command += ["--resources", str(resources), "--device", "cpu", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                health(port)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.1)
        yield Served(process, port)
    finally:
        process.kill()
        process.communicate()


def test_a_case_and_the_end_of_an_idle_server(tmp_path: Path, resources: Path) -> None:
    write_image(tmp_path / "in" / SOCKET / "a.tiff")
    with serving(tmp_path, resources, "--overlap", "0", "--rotations", "1") as served:
        assert ask(served.port, "POST", "/invoke") == (201, "1 image predicted")
        assert written(tmp_path) == expected("a.tiff")
        assert served.stop(signal.SIGTERM) == (0, "")


def test_a_signal_that_does_not_wake_the_idle_main_thread_ends_it_all_the_same(tmp_path: Path, resources: Path) -> None:
    change = """
import signal, threading
def respond(self, method, path, respond=server.Service.respond):
    if path == "/signal":
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    return respond(self, method, path)
server.Service.respond = respond"""
    with serving(tmp_path, resources, change=change) as served:
        with suppress(OSError):  # it may end before it has answered
            ask(served.port, "GET", "/signal")
        _, errors = served.process.communicate(timeout=20)
        assert (served.process.returncode, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_case_is_answered_and_leaves_nothing(
    tmp_path: Path, resources: Path, number: signal.Signals
) -> None:
    slow_image(tmp_path)
    with serving(tmp_path, resources) as served, ThreadPoolExecutor(1) as client:
        answer = client.submit(ask, served.port, "POST", "/invoke")
        while not (tmp_path / "out").is_dir():
            time.sleep(0.05)
        time.sleep(1)
        # Two more, and health at once all the while
        for _ in range(2):
            assert ask(served.port, "POST", "/invoke", timeout_s=2)[0] == 503
            assert health(served.port) == 200
        code, errors = served.stop(number)
        status, sentence = answer.result(timeout=5)
    assert code == 130
    assert errors == "Interrupted. The case that was being predicted has been answered with an error.\n"
    assert (status, sentence) == (500, "interrupted: the server was stopped before the case was predicted")
    assert written(tmp_path) == []


def test_health_is_answered_while_a_case_is_predicted_and_clients_are_slow(tmp_path: Path, resources: Path) -> None:
    slow_image(tmp_path)
    with serving(tmp_path, resources) as served, ThreadPoolExecutor(1) as client:
        answer = client.submit(ask, served.port, "POST", "/invoke")
        while not (tmp_path / "out").is_dir():
            time.sleep(0.05)
        slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(100)]
        for connection in slow:
            connection.send(b"POST /invoke HTTP/1.1\r\n")
        time.sleep(0.5)
        assert {health(served.port) for _ in range(5)} == {200}
        code, errors = served.stop(signal.SIGTERM)
        assert (code, answer.result(timeout=5)[0]) == (130, 500)
        assert len(errors.splitlines()) == 1
        for connection in slow:
            connection.close()
