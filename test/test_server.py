"""The platform's invoke mode: what is answered to whom and when, and that nothing takes the server down."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from test_inference import FAST, ROOT, expected, write_image

from model import http_server, server
from model import predictor as predictor_module
from model.command_line import parse
from model.commands import log_to_standard_streams
from model.http_server import HttpServer, Response
from model.images import write_plane
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


def health_s(port: int) -> float:
    """Seconds until /health answers 200."""
    begun = time.monotonic()
    assert ask(port, "GET", "/health", timeout_s=10)[0] == 200
    return time.monotonic() - begun


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
        service = Service(predictor, parse([*given, *FAST]))

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
    service.predictor.load_networks()
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


# Connections


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that answers everything at once."""
    with HttpServer(0, lambda method, path: Response(HTTPStatus.OK, f"{method} {path} µ\udcff")) as running:
        running.listen()
        yield running.server_port
        running.shutdown()


def test_requests_are_answered_by_method_and_path(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(port, "GET", "/health?verbose=1") == (200, "GET /health µ\\xff")
    assert ask(port, "HEAD", "/health") == (200, "")
    assert ask(port, "POST", "/invoke") == (200, "POST /invoke µ\\xff")
    assert ask(port, "BREW", "/coffee")[0] == 501
    assert capfd.readouterr() == ("", "")


def test_slow_clients_do_not_keep_a_quick_one_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(http_server.CONNECTIONS + 40)]
    for number, connection in enumerate(slow):
        request = (b"", b"GET /hea", b"POST /invoke HTTP/1.1\r\nContent-Length: 9\r\n\r\nbod")[number % 3]
        with suppress(OSError):  # dropped already
            connection.sendall(request)
    assert health_s(port) < 2
    assert health_s(port) < 1
    assert threading.active_count() < http_server.CONNECTIONS + 20
    for connection in slow:
        connection.close()


def test_many_quick_clients_are_all_answered(port: int) -> None:
    with ThreadPoolExecutor(150) as clients:
        assert set(clients.map(lambda _: ask(port, "GET", "/health")[0], range(300))) == {200}


def test_a_silent_client_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server._Handler, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as silent:
        silent.sendall(b"POST /invoke HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        assert silent.recv(100) == b""


def test_a_moderate_body_is_ignored_and_needs_no_temporary_file(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", "/invoke", body=b"x" * 1_000_000, headers={"Expect": "100-continue"})
        assert connection.getresponse().status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": str(10**12)}, 413),
        ({"Content-Length": str(http_server.LARGEST_BODY + 1)}, 413),
        ({"Content-Length": "9" * 5000}, 400),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "many"}, 400),
        ({"Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_other_bodies_are_refused_in_a_sentence_that_arrives(port: int, headers: dict[str, str], status: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.sendall(f"POST /invoke HTTP/1.1\r\n{lines}\r\n".encode() + b"x" * 5_000_000)
        client.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == status
        assert re.fullmatch(r"found [^\n]+, expected [^\n]+\n", response.read().decode())


@pytest.mark.parametrize(
    "nonsense",
    [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n"],
)
def test_nonsense_is_harmless(port: int, nonsense: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(nonsense)
    assert health_s(port) < 1
    assert capfd.readouterr() == ("", "")


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

    def stop(self, number: signal.Signals) -> tuple[int, str, float]:
        """Exit code, stderr, and seconds until the process has ended."""
        begun = time.monotonic()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors, time.monotonic() - begun


@contextmanager
def serving(folder: Path, resources: Path, *options: str, prefix: tuple[str, ...] = ()) -> Iterator[Served]:
    port = free_port()
    code = f"import model.entry_points as e, model.server as s; s.PORT = {port}; raise SystemExit(e.serve())"
    command = [*prefix, sys.executable, "-c", code, "--input", str(folder / "in"), "--output", str(folder / "out")]
    command += ["--resources", str(resources), "--device", "cpu", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                health_s(port)
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
        code, errors, seconds = served.stop(signal.SIGTERM)
    assert (code, errors) == (0, "") and seconds < 3


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
            assert health_s(served.port) < 1
        code, errors, seconds = served.stop(number)
        status, sentence = answer.result(timeout=5)
    assert code == 130 and seconds < 3
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
        assert max(health_s(served.port) for _ in range(5)) < 1
        code, errors, _ = served.stop(signal.SIGTERM)
        assert (code, answer.result(timeout=5)[0]) == (130, 500)
        assert len(errors.splitlines()) == 1
        for connection in slow:
            connection.close()
