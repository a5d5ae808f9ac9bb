"""The health source: what is recorded, what is left out, and the garbage collector's pauses."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from ondol.monitor.gc_pauses import GcPauses
from ondol.monitor.health import HealthSource
from ondol.monitor.host import HostSample, HostSampler
from ondol.testing import FakeClock
from ondol.units import MIB
from tests.service.host_trees.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ticking:
    """A clock on which each reading is a second later than the last."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return float(self.readings)


@pytest.fixture
def quiet_collector() -> Iterator[None]:
    """No collection but those that a test asks for."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("quiet_collector")
def test_pauses_are_counted_between_start_and_stop_only() -> None:
    before, pauses = list(gc.callbacks), GcPauses(Ticking())
    gc.collect()
    assert pauses.take() == (0, 0.0, 0.0)
    pauses.start()
    pauses.start()
    gc.collect()
    gc.collect()
    assert pauses.longest_s == 1.0
    assert pauses.take() == (2, 2.0, 1.0)
    assert pauses.take() == (0, 0.0, 0.0)
    pauses.stop()
    pauses.stop()
    gc.collect()
    assert pauses.take() == (0, 0.0, 0.0)
    assert gc.callbacks == before


@pytest.mark.usefixtures("quiet_collector")
def test_a_collection_that_had_begun_before_the_start_is_not_counted() -> None:
    pauses = GcPauses(Ticking())
    pauses._note("stop", {})
    assert pauses.take() == (0, 0.0, 0.0)


@pytest.mark.usefixtures("quiet_collector")
def test_the_longest_pause_is_a_metric_and_part_of_the_health(tmp_path: Path) -> None:
    now = Ticking()
    machine, pauses = Machine(tmp_path), GcPauses(now)
    source = HealthSource(machine.sampler(), machine.clock, pauses)
    source.start()
    try:
        gc.collect()
        assert source.read()["gc_pause_seconds"] == 1.0  # not yet recorded
        assert ("process.gc_pause_seconds", 1.0, "seconds") in source.sample_metrics()
        assert source.read()["gc_pause_seconds"] == 1.0
        assert ("process.gc_pause_seconds", 0.0, "seconds") in source.sample_metrics()
        assert source.read()["gc_pause_seconds"] == 0.0
    finally:
        source.stop()
    gc.collect()
    assert source.read()["gc_pause_seconds"] == 0.0


def test_what_the_system_does_not_tell_is_left_out_of_the_metrics(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    source = HealthSource(machine.sampler(), machine.clock)
    source.start()
    names = {name for name, _, _ in source.sample_metrics()}
    assert {"system.memory_percent", "process.open_files_percent", "process.loop_lag_seconds"} <= names
    assert names.isdisjoint(
        {
            "system.memory_pressure_percent",
            "system.cpu_throttled_percent",
            "system.memory_high_percent",
            "process.gc_pause_seconds",
        }
    )
    health = source.read()
    assert health["memory_pressure_percent"] is None
    assert health["gc_pause_seconds"] is None
    source.stop()


def test_what_the_system_tells_is_recorded(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.pressure(memory=1.5, cpu=2.5, io=3.5)
    machine.groups("0::/web\n")
    machine.v2("web", memory_high=f"{100 * MIB}\n", memory_current=f"{50 * MIB}\n")
    machine.v2("web", cpu_max="50000 100000\n", cpu_stat="usage_usec 0\nnr_periods 1\nnr_throttled 0\n")
    source = HealthSource(machine.sampler(), machine.clock)
    source.sample_metrics()
    machine.v2("web", cpu_stat="usage_usec 9\nnr_periods 5\nnr_throttled 1\n")
    machine.clock.advance(5.0)
    figures = {name: (value, unit) for name, value, unit in source.sample_metrics()}
    assert figures["system.memory_pressure_percent"] == (1.5, "percent")
    assert figures["system.cpu_pressure_percent"] == (2.5, "percent")
    assert figures["system.io_pressure_percent"] == (3.5, "percent")
    assert figures["system.cpu_throttled_percent"] == (25.0, "percent")
    assert figures["system.memory_high_percent"] == (50.0, "percent")
    assert set(source.read()) == {*HostSample._fields, "loop_lag_seconds", "gc_pause_seconds"}


def test_stop_closes_the_files_and_what_is_asked_later_is_sampled_still(tmp_path: Path) -> None:
    class Watched(HostSampler):
        closes = 0

        def close(self) -> None:
            self.closes += 1
            super().close()

    machine = Machine(tmp_path)
    host = Watched(proc_root=machine.proc, cgroup_root=machine.cgroup, clock=machine.clock)
    source = HealthSource(host, FakeClock())
    assert source.read()["threads"] == 7
    source.stop()
    assert host.closes == 1
    assert [value for name, value, _ in source.sample_metrics() if name == "process.threads"] == [7.0]
