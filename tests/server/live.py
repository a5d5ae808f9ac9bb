"""A real server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from pathlib import Path


class LiveServer:
    """``python -m ondol serve`` on a free port, with its files in ``folder``."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ONDOL_") and name not in {"ENVIRONMENT", "PYTHONWARNINGS"}
        }
        self._errors = (folder / "stderr.txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ondol", "serve"],
            cwd=folder,
            env={**inherited, "ENVIRONMENT": "testing", "ONDOL_PORT": "0", "PYTHONUTF8": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        """The line it prints when it serves; empty when it could not start."""
        self.url = next((word for word in self.greeting.split() if word.startswith("http://")), "")

    @property
    def token_path(self) -> Path:
        """Where its admin token is."""
        return self.folder / ".ondol" / "admin-token"

    def admin(self) -> dict[str, str]:
        """Return the headers of an administrator of a server without keys."""
        return {"Authorization": f"Bearer {self.token_path.read_text(encoding='ascii').strip()}"}

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 10) -> int:
        """Send a signal if it still runs; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        self._errors.flush()
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        self.stop()
        self._errors.close()
