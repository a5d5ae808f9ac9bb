"""An HTTP server on 127.0.0.1 that keeps what it is sent and answers as it is told."""

from __future__ import annotations

import socket
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import socketserver
    import ssl
    from types import TracebackType


# Made for 127.0.0.1 with openssl; valid until 2120 and trusted by nobody but these tests.
TLS_KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1APVrPbhOhkIzOrL
FePNjR7P8M9uEJ0NOGPBmRcawmahRANCAAQBF+uQIuwhPZvLIdIfhuzW9q2mCGkQ
rL7yKYVwLmMQBasatkg/U7dBSqKRSXyO6XqM2AfH72iPmvxAUGiZW+Wj
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBbDCCARKgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAEX65Ai7CE9m8sh
0h+G7Nb2raYIaRCsvvIphXAuYxAFqxq2SD9Tt0FKopFJfI7peozYB8fvaI+a/EBQ
aJlb5aOjUzBRMA8GA1UdEQQIMAaHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
HQ8BAf8EBAMCAoQwHQYDVR0OBBYEFKWhmsQTdYzsstZYjkxXDDR3JwsnMAoGCCqG
SM49BAMCA0gAMEUCIBj+AUCDkQ/xJzSytcY/nFwhK1emRxnry2ipXH9J3jLgAiEA
jgh6KNp0uctp6lvsUr8XhUrTvQaKLo+p5tJiL0vzGxw=
-----END CERTIFICATE-----
"""


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"
    is_unfinished: bool = False
    """A last byte of the body is promised and does not come."""


HANG = Reply(status=0)
"""No answer before the double is closed."""
DROP = Reply(status=-1)
"""The connection is closed without an answer."""


class WebhookDouble:
    """Answers from ``replies``, then 200. Closing it releases everything that hangs."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.replies: deque[Reply] = deque()
        self.received: list[Received] = []
        self.arrived = threading.Semaphore(0)
        self._closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        if tls is not None:
            # The handshake belongs to the connection's own thread: one that fails must not end the server.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/hook", scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user}127.0.0.1:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_until_closed(self) -> None:
        self._closed.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined by server_close(): nothing outlives the test

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: socketserver._AfInetAddress
    ) -> None:
        """Say nothing: clients that go away are what is tested."""


def _handler_of(double: WebhookDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = double.replies.popleft() if double.replies else Reply()
            double.received.append(Received(self.path, dict(self.headers.items()), body))
            double.arrived.release()
            if reply is HANG:
                double.wait_until_closed()
            elif reply is not DROP:
                self._answer(reply)

        def _answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.is_unfinished))
            self.end_headers()
            self.wfile.write(reply.body)
            if reply.is_unfinished:
                double.wait_until_closed()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name
            """Say nothing."""

    return Handler


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
