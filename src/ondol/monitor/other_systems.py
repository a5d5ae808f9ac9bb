"""adapter: psutil's answers, for systems without /proc."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["OtherSystem"]


class OtherSystem:
    """Asks psutil, which is imported by the first question."""

    def __init__(self) -> None:
        self._process: Any = None

    def memory_bytes(self) -> tuple[int, int]:
        """Return the machine's total and available memory."""
        memory = _psutil().virtual_memory()
        return int(memory.total), int(memory.available)

    def cpu_percent(self) -> float:
        """Return the machine's CPU use since the last call; the first call gives 0."""
        return round(float(_psutil().cpu_percent(None)), 1)

    def rss_bytes(self) -> int:
        """Return the resident memory of this process."""
        return int(self._own().memory_info().rss)

    def threads(self) -> int:
        """Return how many threads this process has."""
        return int(self._own().num_threads())

    def open_files(self) -> int:
        """Return how many descriptors (handles on Windows) this process has."""
        process = self._own()
        return int((process.num_fds if hasattr(process, "num_fds") else process.num_handles)())

    def disk_percent(self, path: str) -> float:
        """Return how full the file system of ``path`` is."""
        try:
            return round(float(_psutil().disk_usage(path).percent), 1)
        except OSError:
            return 0.0

    def _own(self) -> Any:
        if self._process is None or self._process.pid != os.getpid():  # another one after a fork
            self._process = _psutil().Process()
        return self._process


def _psutil() -> Any:
    # Imported by name: only where /proc is not to be read, and without stubs for it.
    return importlib.import_module("psutil")
