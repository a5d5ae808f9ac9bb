"""The part of benchmarks/models.py about the pool itself: many callers of one load, loads side by side, a lease's cost.

The loaders wait, as one that reads from a disk or a network does, in a thread each.
"""

from __future__ import annotations

import asyncio
import functools
import graphlib
import tempfile
import time
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import Figure
from models_conditions import one_core

from ondol.models import ModelPool, ModelSpec
from ondol.service import OptimizationService
from ondol.settings_reader import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from harness import Figures

__all__ = ["cold_callers", "lease_cost", "parallel_loads"]

CALLERS = 1000
LOADER_S = 0.2
FIVE_S = 0.4
CONCURRENCY = 5
DAG: dict[str, tuple[float, tuple[str, ...]]] = {
    "tokenizer": (0.1, ()),
    "vocabulary": (0.05, ()),
    "encoder": (0.25, ("tokenizer",)),
    "aligner": (0.1, ("vocabulary",)),
    "language": (0.05, ("vocabulary",)),
    "ranker": (0.15, ("encoder",)),
    "classifier": (0.2, ("encoder", "language")),
    "reader": (0.3, ("aligner",)),
    "summary": (0.25, ("ranker", "reader")),
    "answers": (0.1, ("classifier", "reader")),
    "judge": (0.15, ("summary", "answers")),
    "guard": (0.1, ("language",)),
}
"""Twelve models: how many seconds each loads, and what it needs."""


class Crowd(NamedTuple):
    """What became of many callers of one cold model."""

    loads: int
    served: int
    errors: int


# A thousand callers


async def crowd(call: Callable[[], Awaitable[object]], count_loads: Callable[[], int]) -> Crowd:
    """Let the callers come, take every second one away while the load runs, and wait for the others."""
    tasks = [asyncio.ensure_future(call()) for _ in range(CALLERS)]
    await asyncio.sleep(LOADER_S / 4)
    for task in tasks[::2]:  # the first one, for whom the load began, among them
        task.cancel()
    outcomes = await asyncio.gather(*tasks[1::2], return_exceptions=True)
    await asyncio.gather(*tasks, return_exceptions=True)
    errors = sum(isinstance(outcome, BaseException) for outcome in outcomes)
    return Crowd(count_loads(), len(outcomes) - errors, errors)


def counting_loader() -> tuple[Callable[[], object], Callable[[], int]]:
    """Return a loader that waits, and how often it was called."""
    calls: list[float] = []

    def load() -> object:
        calls.append(time.monotonic())
        time.sleep(LOADER_S)
        return object()

    return load, calls.__len__


async def crowd_of_pool() -> Crowd:
    """Let the crowd lease."""
    load, count = counting_loader()
    pool = ModelPool()
    pool.register(ModelSpec("cold", load=load))

    async def call() -> None:
        async with pool.lease("cold"):
            pass

    async with pool:
        return await crowd(call, count)


async def crowd_of_lru_cache() -> Crowd:
    """Let the crowd call a cached loader in threads."""
    load, count = counting_loader()
    cached = functools.lru_cache(maxsize=1)(load)
    return await crowd(lambda: asyncio.to_thread(cached), count)


async def crowd_of_lock() -> Crowd:
    """Let the crowd load under a lock what is not in the dictionary yet."""
    load, count = counting_loader()
    models: dict[str, object] = {}
    lock = asyncio.Lock()

    async def call() -> object:
        async with lock:
            if "cold" not in models:
                models["cold"] = await asyncio.to_thread(load)
            return models["cold"]

    return await crowd(call, count)


def cold_callers(figures: Figures, *, is_quick: bool) -> None:
    """Count the loads and errors of many callers of a model that is not loaded, half of whom leave."""
    conditions = f"{CALLERS} callers, every second one cancelled during the load of {LOADER_S} s"
    rounds = [asyncio.run(crowd_of_pool()) for _ in range(2 if is_quick else 7)]
    worst = Crowd(
        max(found.loads for found in rounds),
        min(found.served for found in rounds),
        max(found.errors for found in rounds),
    )
    conditions += f"; worst of {len(rounds)} rounds"
    figures.add(Figure("cold callers: loads", worst.loads, "loads", 1, conditions=conditions))
    figures.add(Figure("cold callers: errors of those who stay", worst.errors, "errors", 0, conditions=conditions))
    figures.add(
        Figure(
            "cold callers: served of those who stay", worst.served, "callers", CALLERS / 2, "higher", None, conditions
        )
    )
    peers = (("functools.lru_cache in threads", crowd_of_lru_cache), ("a dict under asyncio.Lock", crowd_of_lock))
    for peer, gather in peers:
        found = asyncio.run(gather())
        conditions = f"one round; {found.errors} errors"
        figures.add(Figure("cold callers: loads, peer", found.loads, "loads", peer=peer, conditions=conditions))


# Loads side by side


async def seconds_of_loads(models: dict[str, tuple[float, tuple[str, ...]]]) -> float:
    """Return how long the pool takes to load all of the models."""
    pool = ModelPool(max_demand_loads=CONCURRENCY)
    for name, (load_s, needs) in models.items():
        pool.register(ModelSpec(name, load=functools.partial(wait, load_s), depends_on=needs))
    async with pool:
        begun_s = time.perf_counter()
        await asyncio.gather(*(pool.load(name) for name in models))
        return time.perf_counter() - begun_s


