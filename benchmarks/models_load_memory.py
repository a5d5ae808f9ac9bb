"""What benchmarks/models_load.py sees of the server's memory: five samples a second, and the kernel's own peak."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models_conditions import memory_bytes

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["EVERY_S", "MemorySampler", "Sample"]

EVERY_S = 0.2
_CGROUP_FILES = ("/sys/fs/cgroup{}/memory.current", "/sys/fs/cgroup/memory{}/memory.usage_in_bytes")


class Sample(NamedTuple):
    """The memory of a process at a moment; ``cgroup_bytes`` counts all of its group, files in the page cache too."""

    at_s: float
    rss_bytes: int
    pss_bytes: int | None
    cgroup_bytes: int | None


class MemorySampler:
    """Samples a process in a thread between ``with`` and its end."""

    def __init__(self, pid: int) -> None:
        """Sample the process ``pid``."""
        self._pid = pid
        self._cgroup = _cgroup_file(pid)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def sample(self) -> Sample:
        """Take one sample."""
        pss_bytes = cgroup_bytes = None
        with suppress(OSError, RuntimeError):
            pss_bytes = memory_bytes(self._pid, "smaps_rollup", "Pss")
        if self._cgroup is not None:
            with suppress(OSError):
                cgroup_bytes = int(self._cgroup.read_text(encoding="ascii"))
        return Sample(time.monotonic(), memory_bytes(self._pid, "status", "VmRSS"), pss_bytes, cgroup_bytes)

    def reset_peak(self) -> None:
        """Let the kernel forget the largest resident set so far."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_bytes(self) -> int:
        """Return the largest resident set since the reset: nothing between two samples escapes it."""
        return memory_bytes(self._pid, "status", "VmHWM")

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._is_over.wait(max(0.0, next_s - time.monotonic())):
            self.samples.append(self.sample())
            next_s += EVERY_S

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self._is_over.set()
        self._thread.join()


def _cgroup_file(pid: int) -> Path | None:
    """Return the file that holds the memory of the process's cgroup, where it can be seen."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            pattern = _CGROUP_FILES[0] if not controllers else _CGROUP_FILES[1]
            if not controllers or "memory" in controllers.split(","):
                for candidate in (Path(pattern.format(path)), Path(pattern.format(""))):
                    if candidate.is_file():
                        return candidate
    return None
