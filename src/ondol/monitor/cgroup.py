"""adapter: the memory limit and CPU quota of this process's control group and its ancestors, v2, v1 or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CgroupReader", "CpuQuota", "MemoryLevel", "read_text"]

_UNLIMITED_BYTES: Final = 1 << 60  # v1 writes the largest page-aligned integer for "no limit"


def read_text(path: Path) -> str:
    """Return the text of a small system file; empty when there is none: kernels differ in what they show."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


class MemoryLevel(NamedTuple):
    """One limit on memory, and how much of it is used: page cache that can be dropped at once is not counted."""

    limit_bytes: int
    used_bytes: int
    source: str

    @property
    def headroom_bytes(self) -> int:
        """What is left before the limit; below 0 when the limit was lowered under the use."""
        return self.limit_bytes - self.used_bytes


class CpuQuota(NamedTuple):
    """The CPUs that a group may use at most, and where its usage is counted."""

    cpus: float
    usage_path: Path
    is_v2: bool

    def used_s(self) -> float | None:
        """Return the CPU seconds that the group has used."""
        text = read_text(self.usage_path)
        if not self.is_v2:
            return None if not text.strip().isdigit() else int(text) / 1e9
        usage = _field(text, "usage_usec")
        return None if usage is None else usage / 1e6


class CgroupReader:
    """Finds the groups of this process once, then reads their limits anew on each call: they may change any time."""

    def __init__(self, proc_root: Path, cgroup_root: Path) -> None:
        """Read below these folders; nothing is read yet."""
        self._proc_root = proc_root
        self._root = cgroup_root
        self._v2: list[Path] | None = None  # nearest group first, then its ancestors
        self._v1_memory: list[Path] = []
        self._v1_cpu: list[Path] = []
        self._v1_cpuacct: list[Path] = []

    def memory_levels(self) -> list[MemoryLevel]:
        """Return every limit on memory, nearest first; empty when there is none."""
        v2, v1 = self._folders(), self._v1_memory
        levels = [_v2_memory(folder) for folder in v2] + [_v1_memory(folder) for folder in v1]
        if v1:
            levels.append(_hidden_v1_memory(v1[0]))
        return [level for level in levels if level is not None]

    def cpu_quota(self) -> CpuQuota | None:
        """Return the tightest quota, ``None`` when there is none."""
        quotas = [_v2_quota(folder) for folder in self._folders()]
        quotas += [_v1_quota(folder, usage) for folder, usage in zip(self._v1_cpu, self._v1_cpuacct, strict=False)]
        return min((quota for quota in quotas if quota is not None), key=lambda quota: quota.cpus, default=None)

    def _folders(self) -> list[Path]:
        if self._v2 is None:
            self._find()
        return self._v2 or []

    def _find(self) -> None:
        self._v2 = []
        for line in read_text(self._proc_root / "self" / "cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers:
                self._v2 = self._chain(self._v2_mount(), path)
                continue
            for controller, chain in (
                ("memory", self._v1_memory),
                ("cpu", self._v1_cpu),
                ("cpuacct", self._v1_cpuacct),
            ):
                if controller in controllers.split(","):
                    chain[:] = self._chain(self._v1_mount(controller, controllers), path)

    def _v2_mount(self) -> Path:
        return self._root if (self._root / "cgroup.controllers").is_file() else self._root / "unified"

    def _v1_mount(self, controller: str, controllers: str) -> Path:
        return next(
            (p for p in (self._root / controllers, self._root / controller) if p.is_dir()), self._root / controller
        )

    @staticmethod
    def _chain(mount: Path, path: str) -> list[Path]:
        """Return the folder of the group ``path`` and its ancestors up to the mount.

        In a container the path may be the host's while the mount shows the container's own group only: then the
        mount itself is the group.
        """
        if not mount.is_dir():
            return []
        parts = [part for part in path.split("/") if part]
        if ".." in parts or not mount.joinpath(*parts).is_dir():
            parts = []
        return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _number(path: Path) -> int | None:
    text = read_text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


def _v2_memory(folder: Path) -> MemoryLevel | None:
    limit, current = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or current is None:
        return None
    inactive_file = _field(read_text(folder / "memory.stat"), "inactive_file") or 0
    return MemoryLevel(limit, max(0, current - inactive_file), "cgroup v2")


def _v1_memory(folder: Path) -> MemoryLevel | None:
    limit = _number(folder / "memory.limit_in_bytes")
    return None if limit is None else _v1_level(folder, limit)


def _hidden_v1_memory(folder: Path) -> MemoryLevel | None:
    """Return the limit of an ancestor that a container does not see, with our own use as the least of its use."""
    limit = _field(read_text(folder / "memory.stat"), "hierarchical_memory_limit")
    return None if limit is None else _v1_level(folder, limit)


def _v1_level(folder: Path, limit: int) -> MemoryLevel | None:
    usage = _number(folder / "memory.usage_in_bytes")
    if usage is None or not 0 <= limit < _UNLIMITED_BYTES:
        return None
    stat = read_text(folder / "memory.stat")
    inactive_file = _field(stat, "total_inactive_file")
    if inactive_file is None:
        inactive_file = _field(stat, "inactive_file") or 0
    return MemoryLevel(limit, max(0, usage - inactive_file), "cgroup v1")


def _v2_quota(folder: Path) -> CpuQuota | None:
    words = read_text(folder / "cpu.max").split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None
    return CpuQuota(int(words[0]) / int(words[1]), folder / "cpu.stat", is_v2=True)


def _v1_quota(folder: Path, usage_folder: Path) -> CpuQuota | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return CpuQuota(quota / period, usage_folder / "cpuacct.usage", is_v2=False)
