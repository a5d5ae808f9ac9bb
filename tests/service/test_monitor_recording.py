"""Recording: the append of a list, counted later; what waits is bounded, in threads and children too."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor import PerformanceMonitor
from ondol.monitor.query import Query
from ondol.testing import FakeClock


def test_bound_recorders_are_the_cheapest_and_lose_nothing() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock)
    observe = monitor.bind("api.response_time", "seconds", route="/v1")
    assert monitor.bind("api.response_time", "s", route="/v1") == observe
    for number in range(5000):
        observe(number / 1000)
    monitor.add_metric("api.response_time", 9.0, "seconds", route="/v1")
    found = monitor.get_stats()["metrics"]["api.response_time"]
    assert (found["count"], found["last"], found["max"]) == (5001, 9.0, 9.0)
    assert found["p50"] == pytest.approx(2.5, rel=0.01)


def test_what_a_bound_recorder_is_given_wrongly_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    observe = monitor.bind("a")
    odd: list[Any] = [1.0, "5", float("nan"), None, 2.0]
    for _ in range(2):
        for value in odd:
            observe(value)
        assert monitor.get_stats()["metrics"]["a"]["last"] == 2.0
    assert monitor.get_stats()["metrics"]["a"]["sum"] == 6.0
    assert monitor.get_stats()["errors"] == 6
    assert len([record for record in caplog.records if "no finite numbers" in record.message]) == 1


def test_bound_recorders_are_bounded_where_nothing_runs() -> None:
    monitor = PerformanceMonitor()
    observe = monitor.bind("a")
    pending = monitor.series("a").pending
    sent = 0
    deadline_s = time.monotonic() + 60
    # The relief comes from a thread, some time soon: values are sent until it has come twice.
    for _ in range(2):
        while len(pending) < 2000:
            observe(1.0)
            sent += 1
        while len(pending) > 1024:
            assert time.monotonic() < deadline_s, "nobody counted what a bound recorder sent"
            threading.Event().wait(0.01)
    assert monitor.get_stats()["metrics"]["a"]["count"] == sent


def test_the_thread_of_bound_recorders_ends_with_their_monitor() -> None:
    monitor = PerformanceMonitor()
    monitor.bind("a")
    thread = monitor._relief._thread
    assert thread is not None
    monitor.bind("b")
    assert monitor._relief._thread is thread
    assert thread.daemon
    del monitor
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_values_are_counted_in_the_slot_in_which_they_came() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=())
    for _ in range(10):
        monitor.add_metric("a", 1.0)
        clock.advance(7.0)
    clock.advance(1000.0)
    windows = monitor.get_stats()["metrics"]["a"]["windows"]  # nothing was counted meanwhile
    assert (windows["5m"]["count"], windows["1h"]["count"]) == (0, 10)


def test_reading_answers_a_query() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    for value in range(1, 101):
        monitor.add_metric("a", float(value), model="x")
    reading = monitor.read(Query("a", "p90"))
    assert reading is not None
    assert reading.value == pytest.approx(90.0, rel=0.01)
    assert monitor.read(Query("a", "p90", 60.0, (("model", "y"),))) is None


def test_an_exemplar_of_what_is_not_there_is_no_error() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    monitor.add_exemplar("a", 1.0, {"request_id": "r"})
    assert monitor.collect()[: -len(monitor.alert_rules())] == []
    with pytest.raises(MonitorError, match="not valid"):
        monitor.add_exemplar("not a name", 1.0, {})


def test_numpy_that_is_not_there_in_full_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    monkeypatch.setitem(sys.modules, "numpy", ModuleType("numpy"))  # as while another thread imports it
    observe = monitor.bind("a")
    for number in range(3000):
        observe(float(number))
    found = monitor.get_stats()["metrics"]["a"]
    assert (found["count"], found["max"]) == (3000, 2999.0)


def test_the_map_of_keys_does_not_grow_with_long_values_nor_orders() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    for number in range(500):
        monitor.add_metric("a", 1.0, "", path="x" * 5000 + str(number))
    assert not monitor._quick
    for number in range(100):
        labels = {f"l{(number + place) % 5}": "v" for place in range(5)}
        monitor.add_metric("b", 1.0, "", **labels)
    assert len(monitor._quick) <= 4
    assert monitor.get_stats()["metrics"]["b"]["count"] == 100


def test_a_number_that_cannot_be_written_out_is_refused_like_any_other() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    with pytest.raises(MonitorError, match="finite number"):
        monitor.add_metric("a", 10**5000)


def test_a_value_may_record_others_while_it_is_counted() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())

    class Chatty:
        number = 0

        def __float__(self) -> float:
            Chatty.number += 1
            monitor.add_metric(f"from.value{Chatty.number}", 1.0, "", label=str(Chatty.number))
            return 1.0

    observe: Any = monitor.bind("a", label="x")
    for _ in range(3):
        observe(Chatty())
    assert monitor.get_stats()["metrics"]["a"]["count"] == 3
    assert "from.value1" in monitor.get_stats()["metrics"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_records_on_its_own() -> None:
    code = """
import os, threading, time
from ondol.monitor import PerformanceMonitor
monitor = PerformanceMonitor(rules=())
observe = monitor.bind("bound")
monitor.add_metric("before", 1.0)
monitor.fold()
is_held, go_on = threading.Event(), threading.Event()
def hold():
    with monitor._lock:
        is_held.set()
        go_on.wait()
threading.Thread(target=hold, daemon=True).start()
is_held.wait()
observe(1.0)  # waits in the parent, and is counted there
child = os.fork()
if child == 0:
    monitor.add_metric("new", 1.0)
    for _ in range(5000):
        observe(2.0)
    metrics = monitor.get_stats()["metrics"]
    is_right = (metrics["before"]["count"], metrics["new"]["count"], metrics["bound"]["sum"]) == (1, 1, 10_000.0)
    is_right = is_right and monitor._relief._thread.is_alive()
    os._exit(0 if is_right else 1)
go_on.set()
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), monitor.get_stats()["metrics"]["bound"]["sum"])
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert result.stdout.split() == ["0", "1.0"], result.stderr
