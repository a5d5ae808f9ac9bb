"""adapter: the memory of another process, shared pages counted by share where the system can say so."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ProcessMemory", "read_memory"]

_SELF: Final = Path("/proc/self/smaps_rollup")


class ProcessMemory(NamedTuple):
    """Memory of one process.

    Attributes:
        rss_bytes: all its pages that are in memory, those it shares with others included.
        pss_bytes: the same with each shared page divided by the number of its users, so that processes add up;
            equal to ``rss_bytes`` where the system does not tell (macOS).
    """

    rss_bytes: int
    pss_bytes: int


def read_memory(pid: int) -> ProcessMemory | None:
    """Return the memory of the process, ``None`` when there is none of that number or it may not be seen.

    Cost: the kernel walks the page tables; a millisecond for each few hundred MB. For occasional use.
    """
    if _SELF.exists():
        try:
            return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
        except (OSError, KeyError):
            return None
    return _read_by_psutil(pid)


def parse_rollup(text: str) -> ProcessMemory:
    """Return what a ``smaps_rollup`` file says (it counts in units of 1024 bytes)."""
    sizes = {
        fields[0]: int(fields[1]) * 1024
        for fields in map(str.split, text.splitlines())
        if len(fields) == 3 and fields[2] == "kB"
    }
    return ProcessMemory(sizes["Rss:"], sizes["Pss:"])


def _read_by_psutil(pid: int) -> ProcessMemory | None:
    import psutil  # noqa: PLC0415  # third party; only systems without /proc need it

    try:
        rss_bytes = int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
    return ProcessMemory(rss_bytes, rss_bytes)
