"""Starts the real server as a user does (`python main.py`) and talks to it over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOT", "ServerProcess", "running_server"]

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0


class ServerProcess:
    """A running server: its process, its port, when it was started."""

    def __init__(self, process: subprocess.Popen[str], started_at_s: float, data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.started_at_s = started_at_s
        self.output: list[str] = []
        self.port = 0

    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started_at_s

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float = 120.0) -> tuple[int, Any]:
        """Send one request; return status and decoded body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()

    def wait_for(self, path: str, status: int = 200, limit_s: float = START_LIMIT_S) -> float:
        """Ask for ``path`` until it answers ``status``; return the process's age then, in seconds."""
        while self.age_s() < limit_s:
            try:
                if self.request("GET", path)[0] == status:
                    return self.age_s()
            except OSError:
                pass  # not listening yet
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        message = f"the server did not answer {status} on {path} within {limit_s:.0f} s:\n{''.join(self.output)}"
        raise AssertionError(message)

    def memory_mb(self) -> float:
        """Proportional set size of the process in MB (RSS where the kernel has no such figure)."""
        import psutil

        memory = psutil.Process(self.process.pid).memory_full_info()
        return float(getattr(memory, "pss", memory.rss)) / 1024 / 1024

    def stop(self) -> float:
        """Interrupt it as Ctrl-C does; return the seconds until it has gone."""
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)
        return time.perf_counter() - begun


def exchange(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send one request over ``connection``; return status and decoded body."""
    payload = None if body is None else json.dumps(body)
    connection.request(method, path, body=payload, headers={"Content-Type": "application/json"} if payload else {})
    response = connection.getresponse()
    raw = response.read()
    is_json = "json" in (response.getheader("Content-Type") or "")
    return response.status, json.loads(raw) if is_json and raw else raw


@contextmanager
def running_server(work_dir: Path, **variables: str) -> Iterator[ServerProcess]:
    """Start the server with the environment's profile, its data and logs below ``work_dir``; stop it at the end."""
    environ = {
        **os.environ,
        "ONDOL_PORT": "0",
        "ONDOL_DATA_DIR": str(work_dir / "data"),
        "ONDOL_LOG_DIR": str(work_dir / "logs"),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }
    started_at_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py")],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    server = ServerProcess(process, started_at_s, work_dir / "data")
    is_listening = threading.Event()
    reader = threading.Thread(target=_read_output, args=(server, is_listening), daemon=True)
    reader.start()
    try:
        if not is_listening.wait(START_LIMIT_S) or not server.port:
            message = f"the server did not start:\n{''.join(server.output)}"
            raise AssertionError(message)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(timeout=5)
        assert process.stdout is not None
        process.stdout.close()


def _read_output(server: ServerProcess, is_listening: threading.Event) -> None:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server.output.append(line)
        address = re.search(r"http://[^\s/]+:(\d+)", line)
        if address and not server.port:
            server.port = int(address.group(1))
            is_listening.set()
    is_listening.set()
