from __future__ import annotations

import asyncio

import pytest

from ondol.errors import LeaseTimeoutError, ModelBudgetError, ModelNotLoadedError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use


def ready(pool: ModelPool) -> set[str]:
    return {status.name for status in pool.statuses() if status.state is ModelState.READY}


def test_the_least_recently_used_leaves_when_room_is_needed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("a", "b", "c"):
            pool.register(fleet.spec(name, size_bytes=50))
        async with pool:
            for name in ("a", "b", "a", "c"):
                await use(pool, name)
            assert ready(pool) == {"a", "c"}
            assert (pool.get_stats()["evictions"], pool.get_stats()["used_bytes"]) == (1, 100)
            assert pool.status("b").reason == "evicted: makes room for c"
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_waits_for_room_until_a_lease_ends() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(unload_seconds=0.5), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("held", size_bytes=60))
        pool.register(fleet.spec("next", size_bytes=60))
        async with pool:
            holder = asyncio.create_task(use(pool, "held", seconds=10.0))
            await asyncio.sleep(1.5)
            waiter = asyncio.create_task(use(pool, "next"))
            await asyncio.sleep(1)
            status = pool.status("next")
            assert status.state is ModelState.QUEUED
            assert "held" in status.reason
            assert "limit 100 B" in status.reason
            await asyncio.gather(holder, waiter)
            assert clock.monotonic() == pytest.approx(12.5)  # load, lease, unload, load
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_when_everything_stays_leased_the_wait_ends_with_the_figures() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100, lease_timeout_s=5.0)
        pool.register(fleet.spec("held", size_bytes=60))
        pool.register(fleet.spec("next", size_bytes=60))
        async with pool:
            holder = asyncio.create_task(use(pool, "held", seconds=30.0))
            await asyncio.sleep(1.5)
            with pytest.raises(LeaseTimeoutError, match=r"queued \(.*needs 60 B; limit 100 B"):
                await use(pool, "next")
            await holder
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_larger_than_the_budget_is_refused_before_anything_is_loaded_or_evicted() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("small", size_bytes=40))
        pool.register(fleet.spec("big", size_bytes=101))
        pool.register(fleet.spec("pair", ("base",), size_bytes=60))
        pool.register(fleet.spec("base", size_bytes=60))
        async with pool:
            await use(pool, "small")
            with pytest.raises(ModelBudgetError, match=r"needs 101 B.*100 B"):
                await use(pool, "big")
            with pytest.raises(ModelBudgetError, match=r"needs 60 B beside 60 B"):
                await use(pool, "pair")
            assert fleet.journal == ["load small"]
            assert pool.status("big").state is ModelState.FAILED
            pool.configure(memory_limit_bytes=None)
            await use(pool, "big")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_pinned_and_leased_models_and_dependencies_in_use_stay() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("pinned", size_bytes=20, residency="pinned"))
        pool.register(fleet.spec("base", size_bytes=20))
        pool.register(fleet.spec("app", ("base",), size_bytes=20))
        pool.register(fleet.spec("idle", size_bytes=40))
        pool.register(fleet.spec("next", size_bytes=40))
        async with pool:
            await use(pool, "pinned")
            holder = asyncio.create_task(use(pool, "app", seconds=50.0))
            await asyncio.sleep(3)
            await use(pool, "idle")
            await use(pool, "next")
            assert ready(pool) == {"pinned", "base", "app", "next"}
            await holder
            for _ in range(3):
                await use(pool, "next")
            await use(pool, "idle")  # 40 of room: byte by byte, app and base were used less than next
            assert ready(pool) == {"pinned", "next", "idle"}
            assert fleet.journal[-3:] == ["unload app", "unload base", "load idle"]
            pool.register(fleet.spec("whole", size_bytes=90))
            with pytest.raises(ModelBudgetError, match="beside 20 B of pinned"):
                await use(pool, "whole")
            assert await pool.unload("pinned")
            await use(pool, "whole")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_background_load_displaces_nothing_better_and_gives_up_without_room() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("used", size_bytes=80, priority=5))
        pool.register(fleet.spec("equal", size_bytes=80, priority=5))
        pool.register(fleet.spec("better", size_bytes=80, priority=6))
        async with pool:
            await use(pool, "used")
            with pytest.raises(ModelBudgetError, match="no room to load 'equal' in the background"):
                await pool.load("equal", is_background=True)
            assert pool.status("equal").state is ModelState.REGISTERED
            assert ready(pool) == {"used"}
            await pool.load("better", is_background=True)
            assert ready(pool) == {"better"}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_background_load_waits_while_a_demand_waits_for_room_and_can_be_taken_back() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name, size in (("held", 60), ("demanded", 60), ("ahead", 10)):
            pool.register(fleet.spec(name, size_bytes=size))
        async with pool:
            holder = asyncio.create_task(use(pool, "held", seconds=10.0))
            await asyncio.sleep(1.5)
            waiter = asyncio.create_task(use(pool, "demanded"))
            ahead = asyncio.create_task(pool.load("ahead", is_background=True))
            await asyncio.sleep(1)
            assert pool.status("ahead").reason == "waits behind a request that waits for room"
            assert not await pool.unload("ahead")
            with pytest.raises(ModelNotLoadedError, match="taken back"):
                await ahead
            assert pool.status("ahead").state is ModelState.REGISTERED
            await asyncio.gather(holder, waiter)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_lowered_limit_lets_idle_models_go_at_once_and_leased_ones_later() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("held", "idle"):
            pool.register(fleet.spec(name, size_bytes=40))
        async with pool:
            await use(pool, "idle")
            holder = asyncio.create_task(use(pool, "held", seconds=5.0))
            await asyncio.sleep(1.5)
            await asyncio.to_thread(pool.configure, memory_limit_bytes=30)
            await asyncio.sleep(0.1)
            assert ready(pool) == {"held"}
            await holder
            await asyncio.sleep(0.1)
            assert pool.get_stats()["used_bytes"] == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_memory_is_measured_by_growth_only_for_a_load_that_ran_alone() -> None:
    rss = [1000]

    def growing(size: int) -> ModelSpec:
        async def load() -> str:
            rss[0] += size
            await asyncio.sleep(1)
            return "model"

        return ModelSpec(f"m{size}", load=load, size_bytes=10)

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_probe=lambda: rss[0])
        for size in (70, 80, 90):
            pool.register(growing(size))
        async with pool:
            await pool.load("m70")
            await asyncio.gather(pool.load("m80"), pool.load("m90"))
            assert [status.size_bytes for status in pool.statuses()] == [70, 10, 10]
            assert pool.get_stats()["used_bytes"] == 90

    run_virtual(scenario)


