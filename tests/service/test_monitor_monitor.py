from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor import AlertEvent, AlertRule, PerformanceMonitor
from ondol.monitor.host import HostSample, HostSampler
from ondol.monitor.recording import MAX_PENDING
from ondol.testing import FakeClock, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.monitor.query import Query, Reading
    from ondol.monitor.snapshots import MetricSnapshot


class FakeHost(HostSampler):
    """Says what it is told, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.memory_percent = 40.0
        self.samples = 0
        self.is_failing = False

    def sample(self) -> HostSample:
        self.samples += 1
        if self.is_failing:
            raise OSError("no sample")
        return HostSample(
            memory_percent=self.memory_percent,
            memory_used_bytes=400,
            memory_limit_bytes=1000,
            cpu_percent=12.5,
            allowed_cpus=2.0,
            rss_bytes=300,
            open_files=9,
            threads=4,
            disk_percent=33.0,
            source="fake",
        )


HOT = AlertRule("hot", "system.memory_percent", 90.0, ">=", duration_seconds=30, message="use less")


def test_metrics_are_readable_at_once() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    for value in (0.5, 1.5):
        monitor.add_metric("api.response_time", value, "seconds", route="/v1")
    figures = monitor.get_stats()["metrics"]["api.response_time"]
    assert (figures["count"], figures["mean"], figures["last"], figures["unit"]) == (2, 1.0, 1.5, "seconds")
    assert figures["series"][0]["labels"] == {"route": "/v1"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "5", None, 10**400, [1.0]])
def test_what_is_no_finite_number_is_refused_and_changes_nothing(value: Any) -> None:
    monitor = PerformanceMonitor()
    for _ in range(2):
        with pytest.raises(MonitorError, match="finite number"):
            monitor.add_metric("a", value)
        monitor.add_metric("b", 1.0)
    assert "a" not in monitor.get_stats()["metrics"]


def test_names_units_and_unhashable_parts_are_checked() -> None:
    monitor = PerformanceMonitor()
    monitor.add_metric("a", 1.0, "seconds")
    with pytest.raises(MonitorError, match=r"'seconds'.*'bytes'"):
        monitor.add_metric("a", 1.0, "bytes")
    with pytest.raises(MonitorError, match="not valid"):
        monitor.add_metric("no good", 1.0)
    with pytest.raises(MonitorError, match="not valid"):
        monitor.add_metric(["a"], 1.0)  # type: ignore[arg-type]  # on purpose
    monitor.add_metric("b", 1.0, model=["x"])  # type: ignore[arg-type]  # on purpose: taken as its text
    assert monitor.get_stats()["metrics"]["b"]["series"][0]["labels"] == {"model": "['x']"}


def test_the_buffer_and_the_series_are_bounded() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    for number in range(20_000):
        monitor.add_metric("a", 1.0, "", user=str(number))
        assert len(monitor._book.metrics["a"].series) <= 100
    overflow = monitor._book.metrics["a"].overflow
    assert overflow is not None
    assert len(overflow.pending) <= MAX_PENDING
    stats = monitor.get_stats()
    assert stats["metrics"]["a"]["count"] == 20_000
    assert stats["series"] == 100
    assert len(monitor._quick) == 100


def test_no_measurement_is_lost_between_threads() -> None:
    monitor = PerformanceMonitor()
    go = threading.Barrier(5)

    def work(number: int) -> None:
        go.wait()
        for _ in range(3000):
            monitor.add_metric("shared", 1.0)
            monitor.add_metric("own", 1.0, "", thread=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    go.wait()
    while any(thread.is_alive() for thread in threads):
        monitor.get_stats()
    for thread in threads:
        thread.join()
    metrics = monitor.get_stats()["metrics"]
    assert (metrics["shared"]["count"], metrics["own"]["count"]) == (12_000, 12_000)
    assert [series["count"] for series in metrics["own"]["series"]] == [3000] * 4


def test_health_is_sampled_on_demand_at_most_once_a_second() -> None:
    clock, host = FakeClock(), FakeHost()
    monitor = PerformanceMonitor(clock=clock, host=host, is_enabled=False)
    health = monitor.get_system_health()
    assert {"memory_percent": 40.0, "cpu_percent": 12.5, "source": "fake", "open_files": 9}.items() <= health.items()
    assert set(health) >= {
        *("memory_used_bytes", "memory_limit_bytes", "rss_bytes"),
        *("threads", "loop_lag_seconds", "disk_percent"),
    }
    clock.advance(0.9)
    monitor.get_system_health()
    assert host.samples == 1
    clock.advance(0.1)
    host.memory_percent = 50.0
    assert monitor.get_system_health()["memory_percent"] == 50.0


def test_a_tick_records_the_host_and_the_probes() -> None:
    monitor = PerformanceMonitor(clock=FakeClock(), host=FakeHost())
    monitor.add_probe(lambda: [("cache.hit_rate", 83.0, "percent")])
    monitor.tick()
    metrics = monitor.get_stats()["metrics"]
    assert metrics["system.memory_percent"]["last"] == 40.0
    assert metrics["process.rss_bytes"]["unit"] == "bytes"
    assert metrics["cache.hit_rate"]["last"] == 83.0


def test_a_failing_probe_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    monitor = PerformanceMonitor(clock=FakeClock(), host=FakeHost())

    def probe() -> Iterable[tuple[str, float, str]]:
        raise RuntimeError("probe broke")

    monitor.add_probe(probe)
    monitor.tick()
    assert monitor.get_stats()["errors"] == 1
    assert "probe broke" in caplog.text


def test_an_alert_fires_once_and_is_resolved_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ondol.performance")
    clock, host = FakeClock(), FakeHost()
    monitor = PerformanceMonitor(clock=clock, host=host, rules=[HOT])
    seen: list[AlertEvent] = []
    monitor.add_alert_listener(seen.append)
    for memory_percent in [50.0] * 5 + [95.0] * 20 + [50.0] * 5:
        host.memory_percent = memory_percent
        monitor.tick()
        clock.advance(5.0)
        if memory_percent == 95.0 and seen:
            assert [alert.name for alert in monitor.active_alerts()] == ["hot"]
            assert monitor.get_stats()["alerts"]["active"][0]["message"] == "use less"
    assert [event.state for event in seen] == ["fired", "resolved"]
    assert monitor.active_alerts() == []
    assert monitor.alert_history() == seen
    lines = [record for record in caplog.records if record.__dict__.get("fields", {}).get("event") == "alert"]
    assert [record.levelname for record in lines] == ["WARNING", "INFO"]


def test_the_guides_rule_on_an_added_metric() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, host=FakeHost(), rules=())
    rule = AlertRule(
        name="high_api_latency", metric_name="api.response_time", threshold=2.0, operator=">", duration_seconds=60
    )
    monitor.add_alert_rule(rule)
    for _ in range(13):
        assert monitor.active_alerts() == []
        monitor.add_metric("api.response_time", 2.5, "seconds")
        monitor.tick()
        clock.advance(5.0)
    assert [alert.name for alert in monitor.active_alerts()] == ["high_api_latency"]
    assert monitor.alert_rules() == [rule]
    assert monitor.remove_alert_rule("high_api_latency") is True
    assert monitor.remove_alert_rule("high_api_latency") is False
    assert monitor.active_alerts() == []


def test_a_listener_that_fails_hides_nothing_from_the_next(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    host.memory_percent = 99.0
    monitor = PerformanceMonitor(
        clock=FakeClock(), host=host, rules=[AlertRule("hot", "system.memory_percent", 90, ">")]
    )
    seen: list[AlertEvent] = []

    def fail(event: AlertEvent) -> None:
        raise RuntimeError("listener broke")

    monitor.add_alert_listener(fail)
    monitor.add_alert_listener(seen.append)
    monitor.tick()
    assert len(seen) == 1
    assert monitor.get_stats()["errors"] == 1
    assert "listener broke" in caplog.text


def test_a_listener_may_change_the_rules() -> None:
    host = FakeHost()
    host.memory_percent = 99.0
    monitor = PerformanceMonitor(
        clock=FakeClock(), host=host, rules=[AlertRule("hot", "system.memory_percent", 90, ">")]
    )
    monitor.add_alert_listener(lambda event: monitor.remove_alert_rule(event.name))
    monitor.tick()
    assert [event.state for event in monitor.alert_history()] == ["fired", "resolved"]


def test_turned_off_nothing_is_sampled_and_active_alerts_end() -> None:
    clock, host = FakeClock(), FakeHost()
    host.memory_percent = 99.0
    monitor = PerformanceMonitor(clock=clock, host=host, rules=[AlertRule("hot", "system.memory_percent", 90, ">")])
    monitor.tick()
    assert len(monitor.active_alerts()) == 1
    monitor.configure(is_enabled=False)
    assert monitor.active_alerts() == []
    asked = host.samples
    monitor.tick()
    assert host.samples == asked
    monitor.add_metric("a", 1.0)
    assert monitor.get_stats()["metrics"]["a"]["count"] == 1


def test_started_it_ticks_and_reports_every_minute_and_at_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ondol.performance")
    host = FakeHost()

    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock, host=host, sample_interval_s=5.0)
        await monitor.start()
        await monitor.start()
        monitor.add_metric("api.response_time", 0.5, "seconds")
        await asyncio.sleep(181.0)
        assert monitor.get_stats()["uptime_seconds"] == pytest.approx(181.0)
        await monitor.stop()
        await monitor.stop()
        assert monitor.get_stats()["metrics"]["system.memory_percent"]["count"] == 37

    run_virtual(scenario)
    lines = [record.__dict__["fields"] for record in caplog.records if record.message == "measurements"]
    assert len(lines) == 4
    assert lines[0]["metrics"]["api.response_time"]["total_count"] == 1
    assert lines[0]["system_health"]["memory_percent"] == 40.0


def test_a_failing_sample_is_counted_and_the_next_tick_comes(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    host.is_failing = True

    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock, host=host)
        await monitor.start()
        await asyncio.sleep(7.0)
        host.is_failing = False
        await asyncio.sleep(5.0)
        await monitor.stop()
        assert monitor.get_stats()["errors"] == 2
        assert monitor.get_stats()["metrics"]["system.memory_percent"]["count"] == 1

    run_virtual(scenario)
    assert "OSError: no sample" in caplog.text


def test_a_blocked_loop_is_seen_as_lag() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock, host=FakeHost())
        await monitor.start()
        await asyncio.sleep(1.2)
        loop = asyncio.get_running_loop()
        loop.jump(2.0)  # type: ignore[attr-defined]  # the virtual loop: time passes while nothing else can run
        await asyncio.sleep(5.0)
        # the nap that was due 0.3 s later came 1.7 s late
        assert monitor.get_system_health()["loop_lag_seconds"] == pytest.approx(1.7, abs=0.01)
        await asyncio.sleep(10.0)
        assert monitor.get_system_health()["loop_lag_seconds"] == pytest.approx(0.0, abs=0.01)
        await monitor.stop()

    run_virtual(scenario)


def test_it_outlives_event_loops() -> None:
    monitor = PerformanceMonitor(host=FakeHost())

    async def with_stop() -> None:
        await monitor.start()
        await asyncio.sleep(0)
        await monitor.stop()

    async def without_stop() -> None:
        await monitor.start()
        await asyncio.sleep(0)

    for scenario in (with_stop, without_stop, with_stop):
        asyncio.run(scenario())
    assert monitor.get_stats()["metrics"]["system.memory_percent"]["count"] == 3


def test_collect_gives_series_and_alert_states() -> None:
    host = FakeHost()
    host.memory_percent = 99.0
    rules = [AlertRule("hot", "system.memory_percent", 90, ">"), AlertRule("cold", "system.memory_percent", 1, "<")]
    monitor = PerformanceMonitor(clock=FakeClock(), host=host, rules=rules)
    monitor.tick()
    alerts = {s.labels["rule"]: s.last for s in monitor.collect() if s.name == "alerts.active"}
    assert alerts == {"hot": 1.0, "cold": 0.0}


def test_a_tick_and_an_exporter_never_wait_for_each_other() -> None:
    monitor = PerformanceMonitor(clock=FakeClock(), host=FakeHost(), rules=[HOT])
    is_at_the_rules = threading.Event()
    snapshots = monitor._alerts.snapshots

    def observed() -> list[MetricSnapshot]:
        is_at_the_rules.set()
        return snapshots()

    def read(query: Query) -> Reading | None:
        # The rules are being evaluated. A collection that comes now must not keep the metrics locked.
        collector.start()
        assert is_at_the_rules.wait(5)
        assert monitor._lock.acquire(timeout=5), "the collection holds the lock of the metrics and waits for ours"
        monitor._lock.release()
        return monitor.read(query)

    monitor._alerts.snapshots = observed  # type: ignore[method-assign]
    collector = threading.Thread(target=monitor.collect, daemon=True)
    monitor._alerts.evaluate(read)
    collector.join(5)
    assert not collector.is_alive()


def test_the_statistics_are_plain_json() -> None:
    monitor = PerformanceMonitor(
        clock=FakeClock(), host=FakeHost(), rules=[AlertRule("hot", "system.memory_percent", 1, ">")]
    )
    monitor.add_metric("a", -1.0)
    monitor.tick()
    assert json.loads(json.dumps(monitor.get_stats(), allow_nan=False))["metrics"]["a"]["min"] == -1.0


def test_an_interval_that_is_no_time_is_refused() -> None:
    with pytest.raises(MonitorError, match="sample_interval_s"):
        PerformanceMonitor(sample_interval_s=0.0)
