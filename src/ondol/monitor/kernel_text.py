"""decision: single figures out of what the kernel prints in /proc and /sys; ``None`` for what is not there."""

from __future__ import annotations

import re
from typing import Final

from ondol.units import KIB

__all__ = [
    "all_ticks",
    "field",
    "meminfo",
    "number",
    "own_times",
    "pressure_percent",
    "processor_count",
    "share_percent",
    "ticks_of",
]

_MEMINFO: Final = re.compile(rb"^MemTotal:\s*(\d+) kB$.*?^MemAvailable:\s*(\d+) kB$", re.MULTILINE | re.DOTALL)
_PRESSURE_START: Final = b"some avg10="
_NO_PRESSURE: Final = b"some avg10=0.00 "
_MOST: Final = (1 << 64) - 1  # the kernel has no longer numbers
_ALL_PROCESSORS: Final = b"cpu "


def number(text: bytes) -> int | None:
    """Return the only number of a file; ``None`` for "max", an empty text and anything else."""
    if not text or text[:3] == b"max":
        return None
    return _whole(text)


def field(text: bytes, name: bytes) -> int | None:
    """Return the number after ``name`` in lines of "name number"."""
    key = name + b" "
    if text.startswith(key):
        at = 0
    else:
        at = text.find(b"\n" + key) + 1
        if at == 0:
            return None
    end = text.find(b"\n", at)
    return _whole(text[at + len(key) : end if end >= 0 else len(text)])


def meminfo(text: bytes) -> tuple[int, int] | None:
    """Return the total and the available bytes of the machine."""
    words = text.split(None, 8)
    if len(words) == 9 and words[0] == b"MemTotal:" and words[6] == b"MemAvailable:":  # as all kernels have it today
        total, available = words[1], words[7]
    else:
        found = _MEMINFO.search(text)
        if found is None:
            return None
        total, available = found.groups()
    try:
        return int(total) * KIB, int(available) * KIB
    except ValueError:
        return None


def pressure_percent(text: bytes) -> float | None:
    """Return the share of the last ten seconds in which somebody waited ("some avg10"), 0 to 100."""
    if text.startswith(_NO_PRESSURE):
        return 0.0
    if not text.startswith(_PRESSURE_START):
        return None
    try:
        percent = float(text[len(_PRESSURE_START) : text.find(b" ", len(_PRESSURE_START))])
    except ValueError:
        return None
    return percent if 0.0 <= percent <= 100.0 else None


def own_times(stat: bytes) -> list[bytes]:
    """Return the fields of /proc/self/stat after the command, which may hold spaces and brackets."""
    return stat[stat.rfind(b")") + 1 :].split(None, 22)


def processor_count(stat: bytes) -> int:
    """Return how many CPUs /proc/stat has a line of, if it has one of their sum: that comes first."""
    return stat.count(b"\ncpu") if stat.startswith(_ALL_PROCESSORS) else 0


def all_ticks(stat: bytes) -> tuple[int, int]:
    """Return the used and the available ticks of all CPUs, of the first line of /proc/stat; both 0 without it."""
    return _ticks(stat[: stat.find(b"\n")]) if stat.startswith(_ALL_PROCESSORS) else (0, 0)


def ticks_of(stat: bytes, cpus: set[int]) -> tuple[int, int]:
    """Return the used and the available ticks of ``cpus`` in /proc/stat; both 0 when it tells nothing of them."""
    names = {b"cpu%d" % cpu for cpu in cpus}
    used = available = 0
    for line in stat.splitlines():
        if not line.startswith(b"cpu"):
            break  # the CPU lines come first; what follows is long
        if line[: line.find(b" ")] in names:
            more_used, more_available = _ticks(line)
            used += more_used
            available += more_available
    return used, available


def _whole(text: bytes) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return None
    return value if -_MOST <= value <= _MOST else None


def _ticks(line: bytes) -> tuple[int, int]:
    try:
        # The guest time that follows is part of the user time already.
        user, nice, system, idle, disk_wait, irq, soft_irq, steal = map(int, line.split(None, 9)[1:9])
    except ValueError:
        return 0, 0
    used = user + nice + system + irq + soft_irq + steal
    return used, used + idle + disk_wait


def share_percent(part: float, whole: float) -> float:
    """Return ``part`` of ``whole`` in percent, 0 to 100, one decimal; 0 of nothing is 0, anything more is all."""
    if whole <= 0:
        return 100.0 if part > 0 else 0.0
    percent = 100.0 * part / whole
    if percent >= 100.0:
        return 100.0
    return round(percent, 1) if percent > 0.0 else 0.0
