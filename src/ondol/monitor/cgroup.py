"""adapter: the memory limit and CPU quota of this process's control group and its ancestors, v2, v1 or both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.monitor.cgroup_files import CpuGroup, MemoryGroup
from ondol.monitor.cgroup_mounts import UNIFIED, memberships, mounts_of, path_below
from ondol.monitor.proc_files import FileLostError, KeptFile, KeptRow, read_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ondol.monitor.cgroup_files import CpuCounters

    Beside = Callable[[Path | None], list[tuple[str, list[Path]]]]

__all__ = ["MACHINE_USAGE", "CgroupReader", "CpuQuota", "MemoryLevel", "MemoryState"]

MACHINE_USAGE: Final = "machine usage"
"""The key of the v2 root's cpu.stat: the CPU time that all have used, far cheaper to read than /proc/stat."""

_LOOK_UPS: Final = 3  # groups may be removed while they are looked up


class MemoryLevel(NamedTuple):
    """One limit on memory, and how much of it is used: page cache that can be dropped at once is not counted."""

    limit_bytes: int
    used_bytes: int
    source: str

    @property
    def headroom_bytes(self) -> int:
        """What is left before the limit; below 0 when the limit was lowered under the use."""
        return self.limit_bytes - self.used_bytes


class MemoryState(NamedTuple):
    """The limit with the least room left: the one that kills, and the one that slows down (``memory.high``)."""

    limit: MemoryLevel
    high: MemoryLevel | None


class CpuQuota(NamedTuple):
    """The CPUs that a group may use at most, and the group, which counts its usage."""

    cpus: float
    group: CpuGroup


class _Bound(NamedTuple):
    """A group with a limit on memory."""

    group: MemoryGroup
    max_bytes: int | None
    high_bytes: int | None


