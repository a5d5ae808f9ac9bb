"""adapter: how the machine and this process are doing: /proc and control groups first, psutil elsewhere."""

from __future__ import annotations

import importlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.clock import SystemClock
from ondol.monitor.cgroup import CgroupReader, MemoryLevel, read_text
from ondol.units import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock

__all__ = ["HostSample", "HostSampler"]

_CPU_WINDOW_S: Final = 1.0
"""Shortest time to average CPU use over: the kernel counts in steps of 10 ms."""


class HostSample(NamedTuple):
    """One look at the machine. Percentages are 0 to 100 with one decimal."""

    memory_percent: float
    memory_used_bytes: int
    memory_limit_bytes: int
    cpu_percent: float
    allowed_cpus: float
    rss_bytes: int
    open_files: int
    threads: int
    disk_percent: float
    source: str


class _CpuCounters(NamedTuple):
    """CPU time used and available so far, from any fixed point, both in the same unit."""

    at_s: float
    used: float
    available: float
    source: str


class HostSampler:
    """Samples memory, CPU, disk, descriptors and threads.

    ``memory_percent`` is of the limit that would kill the process: of all limits (its control group, that group's
    ancestors, the machine) the one with the least room left. Used memory of a group is without the inactive page
    cache, which the kernel drops before it kills. ``cpu_percent`` is of the CPUs that the process may use: its
    group's quota where that is the tighter bound, else the CPUs it may run on.

    Thread-safety: usable from any thread. Cost: about ten small reads a sample.
    """

    def __init__(
        self,
        *,
        proc_root: str | Path = "/proc",
        cgroup_root: str | Path = "/sys/fs/cgroup",
        disk_path: str | Path = ".",
        clock: Clock | None = None,
        own_cpus: Callable[[], set[int]] | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            proc_root: in place of /proc.
            cgroup_root: in place of /sys/fs/cgroup.
            disk_path: a path on the file system whose filling level is of interest.
            clock: measures the time between two samples.
            own_cpus: gives the numbers of the CPUs this process may run on; by default asks the system.
        """
        self._proc = Path(proc_root)
        self._cgroup = CgroupReader(self._proc, Path(cgroup_root))
        self._disk_path = disk_path
        self._clock = clock if clock is not None else SystemClock()
        self._lock = threading.Lock()
        self._own_cpus = own_cpus if own_cpus is not None else _affinity
        self._cpu_base: _CpuCounters | None = None
        self._cpu_percent = 0.0
        self._psutil_process: Any = None

    def sample(self) -> HostSample:
        """Return how things are now.

        CPU use is averaged over the time since an earlier sample (at least a second); the first sample gives the
        average of this process since it began.
        """
        with self._lock:
            memory = self._memory()
            return HostSample(
                memory_percent=_percent(memory.used_bytes, memory.limit_bytes),
                memory_used_bytes=memory.used_bytes,
                memory_limit_bytes=memory.limit_bytes,
                cpu_percent=self._cpu(),
                allowed_cpus=self.allowed_cpus(),
                rss_bytes=self.rss_bytes(),
                open_files=self._open_files(),
                threads=self._threads(),
                disk_percent=self._disk(),
                source=memory.source,
            )

    def allowed_memory_bytes(self) -> int:
        """Return the smallest of all memory limits: what this process could use if nobody else used any."""
        return min(level.limit_bytes for level in self._memory_levels())

    def allowed_cpus(self) -> float:
        """Return how many CPUs this process may use; a quota of half a CPU is 0.5."""
        quota = self._cgroup.cpu_quota()
        cpus = float(len(self._own_cpus()))
        return cpus if quota is None else min(cpus, quota.cpus)

    def rss_bytes(self) -> int:
        """Return the resident memory of this process."""
        words = read_text(self._proc / "self" / "statm").split()
        if len(words) > 1:
            return int(words[1]) * os.sysconf("SC_PAGE_SIZE")
        return int(self._process().memory_info().rss)

    def _memory(self) -> MemoryLevel:
        # min() keeps the first of equals: the nearest group.
        return min(self._memory_levels(), key=lambda level: level.headroom_bytes)

    def _memory_levels(self) -> list[MemoryLevel]:
        return [*self._cgroup.memory_levels(), self._machine_memory()]

    def _machine_memory(self) -> MemoryLevel:
        sizes = dict(line.split(":", 1) for line in read_text(self._proc / "meminfo").splitlines() if ":" in line)
        if "MemTotal" in sizes and "MemAvailable" in sizes:
            total, available = (int(sizes[key].split()[0]) * KIB for key in ("MemTotal", "MemAvailable"))
            return MemoryLevel(total, total - available, "/proc")
        memory = _psutil().virtual_memory()
        return MemoryLevel(memory.total, memory.total - memory.available, "psutil")

    def _cpu(self) -> float:
        now_s = self._clock.monotonic()
        base = self._cpu_base
        if base is not None and now_s - base.at_s < _CPU_WINDOW_S:
            return self._cpu_percent
        counters = self._cpu_counters(now_s)
        if counters is None:
            self._cpu_percent = self._psutil_cpu()
        elif base is None or base.source != counters.source:
            self._cpu_percent = self._own_cpu_percent()
        else:
            self._cpu_percent = _percent(counters.used - base.used, counters.available - base.available)
        self._cpu_base = counters
        return self._cpu_percent

    def _cpu_counters(self, now_s: float) -> _CpuCounters | None:
        quota = self._cgroup.cpu_quota()
        if quota is not None and quota.cpus < len(self._own_cpus()):
            used_s = quota.used_s()
            if used_s is not None:
                return _CpuCounters(now_s, used_s, now_s * quota.cpus, f"{quota.usage_path} {quota.cpus}")
        return self._machine_cpu_counters(now_s)

    def _machine_cpu_counters(self, now_s: float) -> _CpuCounters | None:
        own = {f"cpu{number}" for number in self._own_cpus()}
        used = available = 0
        for line in read_text(self._proc / "stat").splitlines():
            name, *counts = line.split()
            if not name.startswith("cpu"):
                break  # the CPU lines come first; what follows is long
            if name in own:
                ticks = [int(count) for count in counts[:8]]  # guest time is part of user time already
                available += sum(ticks)
                used += sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for disks
        return _CpuCounters(now_s, used, available, "machine") if available else None

    def _own_cpu_percent(self) -> float:
        fields = self._own_stat()
        uptime = read_text(self._proc / "uptime").split()
        if len(fields) < 20 or not uptime:
            return 0.0
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        alive_s = float(uptime[0]) - int(fields[19]) / ticks_per_s
        return _percent((int(fields[11]) + int(fields[12])) / ticks_per_s, alive_s * self.allowed_cpus())

    def _own_stat(self) -> list[str]:
        """Return the fields of /proc/self/stat after the command, which may hold spaces and brackets."""
        return read_text(self._proc / "self" / "stat").rpartition(")")[2].split()

    def _psutil_cpu(self) -> float:
        return round(float(_psutil().cpu_percent(None)), 1)

    def _threads(self) -> int:
        fields = self._own_stat()
        return int(fields[17]) if len(fields) > 17 else int(self._process().num_threads())

    def _open_files(self) -> int:
        try:
            return len(os.listdir(self._proc / "self" / "fd"))  # noqa: PTH208  # a count needs no Path per descriptor
        except OSError:
            process = self._process()
            count = process.num_fds if hasattr(process, "num_fds") else process.num_handles
            return int(count())

    def _disk(self) -> float:
        try:
            disk = os.statvfs(self._disk_path)
        except (OSError, AttributeError):
            return self._psutil_disk()
        used = disk.f_blocks - disk.f_bfree
        return _percent(used, used + disk.f_bavail)  # as df counts: what is kept for root is not available

    def _psutil_disk(self) -> float:
        try:
            return round(float(_psutil().disk_usage(str(self._disk_path)).percent), 1)
        except OSError:
            return 0.0

    def _process(self) -> Any:
        if self._psutil_process is None:
            self._psutil_process = _psutil().Process()
        return self._psutil_process


def _psutil() -> Any:
    # Imported by name: only where /proc is not to be read, and without stubs for it.
    return importlib.import_module("psutil")


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100.0 * part / whole)), 1) if whole > 0 else 0.0
