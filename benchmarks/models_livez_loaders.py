"""The loaders of benchmarks/models_livez.py: each makes it as hard as it can for the rest of its process."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["KINDS", "hold_in_c", "loop_in_python", "use_the_disk"]

_BLOCK = os.urandom(1 << 20)
_STEPS = 20_000


def loop_in_python(seconds: float, _folder: str) -> object:
    """Run bytecode for so many CPU seconds, as parsers and tokenizers written in Python do."""
    total = 0
    while time.thread_time() < seconds:
        for number in range(_STEPS):
            total += number * number
    return total


def hold_in_c(seconds: float, _folder: str) -> object:
    """Hold the GIL in single calls of C that last about as long as asked for, as extensions that never let go do."""
    begun_s = time.thread_time()
    sum(range(1_000_000))
    numbers = int(1_000_000 * seconds / max(1e-4, time.thread_time() - begun_s))
    return sum(range(numbers))


def use_the_disk(seconds: float, folder: str) -> object:
    """Write files, wait until they are on the disk, and read them back from there, for so many seconds."""
    begun_s = time.monotonic()
    path = Path(folder) / f"weights-{time.monotonic_ns()}"
    count = 0
    while time.monotonic() - begun_s < seconds:
        with path.open("wb") as file:
            for _ in range(32):
                file.write(_BLOCK)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        count += len(path.read_bytes())
    path.unlink()
    return count


KINDS = {"python": loop_in_python, "c": hold_in_c, "disk": use_the_disk}
