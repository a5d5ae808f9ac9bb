from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor import PerformanceMonitor, make_monitor_performance
from ondol.testing import FakeClock, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Coroutine


def figures(monitor: PerformanceMonitor, name: str) -> dict[str, Any]:
    return dict(monitor.get_stats()["metrics"][name])


def test_a_plain_function_keeps_its_result_name_and_signature() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock)

    @monitor.timed("work")
    def work(a: int, *, b: int = 2) -> int:
        """Work."""
        clock.advance(0.25)
        return a + b

    assert work(1, b=3) == 4
    assert (work.__name__, work.__doc__) == ("work", "Work.")
    assert str(inspect.signature(work)) == "(a: 'int', *, b: 'int' = 2) -> 'int'"
    assert figures(monitor, "work")["last"] == 0.25
    assert figures(monitor, "work")["unit"] == "seconds"


def test_of_a_coroutine_the_await_is_measured() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)

        @monitor.timed("work", "ms")
        async def work() -> str:
            await asyncio.sleep(2.0)
            return "done"

        assert inspect.iscoroutinefunction(work)
        assert await work() == "done"
        assert figures(monitor, "work")["last"] == pytest.approx(2000.0)
        assert figures(monitor, "work")["unit"] == "milliseconds"

    run_virtual(scenario)


def test_of_a_plain_function_that_returns_a_coroutine_the_await_is_measured_too() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)

        async def inner() -> int:
            await asyncio.sleep(3.0)
            return 7

        def work() -> Coroutine[Any, Any, int]:
            return inner()

        assert await monitor.timed("work")(work)() == 7
        assert figures(monitor, "work")["last"] == pytest.approx(3.0)

    run_virtual(scenario)


class Callable:
    async def __call__(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def two_sleeps(first_s: float, second_s: float) -> None:
    await asyncio.sleep(first_s + second_s)


def test_callable_objects_and_partials() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        await monitor.timed("partial")(functools.partial(two_sleeps, 1.0))(2.0)
        assert figures(monitor, "partial")["last"] == pytest.approx(3.0)
        await monitor.timed("object")(Callable())(4.0)
        assert figures(monitor, "object")["last"] == pytest.approx(4.0)

    run_virtual(scenario)


def test_errors_are_counted_apart_and_go_on_their_way() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)

        @monitor.timed("plain")
        def plain() -> None:
            raise KeyError("x")

        @monitor.timed("coroutine")
        async def coroutine() -> None:
            await asyncio.sleep(1.0)
            raise KeyError("x")

        for _ in range(3):
            with pytest.raises(KeyError):
                plain()
            with pytest.raises(KeyError):
                await coroutine()
        for name in ("plain", "coroutine"):
            assert figures(monitor, f"{name}.errors")["sum"] == 3
            assert name not in monitor.get_stats()["metrics"]

    run_virtual(scenario)


def test_cancelling_is_no_error_and_is_not_swallowed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)

        @monitor.timed("work")
        async def work() -> None:
            await asyncio.sleep(100.0)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        metrics = monitor.get_stats()["metrics"]
        assert metrics["work.cancelled"]["sum"] == 1
        assert "work.errors" not in metrics

    run_virtual(scenario)


def test_a_block_is_measured_with_labels_and_nests() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock)
    block = monitor.measure("load", model="m")
    with block:
        clock.advance(1.0)
        with block:
            clock.advance(2.0)
    series = figures(monitor, "load")["series"]
    assert [(s["labels"], s["min"], s["max"]) for s in series] == [({"model": "m"}, 2.0, 3.0)]
    with pytest.raises(KeyError), monitor.measure("load"):
        raise KeyError
    assert figures(monitor, "load.errors")["count"] == 1


def test_what_cannot_be_measured_is_refused_when_decorating() -> None:
    monitor = PerformanceMonitor()
    with pytest.raises(MonitorError, match="bytes"):
        monitor.timed("a", "bytes")
    with pytest.raises(MonitorError, match="not valid"):
        monitor.measure("not a name")


