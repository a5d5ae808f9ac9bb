"""The part of benchmarks/monitor.py about timing: what does a decorator add to a call, and does it time a coroutine?

    python benchmarks/monitor_timing.py [--json] [--quick]

The overhead is the time of a decorated call less that of the same call undecorated, round by round, on one core, in
CPU time; ours is folded within the time measured. prometheus_client's ``time()`` measures only the creation of a
coroutine (a row shows it), so its fair peer for coroutines is ``with histogram.time():`` inside a wrapper coroutine.
OpenTelemetry has no timing decorator: its peer is what one writes by hand, ``perf_counter()`` twice and ``record``.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cache_speed_timing import ROUNDS, Contender, Times, taken_in_turn
from harness import Figure, package, run_alone
from monitor_recording import FOLD_EVERY, always, opentelemetry_histogram
from prometheus_client import CollectorRegistry, Histogram

from ondol.monitor import PerformanceMonitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["overhead_ratio", "rows"]

COUNT = 2 * FOLD_EVERY
BARE, OURS, PROMETHEUS, OTEL = "undecorated", "ours", "prometheus_client", "OpenTelemetry"
SLOW_S = 0.05
NAME = "bench.work"


def overheads(times: Times, label: str) -> list[float]:
    """Return the nanoseconds that ``label`` adds to a call, round by round."""
    return [taken - bare for taken, bare in zip(times.by_label[label], times.by_label[BARE], strict=True)]


def overhead_ratio(times: Times, label: str) -> float:
    """Return how many times as much ``label`` adds as ours: the median of the rounds' ratios."""
    pairs = zip(overheads(times, label), overheads(times, OURS), strict=True)
    return median(theirs / ours for theirs, ours in pairs)


def plain() -> Times:
    """Measure plain functions."""
    monitor = PerformanceMonitor(rules=())

    def work(value: int) -> int:
        return value

    def calls(function: Callable[[int], int]) -> Callable[[], object]:
        def run() -> None:
            for _ in range(COUNT // FOLD_EVERY):
                for number in range(FOLD_EVERY):
                    function(number)
                if function is decorated:
                    monitor.fold()

        return run

    decorated = monitor.timed(NAME, "seconds")(work)
    histogram = Histogram("bench_plain_seconds", "time", registry=CollectorRegistry())
    record = opentelemetry_histogram("bench.plain").record

    @functools.wraps(work)
    def recorded(value: int) -> int:
        begun_s = perf_counter()
        try:
            return work(value)
        finally:
            record(perf_counter() - begun_s)

    contenders: dict[str, Callable[[int], int]] = {
        BARE: work,
        OURS: decorated,
        PROMETHEUS: histogram.time()(work),
        OTEL: recorded,
    }
    works = {label: calls(function) for label, function in contenders.items()}
    return taken_in_turn([always(label, COUNT, run) for label, run in works.items()])


def coroutines() -> Times:
    """Measure coroutine functions, awaited one after another in one task."""
    monitor = PerformanceMonitor(rules=())
    histogram = Histogram("bench_coroutine_seconds", "time", registry=CollectorRegistry())
    record = opentelemetry_histogram("bench.coroutine").record

    async def work(value: int) -> int:
        return value

    @functools.wraps(work)
    async def timed(value: int) -> int:
        with histogram.time():
            return await work(value)

    @functools.wraps(work)
    async def recorded(value: int) -> int:
        begun_s = perf_counter()
        try:
            return await work(value)
        finally:
            record(perf_counter() - begun_s)

    decorated = monitor.timed(NAME, "seconds")(work)

    async def calls(function: Callable[[int], Awaitable[int]]) -> None:
        for _ in range(COUNT // FOLD_EVERY):
            for number in range(FOLD_EVERY):
                await function(number)
            if function is decorated:
                monitor.fold()

    contenders: dict[str, Any] = {BARE: work, OURS: decorated, PROMETHEUS: timed, OTEL: recorded}
    with asyncio.Runner() as runner:

        def prepare(function: Any) -> Callable[[int], Callable[[], object]]:
            return lambda _number: lambda: runner.run(calls(function))

        return taken_in_turn([Contender(label, COUNT, prepare(function)) for label, function in contenders.items()])


def recorded_of_slow_coroutine() -> tuple[float, float]:
    """Return the milliseconds that prometheus_client's decorator and ours record of a coroutine that takes 50 ms."""
    registry, monitor = CollectorRegistry(), PerformanceMonitor(rules=())

    async def work() -> None:
        await asyncio.sleep(SLOW_S)

    theirs = Histogram("bench_slow_seconds", "time", registry=registry).time()(work)
    ours = monitor.timed("bench.slow", "seconds")(work)

    async def both() -> None:
        await theirs()
        await ours()

    asyncio.run(both())
    recorded_s = registry.get_sample_value("bench_slow_seconds_sum")
    if recorded_s is None:
        raise RuntimeError("prometheus_client has recorded nothing")
    ours_s: float = monitor.get_stats()["metrics"]["bench.slow"]["windows"]["1m"]["max"]
    return recorded_s * 1e3, ours_s * 1e3


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the figures of timing."""
    del is_quick  # it takes two seconds
    import numpy as np  # as in the server; without it counting what was recorded takes longer

    peers = {PROMETHEUS: package("prometheus_client"), OTEL: package("opentelemetry-sdk")}
    conditions = (
        f"decorated less undecorated, median of {ROUNDS} rounds in turn of {COUNT} calls, one core, CPU time; "
        f"ours folded every {FOLD_EVERY} calls; numpy {np.__version__} loaded"
    )
    ways = {"plain": "histogram.time() as decorator", "coroutine": "with histogram.time() in a wrapper coroutine"}
    for kind, times in (("plain", plain()), ("coroutine", coroutines())):
        told = f"{conditions}; prometheus_client: {ways[kind]}; OpenTelemetry: perf_counter() twice and record"
        yield Figure(f"timing, {kind}: undecorated call", times.of(BARE), "ns", conditions=told)
        for label in (OURS, PROMETHEUS, OTEL):
            taken = median(overheads(times, label))
            yield Figure(f"timing, {kind}: overhead of {label}", taken, "ns", peer=peers.get(label), conditions=told)
        for label, target in ((PROMETHEUS, 5.0), (OTEL, 15.0)):
            ratio = overhead_ratio(times, label)
            yield Figure(f"timing, {kind}: {label} / ours", ratio, "x", target, "higher", peers[label], told)
    theirs_ms, ours_ms = recorded_of_slow_coroutine()
    slow = f"wall-clock; a coroutine that sleeps {SLOW_S * 1e3:g} ms, decorated"
    yield Figure("timing, a slow coroutine: recorded by ours", ours_ms, "ms", SLOW_S * 1e3, "higher", conditions=slow)
    yield Figure(
        "timing, a slow coroutine: recorded by prometheus_client",
        theirs_ms,
        "ms",
        peer=peers[PROMETHEUS],
        conditions=slow,
    )


if __name__ == "__main__":
    sys.exit(run_alone("the timing decorator beside prometheus_client and OpenTelemetry", rows))
