"""A real server process for benchmarks/models*.py: an app's script serves on a free port, the benchmark talks to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from models_conditions import FOLDER, environ

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Server", "running", "serve"]

_PREFIX = "serves on port "


class Server(NamedTuple):
    """A server that listens."""

    process: subprocess.Popen[str]
    port: int

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid


def serve(app: Any) -> None:
    """Serve ``app`` with uvicorn on a free port of loopback, say which, and end with a signal; for the app's script."""
    import uvicorn

    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # said, asyncio sends small answers at once
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)  # so that who is told the port may connect at once
        print(f"{_PREFIX}{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running(script: str, folder: Path, *arguments: str, **variables: str) -> Iterator[Server]:
    """Run an app's script of this folder, with ondol's files below ``folder``; end it afterwards.

    Raises:
        RuntimeError: it ended without listening.
    """
    command = [sys.executable, str(FOLDER / script), *arguments]
    variables = {"ONDOL_DATA_DIR": str(folder / "data"), "ONDOL_LOG_DIR": str(folder / "logs"), **variables}
    process = subprocess.Popen(command, env=environ(**variables), cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith(_PREFIX):
            message = f"{script} ended without saying its port"
            raise RuntimeError(message)
        yield Server(process, int(line.removeprefix(_PREFIX)))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
