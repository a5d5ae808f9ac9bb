"""Recorded trees: where groups are mounted, what slows a process down, and files that lie or vanish."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ondol.units import GIB, MIB
from tests.service.host_trees.machine import Machine, pressure_text, write, write_group, write_v1_memory


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- where the groups are ---


def test_v2_is_found_where_it_is_mounted(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.mounts("/ /mnt/my\\040groups cgroup2 rw,nsdelegate")
    folder = machine.root / "mnt" / "my groups" / "web"
    write_group(folder, memory_max=f"{512 * MIB}\n", memory_current=f"{128 * MIB}\n")
    assert machine.sampler().sample().memory_percent == 25.0


def test_v1_controllers_are_found_where_they_are_mounted(machine: Machine) -> None:
    machine.groups("5:memory:/web\n3:cpu,cpuacct:/web\n")
    machine.mounts("/ /dev/mem cgroup rw,memory", "/ /dev/processor cgroup rw,cpu,cpuacct")
    write_v1_memory(machine.root / "dev" / "mem" / "web", 512, 128)
    cpu = machine.root / "dev" / "processor" / "web"
    write(cpu / "cpu.cfs_quota_us", "150000\n")
    write(cpu / "cpu.cfs_period_us", "100000\n")
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.source, sample.allowed_cpus) == (25.0, "cgroup v1", 1.5)


@pytest.mark.parametrize(("path", "place"), [("/docker/abc", ""), ("/docker/abc/worker", "worker")])
def test_a_mount_that_begins_at_the_containers_group(machine: Machine, path: str, place: str) -> None:
    machine.groups(f"5:memory:{path}\n")
    machine.mounts("/docker/abc /sys/fs/cgroup/memory cgroup rw,memory")
    write_v1_memory(machine.root / "sys" / "fs" / "cgroup" / "memory" / place, 400, 100)
    assert machine.sampler().sample().memory_limit_bytes == 400 * MIB


def test_a_sibling_with_a_longer_name_is_not_below_the_mounts_root(machine: Machine) -> None:
    machine.groups("5:memory:/docker/abcdef\n")
    machine.mounts("/docker/abc /one cgroup rw,memory", "/docker/abcdef /two cgroup rw,memory")
    write_v1_memory(machine.root / "one", 100, 50)
    write_v1_memory(machine.root / "two", 200, 50)
    assert machine.sampler().sample().memory_limit_bytes == 200 * MIB


def test_of_two_mounts_the_one_that_shows_more_ancestors_is_taken(machine: Machine) -> None:
    machine.groups("0::/pod/web\n")
    machine.mounts("/pod/web /sys/fs/cgroup cgroup2 rw", "/ /host/cgroup cgroup2 rw")
    write_group(machine.root / "sys" / "fs" / "cgroup", memory_max=f"{4 * GIB}\n", memory_current="0\n")
    write_group(machine.root / "host" / "cgroup" / "pod" / "web", memory_max=f"{4 * GIB}\n", memory_current="0\n")
    write_group(machine.root / "host" / "cgroup" / "pod", memory_max=f"{GIB}\n", memory_current=f"{768 * MIB}\n")
    sample = machine.sampler().sample()
    assert (sample.memory_limit_bytes, sample.memory_percent) == (GIB, 75.0)


def test_a_mount_point_that_is_not_to_be_seen_is_passed_over(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.mounts("/ /gone cgroup2 rw")
    machine.v2("web", memory_max=f"{256 * MIB}\n", memory_current=f"{64 * MIB}\n")
    assert machine.sampler().sample().memory_percent == 25.0


def test_hybrid_by_mountinfo_reads_memory_from_v1_and_pressure_from_v2(machine: Machine) -> None:
    machine.groups("4:memory:/web\n1:name=systemd:/x\n0::/web\n")
    machine.mounts("/ /cg/memory cgroup rw,memory", "/ /cg/systemd cgroup rw,name=systemd", "/ /cg/unified cgroup2 rw")
    write_v1_memory(machine.root / "cg" / "memory" / "web", 200, 50)
    write(machine.root / "cg" / "unified" / "web" / "memory.pressure", pressure_text(12.5))
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.source, sample.memory_pressure_percent) == (25.0, "cgroup v1", 12.5)


def test_a_process_that_is_moved_is_followed(machine: Machine) -> None:
    machine.groups("0::/a\n")
    machine.v2("a", memory_max=f"{512 * MIB}\n", memory_current=f"{128 * MIB}\n")
    machine.v2("b", memory_max=f"{256 * MIB}\n", memory_current=f"{128 * MIB}\n")
    sampler = machine.sampler()
    assert sampler.sample().memory_percent == 25.0
    machine.groups("0::/b\n")
    machine.clock.advance(30.0)
    assert sampler.sample().memory_percent == 50.0


def test_the_true_root_of_v1_is_not_asked_for_limits_that_nobody_sees(machine: Machine) -> None:
    machine.groups("5:memory:/web\n")
    top = machine.cgroup / "memory"
    write(top / "release_agent", "\n")
    write_v1_memory(top / "web", 512, 128)
    # were it asked, this would be the tightest
    write(top / "web" / "memory.stat", f"hierarchical_memory_limit {129 * MIB}\ntotal_inactive_file 0\n")
    assert machine.sampler().sample().memory_limit_bytes == 512 * MIB


def test_a_controller_that_is_switched_on_later_is_seen_in_the_end(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", cpu_max="max 100000\n")
    sampler = machine.sampler()
    assert sampler.sample().source == "/proc"
    machine.v2("web", memory_max=f"{512 * MIB}\n", memory_current=f"{128 * MIB}\n")
    machine.pressure(cpu=4.0)
    for _ in range(20):
        machine.clock.advance(30.0)
        sample = sampler.sample()
    assert (sample.memory_percent, sample.cpu_pressure_percent) == (25.0, 4.0)


# --- memory.high ---


def test_memory_high_of_the_group_with_the_least_room(machine: Machine) -> None:
    machine.groups("0::/pod/web\n")
    machine.v2("pod/web", memory_high=f"{400 * MIB}\n", memory_max="max\n", memory_current=f"{100 * MIB}\n")
    machine.v2(
        "pod",
        memory_high=f"{800 * MIB}\n",
        memory_max=f"{1024 * MIB}\n",
        memory_current=f"{700 * MIB}\n",
        memory_stat=f"anon 1\ninactive_file {100 * MIB}\n",
    )
    sample = machine.sampler().sample()
    assert (sample.memory_high_bytes, sample.memory_high_percent) == (800 * MIB, 75.0)
    assert (sample.memory_limit_bytes, sample.memory_percent) == (1024 * MIB, 58.6)


def test_memory_high_alone_is_no_limit_that_kills(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_high=f"{200 * MIB}\n", memory_max="max\n", memory_current=f"{100 * MIB}\n")
    sample = machine.sampler().sample()
    assert (sample.source, sample.memory_high_percent) == ("/proc", 50.0)
    machine.v2("web", memory_high="max\n")
    assert machine.sampler().sample().memory_high_bytes is None


def test_a_limit_of_nothing_is_all_used(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_max="0\n", memory_high="0\n", memory_current=f"{MIB}\n")
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.memory_high_percent, sample.memory_limit_bytes) == (100.0, 100.0, 0)


# --- pressure ---


def test_pressure_is_the_own_groups_where_it_is_counted_and_the_machines_elsewhere(machine: Machine) -> None:
    machine.pressure(memory=1.0, cpu=2.0, io=3.25)
    machine.groups("0::/web\n")
    machine.v2("web", memory_pressure=pressure_text(40.0), cpu_pressure=pressure_text(0.0))
    sample = machine.sampler().sample()
    assert sample.memory_pressure_percent == 40.0
    assert sample.cpu_pressure_percent == 0.0
    assert sample.io_pressure_percent == 3.25


def test_without_pressure_in_the_kernel_there_is_none(machine: Machine) -> None:
    sample = machine.sampler().sample()
    assert sample.memory_pressure_percent is None
    assert sample.cpu_pressure_percent is None
    assert sample.io_pressure_percent is None


@pytest.mark.parametrize("text", ["", "some\n", "some avg10=nan avg60=0", "some avg10=-1.0 x", "some avg10=x y", "\0"])
def test_pressure_that_makes_no_sense_is_none(machine: Machine, text: str) -> None:
    write(machine.proc / "pressure" / "memory", text)
    machine.pressure(cpu=5.0)
    sample = machine.sampler().sample()
    assert (sample.memory_pressure_percent, sample.cpu_pressure_percent) == (None, 5.0)


# --- throttling ---


def test_the_share_of_periods_that_were_throttled_since_the_last_sample(machine: Machine) -> None:
    machine.groups("0::/pod/web\n")
    machine.v2("pod/web", cpu_max="max 100000\n", cpu_stat="usage_usec 1\nnr_periods 0\nnr_throttled 0\n")
    machine.v2("pod", cpu_max="50000 100000\n", cpu_stat="usage_usec 5\nnr_periods 1000\nnr_throttled 900\n")
    sampler = machine.sampler()
    assert sampler.sample().cpu_throttled_percent is None  # nothing to compare with
    machine.clock.advance(5.0)
    machine.v2("pod", cpu_stat="usage_usec 9\nnr_periods 1040\nnr_throttled 910\n")
    assert sampler.sample().cpu_throttled_percent == 25.0
    machine.clock.advance(5.0)
    assert sampler.sample().cpu_throttled_percent == 0.0  # idle: no period went by


def test_v1_throttling_also_under_a_quota_beyond_our_cpus(machine: Machine) -> None:
    machine.groups("3:cpu,cpuacct:/web\n")
    cpu = machine.cgroup / "cpu,cpuacct" / "web"
    write(cpu / "cpu.cfs_quota_us", "400000\n")
    write(cpu / "cpu.cfs_period_us", "100000\n")
    write(cpu / "cpuacct.usage", "5\n")
    write(cpu / "cpu.stat", "nr_periods 10\nnr_throttled 5\nthrottled_time 9\n")
    sampler = machine.sampler()
    sampler.sample()
    machine.clock.advance(5.0)
    machine.busy(130, 170)
    write(cpu / "cpu.stat", "nr_periods 20\nnr_throttled 10\nthrottled_time 9\n")
    sample = sampler.sample()
    assert (sample.cpu_throttled_percent, sample.allowed_cpus, sample.cpu_percent) == (50.0, 2.0, 30.0)


def test_without_a_quota_nothing_is_throttled(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", cpu_max="max 100000\n", cpu_stat="usage_usec 1\nnr_periods 9\nnr_throttled 9\n")
    sampler = machine.sampler()
    sampler.sample()
    machine.clock.advance(5.0)
    assert sampler.sample().cpu_throttled_percent is None


def test_machine_cpu_from_the_root_groups_usage(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", cpu_max="max 100000\n")
    machine.v2("", cpu_stat="usage_usec 1000000\n")
    sampler = machine.sampler()
    sampler.sample()
    machine.clock.advance(10.0)
    machine.v2("", cpu_stat="usage_usec 6000000\n")
    assert sampler.sample().cpu_percent == 25.0  # 5 of the 20 seconds that two CPUs have in 10


def test_a_groups_usage_is_not_taken_for_the_machines(machine: Machine) -> None:
    machine.groups("0::/\n")
    machine.v2("", cgroup_events="populated 1\n", cpu_stat="usage_usec 0\n")  # a container's own group
    sampler = machine.sampler()
    sampler.sample()
    machine.clock.advance(10.0)
    machine.busy(500, 700)
    assert sampler.sample().cpu_percent == 40.0


# --- garbage and vanishing ---

GARBAGE = ["", "\n", "max", "-5\n", "9" * 400, "\0\0", "zwölf\n", "1 2 3 4\n"]


@pytest.mark.parametrize("text", GARBAGE)
@pytest.mark.parametrize("is_v2", [True, False])
def test_garbage_in_a_groups_files_is_no_limit_and_no_error(machine: Machine, text: str, is_v2: bool) -> None:
    machine.groups("0::/web\n" if is_v2 else "5:memory:/web\n3:cpu,cpuacct:/web\n")
    names = (
        ("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max", "cpu.stat")
        if is_v2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    machine.v2("")
    for name in names:
        folder = machine.cgroup if is_v2 else machine.cgroup / ("memory" if name[0] == "m" else "cpu,cpuacct")
        write(folder / "web" / name, text)
    sampler = machine.sampler()
    for _ in range(2):
        sample = sampler.sample()
        assert (sample.source, sample.allowed_cpus, sample.cpu_throttled_percent) == ("/proc", 2.0, None)
        machine.clock.advance(5.0)


@pytest.mark.parametrize("text", ["", "\0\n", "0::\n", "::::\n", "no colons\n0:memory\n", "0::/../..\n"])
def test_garbage_in_the_list_of_groups_and_mounts(machine: Machine, text: str) -> None:
    machine.groups(text)
    write(machine.proc / "self" / "mountinfo", f"{text}1 2 3 - \n - cgroup2\n1 2 0:3 / /a rw - cgroup2\n")
    assert machine.sampler().sample().source == "/proc"


@pytest.mark.parametrize("name", ["meminfo", "stat", "self/stat", "uptime"])
def test_machine_files_of_another_make_do_not_stop_the_sample(machine: Machine, name: str) -> None:
    write(machine.proc / name, "Mem: a lot\ncpu one two\n")
    sampler = machine.sampler()
    sampler.sample()
    machine.clock.advance(5.0)
    sample = sampler.sample()
    assert 0 <= sample.memory_percent <= 100
    assert 0 <= sample.cpu_percent <= 100
    assert sample.threads >= 1


def test_a_group_that_is_removed_under_us_is_looked_up_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.groups("0::/pod/web\n")
    limits = {"memory_max": f"{512 * MIB}\n", "cpu_max": "50000 100000\n", "cpu_stat": "usage_usec 5\n"}
    machine.v2("pod/web", memory_current=f"{128 * MIB}\n", **limits)
    machine.v2("pod", memory_max=f"{1024 * MIB}\n", memory_current=f"{512 * MIB}\n")
    sampler = machine.sampler()
    sample = sampler.sample()
    assert (sample.memory_percent, sample.allowed_cpus) == (25.0, 0.5)

    _vanish(machine.cgroup / "pod" / "web", monkeypatch)
    machine.groups("0::/pod\n")
    machine.clock.advance(5.0)
    sample = sampler.sample()
    assert (sample.memory_percent, sample.allowed_cpus) == (50.0, 2.0)


@pytest.mark.parametrize("name", ["memory.current", "memory.stat", "cpu.stat"])
def test_a_file_that_vanishes_in_the_midst_of_a_sample(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_max=f"{512 * MIB}\n", memory_current=f"{128 * MIB}\n", memory_stat="inactive_file 0\n")
    machine.v2("web", cpu_max="50000 100000\n", cpu_stat="usage_usec 5\n")
    sampler = machine.sampler()
    assert sampler.sample().memory_percent == 25.0
    _vanish(machine.cgroup / "web" / name, monkeypatch)
    for _ in range(2):
        machine.clock.advance(5.0)
        sample = sampler.sample()
        assert sample.memory_percent == (50.0 if name == "memory.current" else 25.0)


def _vanish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a file or folder; as in a real hierarchy descriptors into it are of no more use."""
    pread = os.pread

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(str(path)):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
