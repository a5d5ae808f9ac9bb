"""Models that say nothing of their size: what they take is found out, and the limit holds for them too."""

from __future__ import annotations

import asyncio

from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.models.measuring import PATIENCE_S
from ondol.testing import VirtualClock, run_virtual


class Machine:
    """Memory that models really take, whatever they say."""

    def __init__(self) -> None:
        self.rss_bytes = 1000
        self.most_bytes = 0
        self.loading = 0
        self.most_loading = 0

    def probe(self) -> int:
        return self.rss_bytes

    def spec(self, name: str, size: int, seconds: float = 1.0) -> ModelSpec:
        async def load() -> str:
            self.loading += 1
            self.most_loading = max(self.most_loading, self.loading)
            for _ in range(10):
                await asyncio.sleep(seconds / 10)
                self.rss_bytes += size // 10
                self.most_bytes = max(self.most_bytes, self.rss_bytes - 1000)
            self.loading -= 1
            return name

        async def unload(_model: str) -> None:
            await asyncio.sleep(0.1)
            self.rss_bytes -= size

        return ModelSpec(name, load, unload=unload)


async def use(pool: ModelPool, name: str) -> None:
    async with pool.lease(name):
        await asyncio.sleep(0.5)


def make_pool(clock: VirtualClock, machine: Machine, limit_bytes: int | None) -> ModelPool:
    return ModelPool(clock=clock, memory_limit_bytes=limit_bytes, memory_probe=machine.probe, max_demand_loads=5)


def test_where_room_is_plenty_they_load_side_by_side_and_share_what_they_took_together() -> None:
    async def scenario(clock: VirtualClock) -> None:
        machine = Machine()
        pool = make_pool(clock, machine, 1_000_000)
        for index in range(5):
            pool.register(machine.spec(f"m{index}", 100 * (index + 1)))
        async with pool:
            begun_s = clock.monotonic()
            await asyncio.gather(*(use(pool, f"m{index}") for index in range(5)))
            assert clock.monotonic() - begun_s < 2.0
            assert machine.most_loading == 5
            total = sum(status.size_bytes or 0 for status in pool.statuses())
            assert abs(total - 1500) <= 5  # each may be wrong, together they are right
            assert pool.get_stats()["used_bytes"] == total

    run_virtual(scenario)


def test_a_guess_is_replaced_by_the_first_load_that_runs_alone_and_is_not_kept() -> None:
    async def scenario(clock: VirtualClock) -> None:
        machine = Machine()
        pool = make_pool(clock, machine, 1_000_000)
        pool.register(machine.spec("small", 100))
        pool.register(machine.spec("large", 900))
        async with pool:
            await asyncio.gather(use(pool, "small"), use(pool, "large"))
            assert pool.status("small").size_bytes != 100
            await pool.unload("small")
            await use(pool, "small")
            assert pool.status("small").size_bytes == 100
            await pool.unload("large")
            await use(pool, "large")
            assert pool.status("large").size_bytes == 900

    run_virtual(scenario)


def test_under_a_tight_limit_memory_is_exceeded_by_what_nobody_could_know_and_not_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        machine = Machine()
        pool = make_pool(clock, machine, 650)
        for index in range(10):
            pool.register(machine.spec(f"m{index}", 200))
        async with pool:
            await asyncio.gather(*(use(pool, f"m{index}") for index in range(10)))
            assert machine.most_bytes <= 5 * 200  # the first five at once: nothing was known then
            for _ in range(3):
                machine.most_bytes = 0
                await asyncio.gather(*(use(pool, f"m{index}") for index in range(10)))
            assert machine.most_bytes <= 800
            ready = [status for status in pool.statuses() if status.state is ModelState.READY]
            assert 2 <= len(ready) <= 3
            assert machine.rss_bytes - 1000 <= 650

    run_virtual(scenario)


def test_one_that_hangs_does_not_keep_others_waiting_for_long() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def scenario(clock: VirtualClock) -> None:
        machine = Machine()
        pool = make_pool(clock, machine, 200)
        pool.register(ModelSpec("known", lambda: "known", size_bytes=60))
        pool.register(ModelSpec("hangs", hang))
        pool.register(machine.spec("m", 10))
        async with pool:
            await use(pool, "known")
            hanging = asyncio.create_task(pool.load("hangs"))
            await asyncio.sleep(1)
            begun_s = clock.monotonic()
            waiting = asyncio.create_task(use(pool, "m"))
            await asyncio.sleep(1)
            assert "not known is measured" in pool.status("m").reason
            await waiting
            assert PATIENCE_S - 5 < clock.monotonic() - begun_s < PATIENCE_S + 5
            hanging.cancel()

    run_virtual(scenario)


def test_without_a_limit_nobody_waits() -> None:
    async def scenario(clock: VirtualClock) -> None:
        machine = Machine()
        pool = make_pool(clock, machine, None)
        for index in range(5):
            pool.register(machine.spec(f"m{index}", 100))
        async with pool:
            await asyncio.gather(*(use(pool, f"m{index}") for index in range(5)))
            assert machine.most_loading == 5

    run_virtual(scenario)
