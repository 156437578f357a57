"""An archive that fails on purpose: an HTTP server in a thread that misbehaves as it is told, request by request."""

import json
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote

SLOW_S = 0.05


class HostileServer(ThreadingHTTPServer):
    """Serves `files` by path; the faults of a path come one a request, then it behaves.

    Faults: ``drop`` and ``reset`` after half of the body, ``close`` before the answer, ``slow`` first byte, ``long``
    and ``short`` Content-Length, ``ignore-range``, ``other-range``, ``changed`` since; ``chunked``, ``chunked-drop``
    and ``bare-drop`` without Content-Length; a number with or without ``Retry-After`` (``503``, ``429 7``) is that
    status. Half of a body is sent `pace_s` before the rest. `sent` counts the bytes of bodies, those of a client that
    hangs up included.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, files: Mapping[str, bytes], faults: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.faults = defaultdict(list, {path: list(queue) for path, queue in (faults or {}).items()})
        self.requests: list[tuple[str, str | None]] = []
        self.sent: dict[str, int] = defaultdict(int)
        self.pace_s = 0.0
        self.on_request: Callable[[], object] = lambda: None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/Files"

    def asked(self, path: str) -> list[str | None]:
        """The Range of each request for a path."""
        return [wanted for asked, wanted in self.requests if asked == path]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileServer

    def do_GET(self) -> None:
        path, wanted = unquote(self.path).removeprefix("/Files/"), self.headers["Range"]
        with self.server.lock:
            self.server.requests.append((path, wanted))
            queue = self.server.faults[path]
            fault = queue.pop(0) if queue else ""
        self.server.on_request()
        time.sleep(SLOW_S * (fault == "slow"))
        if fault == "close":
            self.close_connection = True
        elif fault[:1].isdigit():
            status, _, retry_after = fault.partition(" ")
            self._head(int(status), 0, {"Retry-After": retry_after} if retry_after else {})
        elif path not in self.server.files:
            self._head(404, 0, {})
        else:
            self._serve(path, wanted, fault)

    def _serve(self, path: str, wanted: str | None, fault: str) -> None:
        content = self.server.files[path]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and fault != "ignore-range" else 0
        body, headers = content[start:], {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        if start:
            first = 0 if fault == "other-range" else start
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if fault == "changed":
            headers["Last-Modified"] = "Fri, 01 Jan 2100 00:00:00 GMT"
        announced = len(body) + {"long": 100, "short": -7}.get(fault, 0)
        chunked = fault.startswith("chunked")
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        if fault in ("drop", "reset", "chunked-drop", "bare-drop"):
            body = body[: len(body) // 2]
        body = body[:announced]
        with self.server.lock:
            self.server.sent[path] += len(body)
        self._head(206 if start else 200, None if chunked or fault == "bare-drop" else announced, headers)
        if chunked:
            end = b"\r\n" if fault == "chunked-drop" else b"\r\n0\r\n\r\n"
            body = f"{len(body):x}\r\n".encode() + body + end
        for half in (body[: len(body) // 2], body[len(body) // 2 :]):
            self.wfile.write(half)
            time.sleep(self.server.pace_s)
        if fault in ("drop", "reset", "long", "chunked-drop", "bare-drop"):
            self.close_connection = True
        if fault == "reset":  # no orderly end: what the client has not read yet may be lost
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _head(self, status: int, length: int | None, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def archive(images: Mapping[str, bytes], folder: str = "Images") -> dict[str, bytes]:
    """All files of an archive that holds these images (``Study_K/name``), with its lists of studies."""
    lists: dict[str, list[dict[str, object]]] = defaultdict(list)
    for local, content in images.items():
        entry = {"path": f"{folder}/{local}", "size": len(content), "attributes": [], "type": "file"}
        lists[local.partition("/")[0]].append(entry)
    files = {f"{folder}/{local}": content for local, content in images.items()}
    return files | {f"FileList/{study}.json": json.dumps(entries).encode() for study, entries in lists.items()}