def test_a_model_that_takes_more_than_expected_evicts_or_waits_but_never_overshoots() -> None:
    rss = [0]
    highest = [0]

    def growing(name: str, size: int) -> ModelSpec:
        async def load() -> str:
            await asyncio.sleep(1)
            rss[0] += size
            return name

        async def unload(_model: str) -> None:
            rss[0] -= size

        return ModelSpec(name, load=load, unload=unload)

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=100, memory_probe=lambda: rss[0])
        pool.add_listener(lambda *_: highest.append(pool.get_stats()["used_bytes"]))
        for name, size in (("a", 60), ("b", 70), ("huge", 150)):
            pool.register(growing(name, size))

        async def hold(name: str, seconds: float) -> None:
            async with pool.lease(name):
                await asyncio.sleep(seconds)

        async with pool:
            await hold("a", 0)
            await hold("b", 0)  # its size is not known before: a leaves only then
            assert ready(pool) == {"b"}
            holder = asyncio.create_task(hold("b", 10))
            pool.register(growing("c", 40))
            await asyncio.sleep(0)
            await hold("c", 0)  # does not fit beside b, which is leased: loaded once more when b's lease has ended
            await holder
            assert ready(pool) == {"c"}
            assert (pool.status("c").size_bytes, pool.status("c").load_count) == (40, 1)
            with pytest.raises(ModelBudgetError, match="needs 150 B"):
                await pool.load("huge")
            assert max(highest) <= 100

    run_virtual(scenario)


def test_a_failing_unload_is_counted_and_frees_the_bytes() -> None:
    def refuse(_model: object) -> None:
        message = "cannot"
        raise OSError(message)

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(ModelSpec("m", load=object, size_bytes=60, unload=refuse))
        async with pool:
            await pool.load("m")
            assert await pool.unload("m")
            assert (pool.get_stats()["unload_failures"], pool.get_stats()["used_bytes"]) == (1, 0)

    run_virtual(scenario)


def test_what_a_load_depends_on_does_not_make_room_for_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=50))
        pool.register(fleet.spec("other", size_bytes=40))
        pool.register(fleet.spec("app", ("base",), size_bytes=45))
        async with pool:
            await use(pool, "base")  # used least recently, and yet it stays
            await use(pool, "other")
            await use(pool, "app")
            assert fleet.journal == ["load base", "load other", "unload other", "load app"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_bytes_of_a_model_that_still_is_leased_do_not_count_as_leaving() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("held", "idle", "next"):
            pool.register(fleet.spec(name, size_bytes=50))
        async with pool:
            await use(pool, "idle")
            holder = asyncio.create_task(use(pool, "held", seconds=60.0))
            await asyncio.sleep(1.5)
            unload = asyncio.create_task(pool.unload("held"))
            await asyncio.sleep(0)
            await use(pool, "next")  # takes the room of the idle one instead of waiting for the lease
            assert not holder.done()
            assert ready(pool) == {"next"}
            await asyncio.gather(holder, unload)
        check_ended(pool, fleet)

    run_virtual(scenario)
