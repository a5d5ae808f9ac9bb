"""adapter: how much of the CPU time that this process may use is used, and how often its quota makes it wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.monitor.kernel_text import all_ticks, field, own_times, processor_count, share_percent, ticks_of
from ondol.monitor.proc_files import KeptFile, read_once

if TYPE_CHECKING:
    from pathlib import Path

    from ondol.monitor.cgroup import CpuQuota
    from ondol.monitor.cgroup_files import CpuCounters
    from ondol.monitor.other_systems import OtherSystem

    # When, the CPU time used and available until then (both in one unit, from any fixed point), and whose.
    _Counters = tuple[float, float, float, str]

__all__ = ["CpuMeter", "CpuUse", "own_cpus"]

_WINDOW_S: Final = 1.0
"""Shortest time to average CPU use over: the kernel counts in steps of 10 ms."""


class CpuUse(NamedTuple):
    """Percentages since an earlier look; the second is ``None`` without a quota, and at the first look."""

    percent: float
    throttled_percent: float | None


class _Periods(NamedTuple):
    """The periods of a group's quota so far, and those in which it had to wait."""

    group: str
    all: int
    throttled: int


class CpuMeter:
    """Compares counters between two looks that are at least a second apart. Not thread-safe."""

    def __init__(self, proc_root: Path, other: OtherSystem) -> None:
        """Open nothing yet."""
        self._proc_root = proc_root
        self._other = other
        self._stat = KeptFile(proc_root / "stat", 8192)
        self._stat_head = KeptFile(proc_root / "stat", 256, is_head=True)
        self._processors = -1  # how many the machine has; negative when that is to be counted
        self._base: _Counters | None = None
        self._base_periods: _Periods | None = None
        self._use = CpuUse(0.0, None)

    def measure(
        self,
        now_s: float,
        cpus: set[int],
        quota: CpuQuota | None,
        group: CpuCounters | None,
        machine_text: bytes,
    ) -> CpuUse:
        """Return the use since the last look, of the quota where that is the tighter bound, else of ``cpus``.

        The first look gives the average of this process since it began.

        Args:
            now_s: monotonic.
            cpus: the CPUs that this process may run on.
            quota: of the group that allows the least.
            group: what that group has used.
            machine_text: cpu.stat of the root of v2, empty where that is not shown.
        """
        base = self._base
        if base is not None and now_s - base[0] < _WINDOW_S:
            return self._use
        counters = self._group_counters(now_s, cpus, quota, group) or self._machine_counters(now_s, cpus, machine_text)
        if counters is None:
            percent = self._other.cpu_percent()
        elif base is None or base[3] != counters[3]:
            allowed = len(cpus) if quota is None else min(len(cpus), quota.cpus)
            percent = self._since_start_percent(allowed)
        else:
            percent = share_percent(counters[1] - base[1], counters[2] - base[2])
        self._base = counters
        self._use = CpuUse(percent, self._throttled_percent(quota, group))
        return self._use

    def forget_missing(self) -> None:
        """Look again for the file if it did not exist, and count the machine's CPUs again: some may come or go."""
        self._stat.forget_missing()
        self._stat_head.forget_missing()
        self._processors = -1

    def close(self) -> None:
        """Give the descriptors back."""
        self._stat.close()
        self._stat_head.close()

    @staticmethod
    def _group_counters(
        now_s: float, cpus: set[int], quota: CpuQuota | None, group: CpuCounters | None
    ) -> _Counters | None:
        if quota is None or group is None or quota.cpus >= len(cpus):
            return None
        return now_s, group.used_s, now_s * quota.cpus, f"{quota.group.name} {quota.cpus}"

    def _machine_counters(self, now_s: float, cpus: set[int], machine_text: bytes) -> _Counters | None:
        if self._processors < 0:
            self._processors = processor_count(read_once(self._proc_root / "stat"))
        if len(cpus) != self._processors:
            used, available = ticks_of(self._stat.read(), cpus)
            return (now_s, used, available, "some CPUs") if available else None
        # All CPUs are ours: their sum will do.
        used_us = field(machine_text, b"usage_usec")
        if used_us is not None:
            return now_s, used_us, now_s * self._processors * 1e6, "all CPUs of cpu.stat"
        used, available = all_ticks(self._stat_head.read())
        return (now_s, used, available, "all CPUs") if available else None

    def _throttled_percent(self, quota: CpuQuota | None, group: CpuCounters | None) -> float | None:
        base, self._base_periods = self._base_periods, None
        if quota is None or group is None:
            return None
        periods = self._base_periods = _Periods(quota.group.name, group.periods, group.throttled)
        if base is None or base.group != periods.group:
            return None
        return share_percent(periods.throttled - base.throttled, periods.all - base.all)

    def _since_start_percent(self, allowed_cpus: float) -> float:
        own_stat = own_times(read_once(self._proc_root / "self" / "stat"))
        try:
            up_s = float(read_once(self._proc_root / "uptime").split()[0])
            started_ticks, used_ticks = int(own_stat[19]), int(own_stat[11]) + int(own_stat[12])
        except (ValueError, IndexError):
            return 0.0
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        alive_s = up_s - started_ticks / ticks_per_s
        return share_percent(used_ticks / ticks_per_s, alive_s * allowed_cpus) if alive_s > 0 else 0.0


def own_cpus() -> set[int]:
    """Return the numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
