"""The part of benchmarks/monitor.py about health: what does one look at the machine and the process cost?

    python benchmarks/monitor_health.py [--json] [--quick]

One sample of ours beside the calls of psutil for the same figures, in turns on one core, in CPU time, the kernel's
part included. The sampler's clock goes on by five seconds from sample to sample, so that nothing of an earlier one is
reused.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from cache_speed_timing import ROUNDS, taken_in_turn
from harness import Figure, package, run_alone
from monitor_recording import always

from ondol.monitor.host import HostSampler
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["rows"]

COUNT = 200
EVERY_S = 5.0
TARGET_US = 60.0


def ours() -> Callable[[], object]:
    """Return one sample of ours."""
    clock = FakeClock()
    # This process is bound to one core for the measurement only; a server is not, and then one total tells its CPU use.
    sampler = HostSampler(clock=clock, own_cpus=lambda: set(range(os.cpu_count() or 1)))

    def sample() -> object:
        clock.advance(EVERY_S)
        return sampler.sample()

    return sample


def theirs() -> Callable[[], object]:
    """Return the calls of psutil for the same figures."""
    process = psutil.Process()

    def sample() -> object:
        return (
            psutil.virtual_memory(),
            psutil.cpu_percent(None),
            process.memory_info(),
            process.num_fds(),
            process.num_threads(),
            psutil.disk_usage("."),
        )

    return sample


def repeated(sample: Callable[[], object]) -> Callable[[], object]:
    """Return work that takes ``COUNT`` samples."""

    def work() -> None:
        for _ in range(COUNT):
            sample()

    return work


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the cost of a sample."""
    del is_quick  # it takes a second
    works = {"ours": repeated(ours()), "psutil": repeated(theirs())}
    times = taken_in_turn([always(label, COUNT, work) for label, work in works.items()])
    opened = Path("/proc/self/fd")
    files = len(list(opened.iterdir())) if opened.is_dir() else 0
    conditions = (
        f"median of {ROUNDS} rounds in turn of {COUNT} samples, one core, CPU time; {os.cpu_count()} cores, "
        f"{files} open files"
    )
    peer = package("psutil")
    yield Figure("one health sample", times.of("ours") / 1e3, "µs", TARGET_US, conditions=conditions)
    yield Figure("one health sample, psutil", times.of("psutil") / 1e3, "µs", peer=peer, conditions=conditions)
    yield Figure(
        "one health sample, psutil / ours",
        times.ratio("psutil", "ours"),
        "x",
        better="higher",
        peer=peer,
        conditions=f"{conditions}; psutil knows no cgroup, quota or PSI",
    )


if __name__ == "__main__":
    sys.exit(run_alone("one health sample beside psutil", rows))