def outcome(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        return str(error).partition("()")[2]  # the name before it is that of the wrapper


def test_parameters_of_every_kind_are_handed_on() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    default: list[int] = []

    def everything(a: Any, b: Any = default, /, c: Any = 3, *rest: Any, d: Any, e: Any = default, **more: Any) -> Any:
        return a, b, c, rest, d, e, more

    def nothing() -> str:
        return "nothing"

    def keywords(*, d: Any, e: Any = 5) -> Any:
        return d, e

    def ours(_ondol_known: int, *, _ondol_result: int = 2) -> tuple[int, int]:
        return _ondol_known, _ondol_result

    def builtins(type: str = "x", BaseException: int = 1, Exception: int = 2) -> Any:  # noqa: A002, N803  # the point
        return type, BaseException, Exception

    def awkward(function: int, known: int, self: int, cls: int, result: int, now: int) -> tuple[int, ...]:
        return function, known, self, cls, result, now

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (everything, (1,), {"d": 4}),
        (everything, (1, 2, 3, 4, 5), {"d": 6, "e": 7, "a": 8, "z": 9}),
        (everything, (1,), {}),
        (everything, (), {"a": 1, "d": 4}),
        (nothing, (), {}),
        (nothing, (1,), {}),
        (keywords, (), {"d": 1}),
        (keywords, (1,), {}),
        (ours, (1,), {"_ondol_result": 3}),
        (awkward, (1, 2, 3, 4, 5), {"now": 6}),
        (builtins, ("document",), {"BaseException": 5}),
        (dict, ([("a", 1)],), {"b": 2}),
    ]
    for function, args, kwargs in calls:
        measured = monitor.timed("work")(function)
        assert outcome(measured, *args, **kwargs) == outcome(function, *args, **kwargs)
        if function is not dict:
            assert str(inspect.signature(measured)) == str(inspect.signature(function))
    assert monitor.timed("work")(everything)(1, d=2)[1] is default


def test_methods_of_every_kind_are_measured() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())

    class Work:
        @monitor.timed("work")
        def method(self, value: int) -> tuple[str, int]:
            return type(self).__name__, value

        @classmethod
        @monitor.timed("work")
        def of_class(cls, value: int = 2) -> tuple[str, int]:
            return cls.__name__, value

        @staticmethod
        @monitor.timed("work")
        def static(value: int) -> int:
            return value

        @property
        @monitor.timed("work")
        def property(self) -> str:
            return "property"

    assert (Work().method(1), Work.of_class(), Work.static(3), Work().property) == (
        ("Work", 1),
        ("Work", 2),
        3,
        "property",
    )
    assert figures(monitor, "work")["count"] == 4


def test_a_decorated_function_that_is_called_in_vain_shows_no_metric() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())

    @monitor.timed("work")
    def work() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        work()
    assert "work" not in monitor.get_stats()["metrics"]


def test_the_guides_decorator_asks_for_the_monitor_on_each_call() -> None:
    monitors: list[PerformanceMonitor] = []
    monitor_performance = make_monitor_performance(lambda: monitors[-1])

    @monitor_performance("my_function", "seconds")
    def my_function() -> str:
        return "result"

    for _ in range(2):
        monitors.append(PerformanceMonitor())
        assert my_function() == "result"
    assert [figures(monitor, "my_function")["count"] for monitor in monitors] == [1, 1]


def test_one_block_measures_tasks_that_overlap() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        block = monitor.measure("work")

        async def work(seconds: float) -> None:
            with block:
                await asyncio.sleep(seconds)

        async def later(pause_s: float, seconds: float) -> None:
            await asyncio.sleep(pause_s)
            await work(seconds)

        await asyncio.gather(work(1.0), later(0.1, 0.1), later(0.2, 1.5))
        found = figures(monitor, "work")
        assert (found["min"], found["max"], found["sum"]) == pytest.approx((0.1, 1.5, 2.6))

    run_virtual(scenario)


def test_what_cannot_be_recorded_never_replaces_what_the_function_did(caplog: pytest.LogCaptureFixture) -> None:
    monitor = PerformanceMonitor(clock=FakeClock())
    monitor.add_metric("job.errors", 1, "seconds")
    monitor.add_metric("taken", 1, "bytes")
    decorate = make_monitor_performance(lambda: monitor)

    @decorate("job", "seconds")
    def job() -> None:
        raise KeyError("mine")

    @decorate("taken", "seconds")
    def taken() -> str:
        return "done"

    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            job()
        assert taken() == "done"
    assert monitor.get_stats()["errors"] == 3  # two failures that could not be counted, one function
    assert len([record for record in caplog.records if "said once" in record.message]) == 2
    with pytest.raises(MonitorError, match=r"'bytes'.*'seconds'"):
        monitor.timed("taken", "seconds")(taken)
    with pytest.raises(MonitorError, match=r"'bytes'.*'seconds'"):
        monitor.measure("taken")
    with pytest.raises(MonitorError, match="characters"):
        monitor.timed("x" * 120)
    odd: Any = classmethod(lambda cls: cls)
    with pytest.raises(MonitorError, match="classmethod"):
        monitor.timed("x")(odd)


def test_what_waits_is_bounded_whichever_function_is_called_first() -> None:
    clock = FakeClock(100.0)
    monitor = PerformanceMonitor(clock=clock)

    @monitor.timed("seldom")
    def seldom() -> None:
        pass

    @monitor.timed("often")
    def often() -> None:
        pass

    pending = monitor.series("often").pending
    for _ in range(3):
        clock.advance(1.0)
        seldom()
        for _ in range(5000):
            often()
        assert len(pending) < 10_000
    assert figures(monitor, "often")["count"] == 15_000