class CgroupReader:
    """Finds the groups of this process, then reads their limits anew on each call: they may change any time.

    The groups are looked up again when a file of theirs is gone, and by ``refresh`` when the process was moved. Not
    thread-safe.
    """

    def __init__(self, proc_root: Path, cgroup_root: Path, beside: Beside | None = None) -> None:
        """Read nothing yet.

        Args:
            proc_root: in place of /proc; the mount points that it names are taken below the folder that it is in.
            cgroup_root: where the hierarchies are when ``proc_root`` does not tell.
            beside: gives, for the folder of the own v2 group, further files to be read in one go with the limits:
                calls of the system one after the other cost less than the same with work in between.
        """
        self._beside = beside
        self._proc_root = proc_root
        self._cgroup_root = cgroup_root
        self._membership_file = KeptFile(proc_root / "self" / "cgroup")
        self._membership: bytes | None = None
        self._memory: list[MemoryGroup] = []  # nearest group first, then its ancestors
        self._cpu: list[CpuGroup] = []
        self._hiding: MemoryGroup | None = None  # the own v1 group if some of its ancestors are not shown
        self._row: KeptRow[str | tuple[str, int]] = KeptRow(())  # all limits, then what is read beside
        self._limit_texts: list[bytes] | None = None  # what was read of the limits last
        self._row_keys: list[str | tuple[str, int]] | None = None
        self._limit_keys: list[str | tuple[str, int]] = []
        self._bounds: list[_Bound] = []
        self._quota: CpuQuota | None = None

    def read(self) -> dict[str | tuple[str, int], bytes]:
        """Read the limits, to be asked for after it; return what was read beside them, by its key."""
        for _ in range(_LOOK_UPS):
            if self._membership is None:
                self._find()
            try:
                texts = self._row.read()
            except FileLostError:
                self.close()
                continue
            keys = self._row.keys
            if keys is not self._row_keys:  # other files than before
                self._row_keys, self._limit_texts = keys, None
                self._limit_keys = [key for key in keys if type(key) is tuple]
            limit_texts = texts[: len(self._limit_keys)]
            if limit_texts != self._limit_texts:
                self._take_limits(limit_texts)
            return dict(zip(keys, texts, strict=False))
        return {}

    @property
    def quota(self) -> CpuQuota | None:
        """The tightest quota, ``None`` when there is none."""
        return self._quota

    def limits_bytes(self) -> list[int]:
        """Return every limit on memory that kills; empty when there is none."""
        return [bound.max_bytes for bound in self._all_bounds() if bound.max_bytes is not None]

    def memory_state(self, machine: MemoryLevel) -> MemoryState:
        """Return the limits with the least room left: of the groups and of the machine."""
        if not self._bounds and self._hiding is None:
            return MemoryState(machine, None)
        for _ in range(_LOOK_UPS):
            try:
                return self._tightest_memory(machine)
            except FileLostError:
                self.close()
                self.read()
        return MemoryState(machine, None)

    def quota_counters(self) -> CpuCounters | None:
        """Return what the group with the tightest quota has used, ``None`` without a quota."""
        if self._quota is None:
            return None
        try:
            return self._quota.group.counters()
        except FileLostError:
            self.close()
            return None

    def refresh(self) -> None:
        """See whether the process was moved to another group: to be called now and then."""
        if self._membership is not None and self._membership_file.read() != self._membership:
            self.close()

    def forget_missing(self) -> None:
        """Look again for files that did not exist: a controller may be switched on for the group later."""
        self._row.forget_missing()
        for file in self._files():
            file.forget_missing()

    def close(self) -> None:
        """Give all descriptors back; the next call looks the groups up anew."""
        self._row.close()
        for file in self._files():
            file.close()
        self._membership = None

    def _files(self) -> list[KeptFile]:
        groups: list[MemoryGroup | CpuGroup] = [*self._memory, *self._cpu]
        return [self._membership_file, *(file for group in groups for file in group.files())]

    def _take_limits(self, texts: list[bytes]) -> None:
        self._limit_texts = texts
        of = dict(zip(self._limit_keys, texts, strict=False))
        bounds = []
        for index, group in enumerate(self._memory):
            limits = (group.limit_bytes(of.get((kind, index), b"")) for kind in ("max", "high"))
            bounds.append(_Bound(group, *limits))
        self._bounds = [bound for bound in bounds if bound.max_bytes is not None or bound.high_bytes is not None]
        quotas = [
            CpuQuota(cpus, group)
            for index, group in enumerate(self._cpu)
            if (cpus := group.quota_cpus(of.get(("quota", index), b""), of.get(("period", index), b""))) is not None
        ]
        self._quota = min(quotas, key=lambda quota: quota.cpus, default=None)

    def _all_bounds(self) -> list[_Bound]:
        if self._hiding is None:
            return self._bounds
        try:
            hidden_bytes = self._hiding.hidden_limit_bytes()
        except FileLostError:
            return self._bounds
        return self._bounds if hidden_bytes is None else [*self._bounds, _Bound(self._hiding, hidden_bytes, None)]

    def _tightest_memory(self, machine: MemoryLevel) -> MemoryState:
        limit, high = machine, None
        for group, max_bytes, high_bytes in reversed(self._all_bounds()):  # of equals the nearest, which comes last
            current_bytes = group.current_bytes()
            if current_bytes is None:
                continue
            # The statistics are by far the longest file: they are read only where they can matter. Page cache only
            # adds to the room, so a group with more room than another even without counting it is not the tightest.
            if high_bytes is None and max_bytes is not None and max_bytes - current_bytes > limit.headroom_bytes:
                continue
            used_bytes = max(0, current_bytes - group.inactive_file_bytes())
            if max_bytes is not None and max_bytes - used_bytes <= limit.headroom_bytes:
                limit = MemoryLevel(max_bytes, used_bytes, group.source)
            if high_bytes is not None and (high is None or high_bytes - used_bytes <= high.headroom_bytes):
                high = MemoryLevel(high_bytes, used_bytes, group.source)
        return MemoryState(limit, high)

    # --- looking up ---

    def _find(self) -> None:
        self._membership = self._membership_file.read()
        paths = memberships(self._membership.decode("utf-8", errors="surrogateescape"))
        mountinfo = read_once(self._proc_root / "self" / "mountinfo").decode("utf-8", errors="surrogateescape")
        v2, memory, cpu, cpuacct = (
            self._chain(mountinfo, controller, *paths[controller]) if controller in paths else []
            for controller in (UNIFIED, "memory", "cpu", "cpuacct")
        )
        shown = [*_below_true_root(memory)]
        self._memory = [MemoryGroup(folder, is_v2=True) for folder in v2]
        self._memory += [MemoryGroup(folder, is_v2=False) for folder in shown]
        self._hiding = self._memory[len(v2)] if shown and len(shown) == len(memory) else None
        self._cpu = [CpuGroup(folder) for folder in v2]
        self._cpu += [CpuGroup(*folders) for folders in zip(_below_true_root(cpu), cpuacct, strict=False)]
        beside = [] if self._beside is None else self._beside(v2[0] if v2 else None)
        if v2 and not _is_there(v2[-1] / "cgroup.events"):  # all but the true root have it
            beside.append((MACHINE_USAGE, [v2[-1] / "cpu.stat"]))
        self._row = KeptRow([*self._limit_files(), *beside], size_bytes=480, is_told=True)

    def _limit_files(self) -> Iterator[tuple[tuple[str, int], Sequence[Path]]]:
        for index, group in enumerate(self._memory):
            yield ("max", index), (group.limit,)
            if group.is_v2:
                yield ("high", index), (group.high,)
        for index, cpu in enumerate(self._cpu):
            yield ("quota", index), (cpu.quota,)
            if not cpu.is_v2:
                yield ("period", index), (cpu.period,)

    def _chain(self, mountinfo: str, controller: str, path: str, controllers: str) -> list[Path]:
        """Return the folder of the group ``path`` and its ancestors up to the mount.

        In a container the path may be the host's while the mount shows the container's own group only: then the
        mount itself is the group.
        """
        mounts = [(self._place(mount.point), mount.root) for mount in mounts_of(mountinfo, controller)]
        mounts.append((self._usual_mount(controller, controllers), "/"))
        mounts = [(point, root) for point, root in mounts if _is_folder(point)]
        for point, root in mounts:
            steps = path_below(path, root)
            if steps is not None and _is_folder(point.joinpath(*steps)):
                return [point.joinpath(*steps[:depth]) for depth in range(len(steps), -1, -1)]
        return [point for point, _ in mounts[:1]]

    def _place(self, mount_point: str) -> Path:
        return self._proc_root.parent / mount_point.lstrip("/")

    def _usual_mount(self, controller: str, controllers: str) -> Path:
        root = self._cgroup_root
        if controller == UNIFIED:
            return root if _is_there(root / "cgroup.controllers") else root / "unified"
        return next((p for p in (root / controllers, root / controller) if _is_folder(p)), root / controller)


def _below_true_root(chain: list[Path]) -> list[Path]:
    """Return the v1 groups that can have a limit: all but the true root, the only one with this file."""
    return chain[:-1] if chain and _is_there(chain[-1] / "release_agent") else chain


# Unlike the methods of Path these answer "no" where looking is forbidden.


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110
