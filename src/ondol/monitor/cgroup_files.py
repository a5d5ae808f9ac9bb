"""adapter: the files of one control group that tell of memory and CPU, v2 and v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.monitor.kernel_text import field, number
from ondol.monitor.proc_files import KeptFile

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CpuCounters", "CpuGroup", "MemoryGroup"]

_UNLIMITED_BYTES: Final = 1 << 60  # v1 writes the largest page-aligned integer for "no limit"


class CpuCounters(NamedTuple):
    """What a group has used so far, and in how many quota periods it had to wait; periods are 0 without a quota."""

    used_s: float
    periods: int
    throttled: int


class MemoryGroup:
    """The memory of one group: its limits are read elsewhere, its use here."""

    __slots__ = ("_current", "_stat", "high", "is_v2", "limit", "source")

    def __init__(self, folder: Path, *, is_v2: bool) -> None:
        """Open nothing yet."""
        self.is_v2 = is_v2
        self.source = "cgroup v2" if is_v2 else "cgroup v1"
        self.limit = folder / ("memory.max" if is_v2 else "memory.limit_in_bytes")
        """The file of the limit at which the kernel kills."""
        self.high = folder / "memory.high"
        """The file of the limit at which it slows down; v1 has none."""
        self._current = KeptFile(folder / ("memory.current" if is_v2 else "memory.usage_in_bytes"), 256, is_told=True)
        self._stat = KeptFile(folder / "memory.stat", is_told=True)

    @staticmethod
    def limit_bytes(text: bytes) -> int | None:
        """Return the limit that a limit's file tells, ``None`` for none."""
        limit = number(text)
        return limit if limit is not None and 0 <= limit < _UNLIMITED_BYTES else None

    def hidden_limit_bytes(self) -> int | None:
        """Return the tightest limit of this v1 group and all its ancestors, those included that are not shown."""
        limit = field(self._stat.read(), b"hierarchical_memory_limit")
        return limit if limit is not None and limit < _UNLIMITED_BYTES else None

    def current_bytes(self) -> int | None:
        """Return what is used, page cache included."""
        return number(self._current.read())

    def inactive_file_bytes(self) -> int:
        """Return the page cache that the kernel drops first, of this group and all below it."""
        text = self._stat.read()
        inactive = None if self.is_v2 else field(text, b"total_inactive_file")
        return inactive if inactive is not None else field(text, b"inactive_file") or 0

    def files(self) -> tuple[KeptFile, ...]:
        """Return the files that are kept open."""
        return self._current, self._stat


class CpuGroup:
    """The CPU time of one group: its quota is read elsewhere, its use here.

    In v1 quota and usage may be counted in two hierarchies.
    """

    __slots__ = ("_stat", "_usage", "is_v2", "name", "period", "quota")

    def __init__(self, folder: Path, usage_folder: Path | None = None) -> None:
        """Open nothing yet; ``usage_folder`` is of v1."""
        self.name = str(folder)
        self.is_v2 = usage_folder is None
        self.quota = folder / ("cpu.max" if self.is_v2 else "cpu.cfs_quota_us")
        """The file of the quota; v2 has the period in it too."""
        self.period = folder / "cpu.cfs_period_us"
        self._stat = KeptFile(folder / "cpu.stat", 1024, is_told=True)
        self._usage = None if usage_folder is None else KeptFile(usage_folder / "cpuacct.usage", 256, is_told=True)

    def quota_cpus(self, quota_text: bytes, period_text: bytes) -> float | None:
        """Return how many CPUs the quota's files allow, ``None`` for no bound; v1 writes -1 for that."""
        if self.is_v2:
            quota_text, _, period_text = quota_text.partition(b" ")
        quota_us, period_us = number(quota_text), number(period_text)
        if quota_us is None or period_us is None or quota_us <= 0 or period_us <= 0:
            return None
        return quota_us / period_us

    def counters(self) -> CpuCounters | None:
        """Return what was used so far, ``None`` when it is not counted."""
        text = self._stat.read()
        if self._usage is None:
            used, per_s = field(text, b"usage_usec"), 1e6
        else:
            used, per_s = number(self._usage.read()), 1e9
        if used is None:
            return None
        return CpuCounters(used / per_s, field(text, b"nr_periods") or 0, field(text, b"nr_throttled") or 0)

    def files(self) -> tuple[KeptFile, ...]:
        """Return the files that are kept open."""
        return (self._stat,) if self._usage is None else (self._stat, self._usage)
