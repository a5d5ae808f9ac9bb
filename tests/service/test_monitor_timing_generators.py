"""Of generators, plain and asynchronous, their own work is measured."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from ondol.monitor import PerformanceMonitor
from ondol.testing import FakeClock, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator


def figures(monitor: PerformanceMonitor, name: str) -> dict[str, Any]:
    return dict(monitor.get_stats()["metrics"][name])


def test_of_a_generator_its_own_work_is_measured() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock)

    @monitor.timed("items")
    def items(count: int) -> Generator[int, str, str]:
        """Items."""
        for number in range(count):
            clock.advance(1.0)
            assert (yield number) == f"got {number}"
        clock.advance(0.5)
        return "end"

    assert inspect.isgeneratorfunction(items)
    assert items.__doc__ == "Items."
    generator = items(2)
    assert next(generator) == 0
    clock.advance(100.0)  # whoever takes the items takes his time
    assert generator.send("got 0") == 1
    with pytest.raises(StopIteration) as stop:
        generator.send("got 1")
    assert stop.value.value == "end"
    assert figures(monitor, "items")["last"] == 2.5
    assert figures(monitor, "items")["count"] == 1


def test_a_generator_that_is_left_counts_with_what_it_took() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock)
    closed: list[str] = []

    @monitor.timed("items")
    def items() -> Iterator[int]:
        try:
            while True:
                clock.advance(1.0)
                yield 1
        finally:
            closed.append("closed")

    for number, _ in enumerate(items()):
        if number == 2:
            break
    assert closed == ["closed"]
    assert figures(monitor, "items")["last"] == 3.0
    assert "items.errors" not in monitor.get_stats()["metrics"]


def test_what_is_thrown_into_a_generator_reaches_it() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())

    @monitor.timed("items")
    def items() -> Iterator[int]:
        try:
            yield 1
        except KeyError:
            yield 2
        raise ValueError("broken")

    generator = items()
    assert next(generator) == 1
    assert generator.throw(KeyError()) == 2  # type: ignore[attr-defined]  # an iterator to the outside
    with pytest.raises(ValueError, match="broken"):
        next(generator)
    metrics = monitor.get_stats()["metrics"]
    assert metrics["items.errors"]["sum"] == 1
    assert "items" not in metrics


def test_of_an_asynchronous_generator_its_own_work_is_measured() -> None:
    async def scenario(clock: VirtualClock) -> None:
        monitor = PerformanceMonitor(clock=clock)
        closed: list[str] = []

        @monitor.timed("items", "ms")
        async def items(count: int) -> AsyncGenerator[int, str]:
            try:
                for number in range(count):
                    await asyncio.sleep(1.0)
                    assert (yield number) in {None, "sent"}
                if count == 3:
                    raise KeyError("three")
            finally:
                closed.append("closed")

        assert inspect.isasyncgenfunction(items)
        async for _ in items(2):
            await asyncio.sleep(10.0)
        assert figures(monitor, "items")["last"] == pytest.approx(2000.0)

        with pytest.raises(KeyError):
            async for _ in items(3):
                pass
        assert figures(monitor, "items.errors")["sum"] == 1

        left = items(9)
        assert await anext(left) == 0
        assert await left.asend("sent") == 1
        await left.aclose()
        assert closed == ["closed"] * 3
        assert (figures(monitor, "items")["count"], figures(monitor, "items")["last"]) == (2, pytest.approx(2000.0))

        task = asyncio.ensure_future(anext(items(1)))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert figures(monitor, "items.cancelled")["sum"] == 1

    run_virtual(scenario)


def test_a_generator_that_cannot_be_closed_counts_as_an_error() -> None:
    monitor = PerformanceMonitor(clock=FakeClock())

    @monitor.timed("items")
    def items() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("closing")

    generator = items()
    next(generator)
    with pytest.raises(KeyError):
        generator.close()  # type: ignore[attr-defined]  # an iterator to the outside
    assert figures(monitor, "items.errors")["sum"] == 1
