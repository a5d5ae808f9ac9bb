"""adapter: how the machine and this process are doing: /proc and control groups first, psutil elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.clock import SystemClock
from ondol.monitor.cgroup import MACHINE_USAGE, CgroupReader, MemoryLevel
from ondol.monitor.host_cpu import CpuMeter, own_cpus
from ondol.monitor.kernel_text import meminfo, own_times, pressure_percent, share_percent
from ondol.monitor.other_systems import OtherSystem
from ondol.monitor.pressure import SeldomPressures, pressure_files
from ondol.monitor.proc_files import KeptFile, OpenFiles

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock

__all__ = ["HostSample", "HostSampler"]

_REFRESH_S: Final = 30.0
"""How often that is looked at which changes slowly: the disk, the own group's path, the CPUs, the limit of files."""

_REFRESHES_A_LOOK: Final = 20
"""Every so many refreshes files are looked for that did not exist: opening one in vain costs as much as three reads."""

_THREADS: Final = 17  # places in /proc/self/stat, counted after the command
_RSS: Final = 21

_samplers: weakref.WeakSet[HostSampler] = weakref.WeakSet()


class HostSample(NamedTuple):
    """One look at the machine. Percentages are 0 to 100; ``None`` stands for what this system does not tell."""

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
    memory_high_bytes: int | None = None
    memory_high_percent: float | None = None
    memory_pressure_percent: float | None = None
    cpu_pressure_percent: float | None = None
    io_pressure_percent: float | None = None
    cpu_throttled_percent: float | None = None
    file_descriptor_limit: int | None = None
    open_files_percent: float | None = None


