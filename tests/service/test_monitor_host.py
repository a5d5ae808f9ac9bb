from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ondol.monitor import other_systems
from ondol.monitor.host import HostSampler
from ondol.units import GIB, MIB
from tests.service.host_trees.machine import PAGE_BYTES, V1_UNLIMITED, Machine, write


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_control_group_the_machine_is_the_limit(machine: Machine) -> None:
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.source) == (50.0, "/proc")
    assert sample.memory_limit_bytes == 16 * GIB
    assert sample.rss_bytes == 2560 * PAGE_BYTES
    assert (sample.threads, sample.open_files, sample.allowed_cpus) == (7, 5, 2.0)
    assert 0 <= sample.disk_percent <= 100


def test_v2_memory_is_of_the_groups_limit_without_inactive_files(machine: Machine) -> None:
    machine.groups("0::/app.slice/web\n")
    machine.v2(
        "app.slice/web",
        memory_max=f"{512 * MIB}\n",
        memory_current=f"{400 * MIB}\n",
        memory_stat=f"anon 1\nfile 2\ninactive_anon 9\ninactive_file {144 * MIB}\nactive_file 3\n",
    )
    machine.v2("app.slice", memory_max="max\n", memory_current=f"{900 * MIB}\n")
    sampler = machine.sampler()
    sample = sampler.sample()
    assert (sample.memory_percent, sample.source) == (50.0, "cgroup v2")
    assert (sample.memory_used_bytes, sample.memory_limit_bytes) == (256 * MIB, 512 * MIB)
    assert sampler.allowed_memory_bytes() == 512 * MIB


def test_an_ancestor_with_less_room_is_the_limit(machine: Machine) -> None:
    machine.groups("0::/pod/web\n")
    machine.v2("pod/web", memory_max=f"{1024 * MIB}\n", memory_current=f"{100 * MIB}\n")
    machine.v2("pod", memory_max=f"{2048 * MIB}\n", memory_current=f"{1946 * MIB}\n")
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.memory_limit_bytes) == (95.0, 2048 * MIB)
    assert machine.sampler().allowed_memory_bytes() == 1024 * MIB


def test_an_unlimited_group_leaves_the_machine_as_the_limit(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_max="max\n", memory_current=f"{100 * MIB}\n", cpu_max="max 100000\n")
    sample = machine.sampler().sample()
    assert (sample.source, sample.memory_limit_bytes, sample.allowed_cpus) == ("/proc", 16 * GIB, 2.0)


def test_a_container_that_is_shown_the_hosts_path(machine: Machine) -> None:
    machine.groups("0::/system.slice/docker-0f3.scope\n")
    machine.v2("", memory_max=f"{256 * MIB}\n", memory_current=f"{64 * MIB}\n")
    assert machine.sampler().sample().memory_percent == 25.0


@pytest.mark.parametrize("path", ["/", "/../../other"])
def test_a_container_with_a_namespace_of_its_own(machine: Machine, path: str) -> None:
    machine.groups(f"0::{path}\n")
    machine.v2("", memory_max=f"{256 * MIB}\n", memory_current=f"{64 * MIB}\n")
    assert machine.sampler().sample().memory_limit_bytes == 256 * MIB


def test_a_limit_that_changes_is_seen_at_the_next_sample(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_max=f"{512 * MIB}\n", memory_current=f"{256 * MIB}\n")
    sampler = machine.sampler()
    assert sampler.sample().memory_percent == 50.0
    machine.v2("web", memory_max=f"{1024 * MIB}\n")
    assert sampler.sample().memory_percent == 25.0


