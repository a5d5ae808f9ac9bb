"""A recorded /proc and /sys, built in a folder: what a kernel prints, for systems that this machine is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ondol.monitor.host import HostSampler
from ondol.testing import FakeClock
from ondol.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
V1_UNLIMITED = "9223372036854771712\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Machine:
    """16 GiB of which 8 are available, 2 CPUs, no control group until it is given one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        self.clock = FakeClock(1000.0)
        write(self.proc / "meminfo", f"MemTotal: {16 * 1024**2} kB\nMemFree: 1 kB\nMemAvailable: {8 * 1024**2} kB\n")
        write(self.proc / "uptime", "1000.00 1500.00\n")
        write(self.proc / "self" / "statm", "9000 2560 700 5 0 123 0\n")
        # the command holds what a naive split stumbles over; started 900 s after boot, used 30 + 20 s of CPU
        numbers = ["0"] * 50
        numbers[0] = "S"
        numbers[11], numbers[12] = str(30 * TICKS_PER_S), str(20 * TICKS_PER_S)
        numbers[17], numbers[19], numbers[21] = "7", str(900 * TICKS_PER_S), "2560"
        write(self.proc / "self" / "stat", f"4242 (my (odd) name) {' '.join(numbers)}\n")
        for number in range(5):
            write(self.proc / "self" / "fd" / str(number), "")
        self.busy(100, 100)

    def busy(self, used: int, idle: int) -> None:
        half = f"{used // 2} 0 0 {idle // 2} 0 0 0 0 0 0"
        write(self.proc / "stat", f"cpu  {used} 0 0 {idle} 0 0 0 0 0 0\ncpu0 {half}\ncpu1 {half}\nintr 5 5 5\n")

    def groups(self, text: str) -> None:
        write(self.proc / "self" / "cgroup", text)

    def mounts(self, *lines: str) -> None:
        """Say where things are mounted; each line is "root point type options"."""
        rows = ["22 27 0:21 / /proc rw,relatime - proc proc rw"]
        for number, line in enumerate(lines):
            root, point, kind, options = line.split(" ")
            rows.append(
                f"{30 + number} 1 0:{30 + number} {root} {point} rw,relatime shared:9 - {kind} {kind} {options}"
            )
        write(self.proc / "self" / "mountinfo", "\n".join(rows) + "\n")

    def v2(self, path: str, **files: str) -> None:
        self.cgroup.mkdir(exist_ok=True)
        write(self.cgroup / "cgroup.controllers", "cpu memory\n")
        write_group(self.cgroup / path, **files)

    def pressure(self, **percents: float) -> None:
        for name, percent in percents.items():
            write(self.proc / "pressure" / name, pressure_text(percent))

    def sampler(self) -> HostSampler:
        return HostSampler(proc_root=self.proc, cgroup_root=self.cgroup, clock=self.clock, own_cpus=lambda: {0, 1})


def write_group(folder: Path, **files: str) -> None:
    """Write a v2 group's files; the first ``_`` of a name stands for the dot."""
    for name, text in files.items():
        write(folder / name.replace("_", ".", 1), text)


def write_v1_memory(folder: Path, limit_mib: int, used_mib: int, *, inactive_mib: int = 0) -> None:
    write(folder / "memory.limit_in_bytes", f"{limit_mib * MIB}\n")
    write(folder / "memory.usage_in_bytes", f"{used_mib * MIB}\n")
    write(folder / "memory.stat", f"cache 5\ntotal_inactive_file {inactive_mib * MIB}\n")


def pressure_text(percent: float) -> str:
    return (
        f"some avg10={percent:.2f} avg60=1.00 avg300=0.50 total=123\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=7\n"
    )
