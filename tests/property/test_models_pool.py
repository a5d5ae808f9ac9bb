"""Random histories of a pool on virtual time.

Whatever leases, cancellations, unloads, replacements, failures and limits come in whatever order: no leased model is
unloaded, the ledger stays within the budget, every waiter ends, and nothing is left over.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondol.errors import OndolError
from ondol.models import ModelPool, ModelSpec
from ondol.testing import VirtualClock, run_virtual

LIMIT = 100
NAMES = ("base", "left", "right", "app", "lone", "large", "odd")
DEPENDS_ON = {"left": ("base",), "right": ("base",), "app": ("left", "right")}
SIZES = {"base": 20, "left": 20, "right": 25, "app": 25, "lone": 60, "large": 95, "odd": 10}

ACTION = st.one_of(
    st.tuples(st.just("lease"), st.sampled_from(NAMES), st.integers(0, 30)),
    st.tuples(st.just("load"), st.sampled_from(NAMES), st.integers(0, 1)),
    st.tuples(st.just("unload"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 50)),
    st.tuples(st.just("fail"), st.sampled_from(NAMES), st.integers(0, 1)),
    st.tuples(st.just("replace"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("limit"), st.just(""), st.sampled_from([30, 60, LIMIT])),
    st.tuples(st.just("stop"), st.just(""), st.just(0)),
)
STEPS = st.lists(st.tuples(ACTION, st.sampled_from([0.0, 0.0, 0.3, 1.0, 4.0])), min_size=1, max_size=30)


class World:
    """The pool, what it loaded, and what must hold at every moment."""

    def __init__(self, clock: VirtualClock) -> None:
        self.rss_bytes = 0
        self.failing: set[str] = set()
        self.held: dict[int, int] = {}
        self.alive: set[int] = set()
        self.made = 0
        self.limits = [LIMIT]
        self.callers: list[asyncio.Task[None]] = []
        self.pool = ModelPool(
            clock=clock, memory_limit_bytes=LIMIT, lease_timeout_s=20.0, stop_grace_s=1000.0, memory_probe=self.probe
        )
        self.pool.add_listener(self.check)
        for name in NAMES:
            self.pool.register(self.spec(name))

    def probe(self) -> int:
        return self.rss_bytes

    def spec(self, name: str) -> ModelSpec:
        real = SIZES[name] + (15 if name == "odd" else 0)  # larger than it says

        async def load() -> int:
            await asyncio.sleep(1.0)
            if name in self.failing:
                raise OSError(name)
            self.rss_bytes += real
            self.made += 1
            self.alive.add(self.made)
            return self.made

        async def unload(model: int) -> None:
            assert self.held.get(model, 0) == 0, f"{name} was unloaded while leased"
            self.alive.remove(model)
            await asyncio.sleep(0.5)
            self.rss_bytes -= real

        return ModelSpec(name, load, depends_on=DEPENDS_ON.get(name, ()), size_bytes=SIZES[name], unload=unload)

    def check(self, _event: str = "", _name: str = "") -> None:
        used = self.pool.get_stats()["used_bytes"]
        # What was booked under an earlier, higher limit may still be leased.
        assert 0 <= used <= max(self.limits)

    async def lease(self, name: str, seconds: float) -> None:
        async with self.pool.lease(name) as model:
            self.held[model] = self.held.get(model, 0) + 1
            try:
                assert model in self.alive
                for dependency in DEPENDS_ON.get(name, ()):
                    assert self.pool.status(dependency).state in {"ready", "draining"}
                await asyncio.sleep(seconds)
                assert model in self.alive
            finally:
                self.held[model] -= 1

    def act(self, kind: str, name: str, number: int) -> None:
        if kind == "lease":
            self.callers.append(asyncio.create_task(self.lease(name, number / 10)))
        elif kind == "load":
            self.callers.append(asyncio.create_task(self.pool.load(name, is_background=bool(number))))
        elif kind == "unload":
            self.callers.append(asyncio.create_task(self.ignore_result(self.pool.unload(name))))
        elif kind == "cancel" and self.callers:
            self.callers[number % len(self.callers)].cancel()
        elif kind == "fail":
            (self.failing.add if number else self.failing.discard)(name)
        elif kind == "replace":
            self.pool.register(self.spec(name), replace=True)
        elif kind == "limit":
            self.limits.append(number)
            self.pool.configure(memory_limit_bytes=number)

    @staticmethod
    async def ignore_result(work: Any) -> None:
        await work

    async def end(self) -> None:
        """Let every caller come to its end, then stop; whatever is left over is a mistake."""
        results = await asyncio.wait_for(asyncio.gather(*self.callers, return_exceptions=True), timeout=10_000)
        self.callers.clear()
        strange = [r for r in results if r is not None and not isinstance(r, OndolError | asyncio.CancelledError)]
        assert not strange, strange
        self.check()
        await self.pool.stop()
        stats = self.pool.get_stats()
        assert (stats["used_bytes"], stats["listener_failures"], stats["unload_failures"]) == (0, 0, 0)
        assert not self.alive
        assert self.rss_bytes == 0
        assert all(row["leases"] == 0 for row in stats["models"])
        assert {row["state"] for row in stats["models"]} <= {"registered", "unloaded", "failed", "blocked"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_history_ends_well(steps: list[tuple[tuple[str, str, int], float]]) -> None:
    async def scenario(clock: VirtualClock) -> None:
        world = World(clock)
        await world.pool.start()
        for (kind, name, number), pause_s in steps:
            if kind == "stop":
                stopping = asyncio.create_task(world.pool.stop())
                await asyncio.sleep(pause_s)
                await stopping
                await world.pool.start()
                continue
            world.act(kind, name, number)
            world.check()
            await asyncio.sleep(pause_s)
        await world.end()

    run_virtual(scenario)
