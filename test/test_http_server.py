"""Connections that the server of invoke mode survives: many, slow, silent, with large bodies, or nonsense."""

import http.client
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http import HTTPStatus

import pytest
from test_server import ask, health

from model import http_server
from model.http_server import HttpServer, Response


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
    assert [health(port), health(port)] == [200, 200]
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
    assert health(port) == 200
    assert capfd.readouterr() == ("", "")
