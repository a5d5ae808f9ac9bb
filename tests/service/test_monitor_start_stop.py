"""Starts and stops of the monitor that are cut off, fail, or come in another loop; and what it holds no lock for."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

import pytest

from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.alerting import AlertDesk
from ondol.monitor.notices import Notices
from ondol.monitor.query import Query, Reading
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.notices_fakes import FakeNotifier


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("ondol")}


def is_hooked() -> bool:
    return any("GcPauses" in repr(callback) for callback in gc.callbacks)


def make_notices(clock: VirtualClock, name: str = "a") -> Notices:
    return Notices([FakeNotifier(clock, name)], clock=clock)


def test_a_stop_that_is_cancelled_leaves_nothing_running() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        monitor.send_notices_to(make_notices(clock))
        await monitor.start()
        assert tasks() == {"ondol.monitor", "ondol-notices-a"}
        stopping = asyncio.create_task(monitor.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert tasks() == set()
        assert not is_hooked()
        await monitor.start()
        assert tasks() == {"ondol.monitor", "ondol-notices-a"}
        await monitor.stop()

    run_virtual(scenario)


def test_notices_that_were_replaced_while_it_ran_end_with_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        monitor.send_notices_to(make_notices(clock))
        await monitor.start()
        monitor.send_notices_to(None)
        await monitor.stop()
        assert tasks() == set()

    run_virtual(scenario)


def test_starting_a_running_monitor_changes_over_to_other_notices() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        monitor.send_notices_to(make_notices(clock, "old"))
        await monitor.start()
        await monitor.start()
        assert tasks() == {"ondol.monitor", "ondol-notices-old"}
        monitor.send_notices_to(make_notices(clock, "new"))
        await monitor.start()
        assert tasks() == {"ondol.monitor", "ondol-notices-new"}
        await monitor.stop()
        assert tasks() == set()

    run_virtual(scenario)


def test_a_start_that_fails_has_begun_nothing() -> None:
    class Broken(Notices):
        async def start(self) -> None:
            await super().start()
            raise OSError("no threads left")

    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        monitor.send_notices_to(Broken([FakeNotifier(clock)], clock=clock))
        with pytest.raises(OSError, match="no threads left"):
            await monitor.start()
        assert tasks() == set()
        assert not is_hooked()
        await asyncio.sleep(1)
        assert monitor.get_stats()["uptime_seconds"] == 0.0
        monitor.send_notices_to(None)
        await monitor.start()
        assert tasks() == {"ondol.monitor"}
        await monitor.stop()

    run_virtual(scenario)


@pytest.mark.parametrize("is_started_there", [False, True])
def test_it_ticks_no_more_in_a_loop_once_another_one_has_taken_it(is_started_there: bool) -> None:
    async def there(monitor: PerformanceMonitor) -> None:
        if is_started_there:
            await monitor.start()
            assert tasks() == {"ondol.monitor"}
        await monitor.stop()
        assert tasks() == set()

    async def scenario() -> None:
        monitor = PerformanceMonitor()
        await monitor.start()
        ticking = [task for task in asyncio.all_tasks() if task.get_name() == "ondol.monitor"]
        await asyncio.to_thread(asyncio.run, there(monitor))
        await asyncio.wait(ticking, timeout=10)
        assert tasks() == set()
        assert not is_hooked()

    asyncio.run(scenario())


def test_who_takes_a_line_of_the_log_may_ask_for_the_statistics() -> None:
    monitor = PerformanceMonitor()
    asked: list[int] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            asked.append(monitor.get_stats()["alerts"]["rules"])

    monitor.add_alert_rule(AlertRule("broken", "broken.metric", 1.0, ">"))
    monitor.bind("broken.metric")("not a number")  # type: ignore[arg-type]
    handler = Asking()
    log = logging.getLogger("ondol.monitor")
    log.addHandler(handler)
    try:
        thread = threading.Thread(target=monitor._alerts.evaluate, args=(monitor.read,), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "the rules' lock is held while a metric is read"
    finally:
        log.removeHandler(handler)
    assert asked == [len(monitor.alert_rules())]


def test_a_rule_that_comes_while_others_are_read_is_read_too() -> None:
    desk = AlertDesk(FakeClock())
    desk.add(AlertRule("first", "a", 1.0, ">"))
    read_names: list[str] = []

    def read(query: Query) -> Reading:
        read_names.append(query.metric_name)
        desk.add(AlertRule("late", "b", 1.0, ">"))
        return Reading(5.0, 0.0)

    desk.evaluate(read)
    assert read_names == ["a", "b"]
    assert [event.name for event in desk.active()] == ["first", "late"]


def test_the_minutes_report_asks_for_no_more_than_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        monitor.summaries = None  # type: ignore[assignment, method-assign]  # what costs more is not asked for
        monitor.add_metric("orders", 3.0, "count")
        async with asyncio.timeout(1000):
            await monitor.start()
            await asyncio.sleep(90)
            await monitor.stop()

    with caplog.at_level(logging.INFO, "ondol.performance"):
        run_virtual(scenario)
    lines = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "measurements"]
    assert [line["metrics"]["orders"]["total_count"] for line in lines] == [1, 1]
    assert lines[0]["metrics"]["orders"]["last_5_minutes"]["mean"] == 3.0
