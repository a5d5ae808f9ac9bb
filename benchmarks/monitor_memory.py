"""The part of benchmarks/monitor.py about memory: how many bytes does a series take, and what do hostile labels cost?

    python benchmarks/monitor_memory.py [--json] [--quick]

Series take values for 25 hours of a clock that is moved by hand, so that all windows are full. Their bytes are told
twice, as growth of what ``tracemalloc`` has traced and by a walk over everything that the monitor refers to
(``sys.getsizeof``), both every minute of the last twenty; the largest figure counts. The monitor without the series
is subtracted.
"""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Figure, run_alone

from ondol.monitor import PerformanceMonitor
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["DATA", "reachable_bytes", "rows"]

SEED = 6
SERIES_TARGET_BYTES = 16_384
HOSTILE_TARGET_BYTES = 5_000_000
HOURS, LOOK_S, LOOK_EVERY_S = 25, 1200.0, 60.0
STEP_S, LAST_S, LAST_STEP_S = 600.0, 1800.0, 10.0
"""Values come in steps so long, no longer than what is kept of that age; at last in the shortest that is kept."""
POOL = 1 << 18
FOLD_EVERY = 8192


def hostile(chance: np.random.Generator, count: int) -> Any:
    """Return values of both signs over 300 decades."""
    return chance.choice([-1.0, 1.0], count) * 10.0 ** chance.uniform(-150, 150, count)


DATA: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "log-normal σ 1": lambda chance, count: chance.lognormal(-4.0, 1.0, count),
    "log-normal σ 2": lambda chance, count: chance.lognormal(-4.0, 2.0, count),
    "300 decades, both signs": hostile,
}
"""Makers of values, by name."""


def reachable_bytes(start: object) -> int:
    """Return the bytes of everything that ``start`` refers to, itself included; no classes, modules or globals."""
    seen: set[int] = set()
    waiting, total = [start], 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType)):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        waiting.extend(referred(thing))
    return total


def referred(thing: object) -> list[object]:
    """Return what belongs to ``thing``: of a function what it encloses, of an array the one whose memory it shows."""
    if isinstance(thing, FunctionType):
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
    if isinstance(thing, BuiltinFunctionType | MethodType):
        return [thing.__self__]
    if isinstance(thing, np.ndarray):
        return [thing.base]
    return gc.get_referents(thing)


def warm_up(values: Sequence[float]) -> None:
    """Let everything that is made once for all series be there: imports, tables, caches."""
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=())
    observe = monitor.bind("bench.latency", "seconds", route="/")
    for start in range(0, 600, 100):
        clock.advance(STEP_S)
        for value in values[start : start + 100]:
            observe(value)
        monitor.fold()
    monitor.get_stats()


def series_bytes(make: Callable[[np.random.Generator, int], Any], count: int, per_s: int) -> dict[str, float]:
    """Return the bytes of each of ``count`` series, the largest that was seen at the end, by the way of counting."""
    values: list[float] = make(np.random.default_rng(SEED), POOL).tolist()
    warm_up(values)
    chance, clock = random.Random(SEED), FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=())
    monitor.add_metric("bench.other", 1.0)
    monitor.fold()
    tracemalloc.start()
    begun = tracemalloc.get_traced_memory()[0], reachable_bytes(monitor)
    observers = [monitor.bind("bench.latency", "seconds", route=f"/{number}") for number in range(count)]
    found, next_look_s = {"tracemalloc": 0.0, "walk": 0.0}, HOURS * 3600.0 - LOOK_S
    while clock.monotonic() < HOURS * 3600.0:
        step_s = STEP_S if clock.monotonic() < HOURS * 3600.0 - LAST_S else LAST_STEP_S
        clock.advance(step_s)
        for observe in observers:
            start = chance.randrange(POOL - per_s * int(step_s))
            for value in values[start : start + per_s * int(step_s)]:
                observe(value)
        monitor.fold()
        if clock.monotonic() >= next_look_s:
            next_look_s += LOOK_EVERY_S
            gc.collect()
            traced, walked = tracemalloc.get_traced_memory()[0] - begun[0], reachable_bytes(monitor) - begun[1]
            found["tracemalloc"] = max(found["tracemalloc"], traced / count)
            found["walk"] = max(found["walk"], walked / count)
    tracemalloc.stop()
    return found


def hostile_bytes(count: int) -> tuple[int, int]:
    """Return by how much the traced memory has grown after ``count`` label values, and the most in between."""
    monitor = PerformanceMonitor(clock=FakeClock(), rules=())
    monitor.add_metric("bench.requests", 1.0, "count", user="first")
    monitor.fold()
    gc.collect()
    tracemalloc.start()
    begun = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        monitor.add_metric("bench.requests", 1.0, "count", user=f"user-{number:07d}")
        if number % FOLD_EVERY == 0:
            monitor.fold()
    monitor.fold()
    gc.collect()
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if monitor.get_stats()["metrics"]["bench.requests"]["count"] != count + 1:
        raise RuntimeError("values were lost: they must be counted in the overflow series")
    return now - begun, most - begun


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the bytes of series, and of hostile labels."""
    series, per_s = (1, 10) if is_quick else (2, 100)
    for name, make in DATA.items():
        found = series_bytes(make, series, per_s)
        conditions = (
            f"{series} series of {per_s} values a second for {HOURS} h of a fake clock; largest of the last 20 min; "
            + ", ".join(f"{way} {size:.0f}" for way, size in found.items())
        )
        size = max(found.values())
        yield Figure(f"a series, all windows, {name}", size, "bytes", SERIES_TARGET_BYTES, conditions=conditions)
    count = 100_000 if is_quick else 1_000_000
    grown, most = hostile_bytes(count)
    conditions = f"{count} distinct label values through add_metric; tracemalloc; folded every {FOLD_EVERY}"
    yield Figure("hostile label values: memory in all", grown, "bytes", HOSTILE_TARGET_BYTES, conditions=conditions)
    yield Figure("hostile label values: most in between", most, "bytes", HOSTILE_TARGET_BYTES, conditions=conditions)


if __name__ == "__main__":
    sys.exit(run_alone("bytes of series and labels", rows))
