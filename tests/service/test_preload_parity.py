"""The live preloader decides as the replay of ``benchmarks/preload_replay.py`` does, for the same events."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ondol.models import ModelPool, ModelSpec
from ondol.preload import Preloader
from ondol.testing import VirtualClock, run_virtual

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
from preload_replay_ondol import Ondol
from preload_replay_pool import ModelFigures, Pool, Requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

Decision = tuple[float, str, str]

LOAD_S = {f"m{index:02}": 0.5137 + 0.25 * (index % 7) for index in range(24)}
"""No load ends at the very time of a request: then either might come first."""
SIZE_BYTES = {name: int(1e6 * (1.0 + 0.5 * (place % 5))) for place, name in enumerate(LOAD_S)}
BUDGET_BYTES = int(sum(SIZE_BYTES.values()) * 0.3)


def trace(seed: int, hours: float) -> list[tuple[float, str]]:
    """Timers, models used at random, and bursts; no two requests in the same tenth of a second."""
    draw = random.Random(seed)
    found: dict[int, str] = {}
    for place, name in enumerate(LOAD_S):
        at_s = draw.uniform(1.0, 300.0)
        mean_s = (300.0, 600.0, 900.0)[place % 3]
        while at_s < hours * 3600.0:
            found.setdefault(int(at_s * 10), name)
            if place % 3 == 0:
                at_s += mean_s + draw.uniform(-4.0, 4.0)
            elif place % 3 == 1:
                at_s += draw.expovariate(1.0 / mean_s)
            else:
                at_s += draw.expovariate(1.0 / 20.0) if draw.random() < 0.8 else draw.expovariate(1.0 / 3000.0)
    return [(tenths / 10.0, name) for tenths, name in sorted(found.items())]


def replayed(events: Sequence[tuple[float, str]]) -> list[Decision]:
    names = sorted(LOAD_S)
    decisions: list[Decision] = []

    class Recording(Ondol):
        def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:
            decisions.append((round(now_s, 6), "ahead" if is_prefetch else "load", names[model]))
            super().loading(model, now_s, is_prefetch=is_prefetch)

        def left(self, model: int, now_s: float) -> None:
            decisions.append((round(now_s, 6), "leave", names[model]))
            super().left(model, now_s)

    models = [ModelFigures(name, SIZE_BYTES[name], LOAD_S[name]) for name in names]
    pool = Pool(models, BUDGET_BYTES, Recording(), 0.0)
    pool.replay(Requests([at_s for at_s, _ in events], [names.index(name) for _, name in events]))
    return decisions


def lived(events: Sequence[tuple[float, str]]) -> tuple[list[Decision], dict[str, float]]:
    decisions: list[Decision] = []
    figures: dict[str, float] = {}

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=BUDGET_BYTES, max_demand_loads=2)
        preloader = Preloader(pool, clock=clock)
        ahead: Collection[str] = preloader.foresight.under_way

        def noticed(event: str, name: str) -> None:
            if event in {"loading", "leaving"}:
                what = "leave" if event == "leaving" else "ahead" if name in ahead else "load"
                decisions.append((round(clock.monotonic() - start_s, 6), what, name))

        for name in sorted(LOAD_S):
            pool.register(ModelSpec(name, _loader(name), size_bytes=SIZE_BYTES[name], load_seconds=LOAD_S[name]))
        async with pool:
            await preloader.start()
            pool.add_listener(noticed)
            start_s = clock.monotonic()
            tasks = [asyncio.ensure_future(_request(pool, clock, start_s + at_s, name)) for at_s, name in events]
            await asyncio.gather(*tasks)
            figures.update(preloader.get_stats()["foresight"])
            seen = len(decisions)
            await preloader.stop()
        del decisions[seen:]  # at the stop everything leaves

    run_virtual(scenario)
    return decisions, figures


def _loader(name: str) -> Callable[[], Awaitable[str]]:
    async def load() -> str:
        await asyncio.sleep(LOAD_S[name])
        return name

    return load


async def _request(pool: ModelPool, clock: VirtualClock, at_s: float, name: str) -> None:
    await asyncio.sleep(at_s - clock.monotonic())
    async with pool.lease(name):
        pass


def test_the_live_preloader_decides_as_the_replay_does() -> None:
    events = trace(seed=1, hours=8.0)
    live, figures = lived(events)
    last_s = events[-1][0]
    expected = [decision for decision in replayed(events) if decision[0] <= last_s]
    assert [decision for decision in live if decision[0] <= last_s] == expected
    # What makes it a test: there were loads for requests and ahead of use, and models left for both.
    kinds = [what for _, what, _ in expected]
    assert min(kinds.count(what) for what in ("load", "ahead", "leave")) >= 30
    assert figures["used"] > figures["wasted"]
