"""A small HTTP server that slow, many or broken clients cannot block: connections, time-outs and size limits.

Every connection has a thread and serves one request. `CONNECTIONS` may be sending theirs at a time; for one more, the
one that has been sending longest is dropped, so that slow clients never keep a quick one out. Bodies are read and
discarded: neither memory nor a temporary file holds them.
"""

import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .commands import one_sentence, printable

log = logging.getLogger(__name__)

CONNECTIONS = 64
QUICK_S = 0.25
"""So long no client is dropped in favour of another."""
SILENCE_S = 10.0
"""A client that sends nothing for so long is dropped."""
LARGEST_BODY = 1 << 20
LINGER_S = 2.0
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Response:
    """What is answered.

    Attributes
    ----------
    status : HTTPStatus
    message : str
        One sentence.
    sent : threading.Event
        Set once it was sent, or the client is gone.
    """

    status: HTTPStatus
    message: str
    sent: threading.Event = field(default_factory=threading.Event)


class HttpServer(ThreadingHTTPServer):
    """Serves on one port of all interfaces.

    Parameters
    ----------
    port : int
        Bound by the constructor, so that a port in use is known at once; `listen` accepts connections.
    respond : callable
        Maps method and path of a request to its response; called in the connection's thread.

    Raises
    ------
    OSError
        Where the port cannot be bound.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, respond: Callable[[str, str], Response]) -> None:
        self.respond = respond
        self._receiving: dict[Any, float] = {}  # since when, in the order of their arrival
        self._changed = threading.Condition()
        super().__init__(("0.0.0.0", port), _Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def listen(self) -> None:
        """Accept connections, in a thread of the server's own, until the process ends."""
        self.server_activate()
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def server_bind(self) -> None:
        """Bind without asking the network for this host's name, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a connection's thread, once there is room for one more."""
        with self._changed:
            while len(self._receiving) >= CONNECTIONS:
                slowest, since = next(iter(self._receiving.items()))
                patience = since + QUICK_S - time.monotonic()
                if patience > 0:
                    self._changed.wait(patience)
                else:
                    del self._receiving[slowest]
                    with suppress(OSError):
                        slowest.shutdown(socket.SHUT_RDWR)  # ends the thread that waits for it
            self._receiving[request] = time.monotonic()
        super().process_request(request, client_address)

    def received(self, request: Any) -> None:
        """Note that a request has arrived, or never will: its connection is not dropped in favour of another."""
        with self._changed:
            self._receiving.pop(request, None)
            self._changed.notify()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.received(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that is gone; log anything else in one sentence."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            log.error(one_sentence(error))


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "in-silico-labelling", ""
    error_message_format, error_content_type = "%(message)s\n", "text/plain; charset=utf-8"
    timeout = SILENCE_S

    def do_GET(self) -> None:
        refusal = self._skip_body()
        self.server.received(self.connection)
        response = refusal or self.server.respond(self.command, self.path.partition("?")[0])
        try:
            self._send(response)
            if refusal:
                self._linger()
        finally:
            response.sent.set()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _skip_body(self) -> Response | None:
        """Read the body, which nothing asks for; the response where it is refused."""
        if "Transfer-Encoding" in self.headers:
            return Response(HTTPStatus.LENGTH_REQUIRED, "found a body of unknown length, expected none")
        length = self.headers.get("Content-Length", "0").strip()
        if not (length.isascii() and length.isdecimal() and len(length) < 20):
            return Response(HTTPStatus.BAD_REQUEST, f"found Content-Length {length!r}, expected a whole number")
        remaining = int(length)
        if remaining > LARGEST_BODY:
            message = f"found a body of {remaining} bytes, expected none, or at most {LARGEST_BODY}"
            return Response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        while remaining > 0:
            block = self.rfile.read(min(remaining, _BLOCK))
            if not block:
                raise ConnectionError("the client is gone")
            remaining -= len(block)
        return None

    def _send(self, response: Response) -> None:
        body = f"{printable(response.message)}\n".encode()
        self.close_connection = True
        self.send_response(response.status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _linger(self) -> None:
        """Read on for a moment: closing on a client that still sends would take the response from it."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_S)
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline and self.connection.recv(_BLOCK):
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is predicted is logged elsewhere, and stderr is for warnings."""