def test_use_above_a_lowered_limit_is_all_of_it(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", memory_max=f"{100 * MIB}\n", memory_current=f"{256 * MIB}\n")
    assert machine.sampler().sample().memory_percent == 100.0


def test_v1_memory_and_quota(machine: Machine) -> None:
    machine.groups("5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n")
    memory = machine.cgroup / "memory" / "docker" / "abc"
    write(memory / "memory.limit_in_bytes", f"{512 * MIB}\n")
    write(memory / "memory.usage_in_bytes", f"{400 * MIB}\n")
    write(
        memory / "memory.stat",
        f"inactive_file 1\nhierarchical_memory_limit {512 * MIB}\ntotal_inactive_file {16 * MIB}\n",
    )
    write(machine.cgroup / "memory" / "memory.limit_in_bytes", V1_UNLIMITED)
    write(machine.cgroup / "memory" / "memory.usage_in_bytes", f"{900 * MIB}\n")
    cpu = machine.cgroup / "cpu,cpuacct" / "docker" / "abc"
    write(cpu / "cpu.cfs_quota_us", "50000\n")
    write(cpu / "cpu.cfs_period_us", "100000\n")
    write(cpu / "cpuacct.usage", f"{10 * 10**9}\n")
    sampler = machine.sampler()
    sample = sampler.sample()
    assert (sample.memory_percent, sample.source, sample.allowed_cpus) == (75.0, "cgroup v1", 0.5)
    machine.clock.advance(4.0)
    write(cpu / "cpuacct.usage", f"{11 * 10**9}\n")
    assert sampler.sample().cpu_percent == 50.0  # 1 s of the 2 s that half a CPU has in 4 s


def test_v1_limit_of_an_ancestor_that_is_not_shown(machine: Machine) -> None:
    machine.groups("5:memory:/docker/abc\n")
    memory = machine.cgroup / "memory"
    write(memory / "memory.limit_in_bytes", V1_UNLIMITED)
    write(memory / "memory.usage_in_bytes", f"{96 * MIB}\n")
    write(memory / "memory.stat", f"hierarchical_memory_limit {128 * MIB}\ntotal_inactive_file 0\n")
    assert machine.sampler().sample().memory_percent == 75.0


def test_hybrid_reads_memory_from_v1_and_survives_an_empty_v2(machine: Machine) -> None:
    machine.groups("4:memory:/web\n0::/web\n")
    write(machine.cgroup / "unified" / "cgroup.controllers", "\n")
    write(machine.cgroup / "memory" / "web" / "memory.limit_in_bytes", f"{200 * MIB}\n")
    write(machine.cgroup / "memory" / "web" / "memory.usage_in_bytes", f"{50 * MIB}\n")
    sample = machine.sampler().sample()
    assert (sample.memory_percent, sample.source) == (25.0, "cgroup v1")


def test_v2_cpu_is_of_the_quota(machine: Machine) -> None:
    machine.groups("0::/pod/web\n")
    machine.v2("pod/web", cpu_max="max 100000\n", cpu_stat="usage_usec 1\n")
    machine.v2("pod", cpu_max="50000 100000\n", cpu_stat="usage_usec 5000000\nuser_usec 1\n")
    sampler = machine.sampler()
    assert sampler.sample().allowed_cpus == 0.5
    machine.clock.advance(10.0)
    machine.v2("pod", cpu_stat="usage_usec 9000000\n")
    assert sampler.sample().cpu_percent == 80.0


def test_a_quota_beyond_the_cpus_is_no_bound(machine: Machine) -> None:
    machine.groups("0::/web\n")
    machine.v2("web", cpu_max="800000 100000\n", cpu_stat="usage_usec 5\n")
    sampler = machine.sampler()
    assert sampler.sample().allowed_cpus == 2.0
    machine.clock.advance(5.0)
    machine.busy(130, 170)
    assert sampler.sample().cpu_percent == 30.0


def test_machine_cpu_between_samples_and_not_within_a_second(machine: Machine) -> None:
    sampler = machine.sampler()
    assert sampler.sample().cpu_percent == 25.0  # this process: 50 of 100 s on 2 CPUs
    machine.clock.advance(5.0)
    machine.busy(500, 700)
    assert sampler.sample().cpu_percent == 40.0
    machine.clock.advance(0.5)
    machine.busy(10_500, 700)
    assert sampler.sample().cpu_percent == 40.0
    machine.clock.advance(0.6)
    assert sampler.sample().cpu_percent == 100.0


def test_elsewhere_psutil_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = SimpleNamespace(
        pid=os.getpid(),
        memory_info=lambda: SimpleNamespace(rss=5 * MIB),
        num_fds=lambda: 11,
        num_threads=lambda: 3,
    )
    fake = SimpleNamespace(
        virtual_memory=lambda: SimpleNamespace(total=4 * GIB, available=3 * GIB),
        cpu_percent=lambda _interval: 12.34,
        Process=lambda: process,
    )
    monkeypatch.setattr(other_systems, "_psutil", lambda: fake)
    sample = HostSampler(proc_root=tmp_path / "none", cgroup_root=tmp_path / "none").sample()
    assert (sample.memory_percent, sample.source, sample.cpu_percent) == (25.0, "psutil", 12.3)
    assert (sample.rss_bytes, sample.open_files, sample.threads) == (5 * MIB, 11, 3)


def test_psutil_itself_answers_what_is_asked(tmp_path: Path) -> None:
    sample = HostSampler(proc_root=tmp_path / "none", cgroup_root=tmp_path / "none").sample()
    assert sample.source == "psutil"
    assert 0 < sample.memory_percent <= 100
    assert sample.rss_bytes > MIB
    assert sample.open_files >= 3
    assert sample.threads >= 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
def test_the_real_machine_is_read_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> object:
        raise AssertionError("psutil was asked")

    monkeypatch.setattr(other_systems, "_psutil", refuse)
    sampler = HostSampler()
    sample = sampler.sample()
    assert 0 < sample.memory_percent <= 100
    assert 0 <= sample.cpu_percent <= 100
    assert sample.rss_bytes > MIB
    assert sampler.allowed_memory_bytes() >= sample.memory_used_bytes
    assert sampler.allowed_cpus() > 0