def wait(seconds: float) -> object:
    """Be a loader that waits."""
    time.sleep(seconds)
    return object()


async def seconds_by_levels(models: dict[str, tuple[float, tuple[str, ...]]]) -> float:
    """Return how long it takes to load level by level, as the standard library's sorter invites to."""
    sorter = graphlib.TopologicalSorter({name: needs for name, (_, needs) in models.items()})
    sorter.prepare()
    turns = asyncio.Semaphore(CONCURRENCY)

    async def load(name: str) -> None:
        async with turns:
            await asyncio.to_thread(wait, models[name][0])

    begun_s = time.perf_counter()
    while sorter.is_active():
        level = sorter.get_ready()
        await asyncio.gather(*map(load, level))
        sorter.done(*level)
    return time.perf_counter() - begun_s


def critical_path_s(models: dict[str, tuple[float, tuple[str, ...]]]) -> float:
    """Return the seconds of the longest chain."""

    def chain_s(name: str) -> float:
        load_s, needs = models[name]
        return load_s + max(map(chain_s, needs), default=0.0)

    return max(map(chain_s, models))


def parallel_loads(figures: Figures, *, is_quick: bool) -> None:
    """Time five loads that need nothing of each other, and twelve that do."""
    rounds = 3 if is_quick else 7
    five: dict[str, tuple[float, tuple[str, ...]]] = {f"model-{number}": (FIVE_S, ()) for number in range(5)}
    taken_s = median(asyncio.run(seconds_of_loads(five)) for _ in range(rounds))
    conditions = f"each waits {FIVE_S} s, concurrency {CONCURRENCY}, median of {rounds} rounds"
    figures.add(Figure("five independent loads", taken_s, "s", 0.5, conditions=conditions))
    ours_s, levels_s = [], []
    for _ in range(rounds):
        levels_s.append(asyncio.run(seconds_by_levels(DAG)))
        ours_s.append(asyncio.run(seconds_of_loads(DAG)))
    longest_s = critical_path_s(DAG)
    conditions = f"critical path {longest_s:.2f} s, concurrency {CONCURRENCY}, median of {rounds} interleaved rounds"
    what = "twelve loads of a DAG, against its critical path"
    figures.add(Figure(what, median(ours_s) / longest_s, "x", 1.1, conditions=conditions))
    peer = "graphlib, level by level"
    figures.add(Figure(f"{what}: peer", median(levels_s) / longest_s, "x", peer=peer, conditions=conditions))


# One lease


class Holder:
    """The least that `async with` costs: a counter that goes up and down."""

    def __init__(self) -> None:
        """Begin at none."""
        self.leases = 0

    async def __aenter__(self) -> object:
        """Count up."""
        self.leases += 1
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Count down."""
        self.leases -= 1


async def cpu_us(lease: Callable[[], AbstractAsyncContextManager[Any]], count: int) -> float:
    """Return the CPU microseconds of a lease and its return."""
    begun_ns = time.process_time_ns()
    for _ in range(count):
        async with lease():
            pass
    return (time.process_time_ns() - begun_ns) / 1e3 / count


@asynccontextmanager
async def ready_pools(folder: str) -> AsyncIterator[tuple[ModelPool, ModelPool]]:
    """Hold a pool alone and one in a whole service, in both of which the model is ready."""
    spec = ModelSpec("ready", load=object)
    alone = ModelPool()
    places = {"data_dir": f"{folder}/data", "log_dir": f"{folder}/logs"}
    service = OptimizationService(load_settings(environ={}, dotenv_path=None, arguments=places).values)
    for pool in (alone, service.models):
        pool.register(spec)
    async with alone, service:
        await asyncio.gather(alone.load("ready"), service.models.load("ready"))
        yield alone, service.models


async def measure_leases(folder: str, rounds: int, count: int) -> dict[str, float]:
    """Return the median microseconds of each kind, taking turns."""
    found: dict[str, list[float]] = {"alone": [], "service": [], "least": []}
    async with ready_pools(folder) as (alone, whole):
        ways: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
            "alone": functools.partial(alone.lease, "ready"),
            "service": functools.partial(whole.lease, "ready"),
            "least": Holder,
        }
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(await cpu_us(way, count))
    return {name: median(times) for name, times in found.items()}


def lease_cost(figures: Figures, *, is_quick: bool) -> None:
    """Measure the CPU time of a lease and its return."""
    rounds, count = (5, 2_000) if is_quick else (21, 10_000)
    with tempfile.TemporaryDirectory() as folder, one_core():
        found = asyncio.run(measure_leases(folder, rounds, count))
    conditions = f"median of {rounds} interleaved rounds of {count}, one core"
    what = "lease and return of a ready model"
    figures.add(Figure(f"{what}: the pool alone", found["alone"], "CPU us", 3, conditions=conditions))
    figures.add(
        Figure(f"{what}: with the whole service's listeners", found["service"], "CPU us", conditions=conditions)
    )
    peer = "a counter in `async with`"
    figures.add(Figure(f"{what}: the least possible", found["least"], "CPU us", peer=peer, conditions=conditions))