class HostSampler:
    """Samples memory, CPU, disk, descriptors and threads.

    - ``memory_percent`` is of the limit that would kill the process: of all limits (its control group, that group's
      ancestors, the machine) the one with the least room left. Used memory of a group is without the inactive page
      cache, which the kernel drops before it kills. ``memory_high_…`` is the same of the limits of v2 groups that
      slow the process down.
    - ``cpu_percent`` is of the CPUs that the process may use: its group's quota where that is the tighter bound, else
      the CPUs it may run on. ``cpu_throttled_percent`` is the share of the quota's periods in which the group had to
      wait since an earlier sample.
    - ``…_pressure_percent`` is the share of the last ten seconds in which a task waited for memory, a CPU or a disk:
      a task of the own v2 group where the kernel counts that, else any task of the machine.

    The first sample opens the files, which stay open until ``close``. A fork is noticed: the child opens its own.

    Thread-safety: usable from any thread. Cost: about 15 reads of open files, some 50 µs on Linux.
    """

    def __init__(
        self,
        *,
        proc_root: str | Path = "/proc",
        cgroup_root: str | Path = "/sys/fs/cgroup",
        disk_path: str | Path = ".",
        clock: Clock | None = None,
        own_cpus: Callable[[], set[int]] = own_cpus,
    ) -> None:
        """Read nothing yet.

        Args:
            proc_root: in place of /proc; the mount points that its ``self/mountinfo`` names are taken below its parent.
            cgroup_root: in place of /sys/fs/cgroup, where the hierarchies are when mountinfo does not tell.
            disk_path: a path on the file system whose filling level is of interest.
            clock: measures the time between two samples.
            own_cpus: gives the numbers of the CPUs this process may run on; by default asks the system.
        """
        proc = Path(proc_root)
        self._other = OtherSystem()
        self._waits = SeldomPressures()
        self._cgroup = CgroupReader(proc, Path(cgroup_root), partial(_files_beside, proc, self._waits))
        self._cpu = CpuMeter(proc, self._other)
        self._statm = KeptFile(proc / "self" / "statm", 256)
        self._open_files = OpenFiles(proc / "self" / "fd")
        self._disk_path = str(disk_path)
        self._clock = clock if clock is not None else SystemClock()
        self._own_cpus = own_cpus
        self._lock = threading.Lock()
        self._is_kept = False
        self._refreshed_at_s = -inf
        self._refreshes = 0
        self._disk_percent = 0.0
        self._cpus: set[int] = set()
        self._most_files: int | None = None
        _samplers.add(self)

    def sample(self) -> HostSample:
        """Return how things are now.

        CPU use is averaged over the time since an earlier sample (at least a second); the first sample gives the
        average of this process since it began. Every 30 seconds that is looked at which seldom changes: the disk, the
        CPUs that this process may run on, the limit of descriptors, and which group the process is in.
        """
        with self._lock:
            self._is_kept = True
            return self._sample()

    def allowed_memory_bytes(self) -> int:
        """Return the smallest of all memory limits: what this process could use if nobody else used any."""
        with self._lock:
            machine = self._machine_memory(self._cgroup.read().get("meminfo", b""))
            limit_bytes = min([*self._cgroup.limits_bytes(), machine.limit_bytes])
            self._close_unless_kept()
            return limit_bytes

    def allowed_cpus(self) -> float:
        """Return how many CPUs this process may use; a quota of half a CPU is 0.5."""
        with self._lock:
            self._cgroup.read()
            quota = self._cgroup.quota
            self._close_unless_kept()
        cpus = float(len(self._own_cpus()))
        return cpus if quota is None else min(cpus, quota.cpus)

    def rss_bytes(self) -> int:
        """Return the resident memory of this process."""
        with self._lock:
            words = self._statm.read().split(None, 2)
            self._close_unless_kept()
        if len(words) > 1 and words[1].isdigit():
            return int(words[1]) * _PAGE_BYTES
        return self._other.rss_bytes()

    def close(self) -> None:
        """Give all descriptors back; the next sample opens the files again."""
        with self._lock:
            self._is_kept = False
            self._close()

    def _sample(self) -> HostSample:
        now_s = self._clock.monotonic()
        if now_s - self._refreshed_at_s >= _REFRESH_S:
            self._refresh(now_s)
        # First all that is read each time, in a row: after each call of the system the interpreter is slower.
        text_of = self._cgroup.read().get
        open_files = self._open_files.count()
        waits = self._waits.read(now_s)
        quota, group = self._cgroup.quota, self._cgroup.quota_counters()
        cpu_percent, throttled_percent = self._cpu.measure(now_s, self._cpus, quota, group, text_of(MACHINE_USAGE, b""))
        memory, high = self._cgroup.memory_state(self._machine_memory(text_of("meminfo", b"")))
        own_stat = own_times(text_of("self", b""))
        rss_bytes, threads = self._rss_and_threads(own_stat)
        if open_files is None:
            open_files = self._other.open_files()
        cpus = len(self._cpus)
        return HostSample(
            share_percent(memory.used_bytes, memory.limit_bytes),
            memory.used_bytes,
            memory.limit_bytes,
            cpu_percent,
            float(cpus if quota is None else min(cpus, quota.cpus)),
            rss_bytes,
            open_files,
            threads,
            self._disk_percent,
            memory.source,
            None if high is None else high.limit_bytes,
            None if high is None else share_percent(high.used_bytes, high.limit_bytes),
            pressure_percent(text_of("memory", b"")),
            waits.get("cpu"),
            waits.get("io"),
            throttled_percent,
            self._most_files,
            None if self._most_files is None else share_percent(open_files, self._most_files),
        )

    def _machine_memory(self, text: bytes) -> MemoryLevel:
        sizes = meminfo(text)
        total, available = sizes if sizes is not None else self._other.memory_bytes()
        return MemoryLevel(total, total - available, "psutil" if sizes is None else "/proc")

    def _rss_and_threads(self, own_stat: list[bytes]) -> tuple[int, int]:
        try:
            return int(own_stat[_RSS]) * _PAGE_BYTES, int(own_stat[_THREADS])
        except (ValueError, IndexError):
            return self._other.rss_bytes(), self._other.threads()

    def _refresh(self, now_s: float) -> None:
        self._refreshed_at_s = now_s
        self._cpus = self._own_cpus()
        self._most_files = _file_descriptor_limit()
        self._cgroup.refresh()
        self._refreshes += 1
        if self._refreshes % _REFRESHES_A_LOOK == 0:
            for part in (self._cgroup, self._cpu, self._statm, self._waits):
                part.forget_missing()
        try:
            disk = os.statvfs(self._disk_path)
        except (OSError, AttributeError):
            self._disk_percent = self._other.disk_percent(self._disk_path)
            return
        used = disk.f_blocks - disk.f_bfree
        # as df counts: what is kept for root is not available
        self._disk_percent = share_percent(used, used + disk.f_bavail)

    def _close_unless_kept(self) -> None:
        if not self._is_kept:
            self._close()

    def _close(self) -> None:
        for part in (self._cgroup, self._cpu, self._statm, self._waits, self._open_files):
            part.close()

    def _forked(self) -> None:
        """Forget what was the parent's: /proc/self is the process that opened it; its lock may be held for ever."""
        self._lock = threading.Lock()
        self._refreshed_at_s = -inf
        self._close()


def _files_beside(proc: Path, waits: SeldomPressures, own_group: Path | None) -> list[tuple[str, list[Path]]]:
    """Return what is read beside the limits each time; what is read less often is put apart."""
    memory, *others = pressure_files(proc, own_group)
    waits.look_at(others)
    return [("meminfo", [proc / "meminfo"]), ("self", [proc / "self" / "stat"]), memory]


def _file_descriptor_limit() -> int | None:
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _after_fork_in_child() -> None:
    for sampler in list(_samplers):
        sampler._forked()  # noqa: SLF001


_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
