"""The conditions of benchmarks/models*.py: new processes, one core, waiting, percentiles, the memory of a process."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FOLDER", "MB", "environ", "in_new_process", "memory_bytes", "one_core", "percentile", "rss_bytes"]

FOLDER = Path(__file__).resolve().parent
MB = 1_000_000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def environ(**variables: str) -> dict[str, str]:
    """Return the environment of a process that is measured: what the caller has set changes nothing in it."""
    return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **variables}


def in_new_process(script: str, *arguments: object) -> Any:
    """Return what a script of this folder prints as JSON."""
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ())
    return json.loads(result.stdout)


@contextmanager
def one_core() -> Iterator[None]:
    """Let this process and the children it starts meanwhile run on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def percentile(values: Sequence[float], ratio: float) -> float:
    """Return the smallest value that at least ``ratio`` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(ratio * len(values)) - 1)]


def rss_bytes() -> int:
    """Return the resident set of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def memory_bytes(pid: int, file: str, field: str) -> int:
    """Return one field, given in kB, of a process's ``status`` or ``smaps_rollup``."""
    text = Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        message = f"/proc/{pid}/{file} has no {field}"
        raise RuntimeError(message)
    return int(found[1]) * 1024
