"""A real Redis or Valkey server for tests: on a Unix socket or a free port, in memory only, gone with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from types import TracebackType

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
ALL_SLOTS = 16_384
START_LIMIT_S = 20.0


def required_binary() -> str:
    """Return the server's program; without it skip with a word, or fail where CI runs."""
    if BINARY is None:
        message = "no redis-server or valkey-server found: scripts/install-test-services.sh installs one"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return BINARY


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = folder / "server.crt", folder / "server.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key


class RedisServer:
    """One server process.

    ``kind``: ``unix`` (also reachable by ``port``), ``tls`` or ``cluster`` (one node that holds all slots).
    """

    def __init__(self, kind: str = "unix", *options: str, password: str | None = None) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="ondol-redis-"))
        self.port = free_port()
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._certificate: tuple[Path, Path] | None = None

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        if self.kind == "unix":
            return f"unix://{user}{self.folder}/redis.sock"
        if self.kind == "tls":
            assert self._certificate is not None
            return f"rediss://{user}127.0.0.1:{self.port}/0?ssl_ca_certs={self._certificate[0]}"
        return f"redis+cluster://{user}127.0.0.1:{self.port}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        binary = required_binary()
        if self.kind == "tls":
            self._certificate = make_certificate(self.folder)
        try:
            self._start(binary)
            if self.kind == "cluster":
                self.command("CLUSTER", "ADDSLOTSRANGE", "0", str(ALL_SLOTS - 1))
                self._until(lambda: b"cluster_state:ok" in self.command("CLUSTER", "INFO"))
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_again(self) -> None:
        """Start after ``kill``, with what was saved."""
        self._start(required_binary())

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stop it from answering; connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command past every client library, and return the raw reply."""
        with self._connected() as connection:
            request = b"*%d\r\n" % len(words) + b"".join(
                b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words
            )
            connection.sendall(request)
            return connection.recv(1 << 20)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        try:
            connection.connect(f"{self.folder}/redis.sock")
        except OSError:
            connection.close()
            raise
        return connection

    def _start(self, binary: str) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if self._certificate is not None:
            certificate, key = (str(path) for path in self._certificate)
            arguments = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            arguments += ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
        if self.kind == "cluster":
            arguments += ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
            arguments += ["--cluster-port", str(free_port())]
        if self.password:
            arguments += ["--requirepass", self.password]
        arguments += ["--unixsocket", "redis.sock", "--dir", str(self.folder), "--daemonize", "no"]
        self.process = subprocess.Popen(
            [binary, *arguments, "--save", "", "--appendonly", "no", *self._options],
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
        )
        self._until(lambda: self.command("PING")[:1] in {b"+", b"-"})

    def _until(self, is_done: Any) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while True:
            try:
                if is_done():
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline_s, "the server did not start"
            time.sleep(0.01)  # nothing tells when another program is ready
