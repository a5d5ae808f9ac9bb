"""A model is loaded anew beside the copy that serves: by hand, or because another specification was registered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ondol.errors import ModelLoadError
from ondol.models import ModelPool, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from tests.service.models_fakes import FakeModel


async def timed_use(pool: ModelPool, clock: VirtualClock, name: str) -> tuple[FakeModel, float]:
    """Return the model and how long it was waited for."""
    begun_s = clock.monotonic()
    model = await use(pool, name)
    return model, clock.monotonic() - begun_s


def test_a_reload_keeps_nobody_waiting_and_drains_the_old_copy() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            holder = asyncio.create_task(use(pool, "m", seconds=5.0))
            await asyncio.sleep(1.5)
            reload = asyncio.create_task(pool.reload("m"))
            await asyncio.sleep(0.5)
            status = pool.status("m")
            assert status.state == "ready"
            assert status.progress == pytest.approx(0.5)
            assert status.eta_s == pytest.approx(0.5)
            assert "a new copy loads beside it" in status.reason
            assert await timed_use(pool, clock, "m") == (fleet.made[0], 0.0)
            await reload
            assert "unload m" not in fleet.journal  # the holder has it still
            assert await timed_use(pool, clock, "m") == (fleet.made[1], 0.0)
            await holder
            await asyncio.sleep(0.1)
            assert fleet.made[0].is_unloaded
            assert pool.get_stats()["reloads"] == 1
            assert pool.status("m").load_count == 2
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_replacement_loads_beside_and_takes_over() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m", version="1"))
        async with pool:
            await use(pool, "m")
            pool.register(fleet.spec("m", priority=7, version="2"), replace=True)
            assert await timed_use(pool, clock, "m") == (fleet.made[0], 0.0)
            assert pool.status("m").version == "1"
            await asyncio.sleep(1.5)
            assert await timed_use(pool, clock, "m") == (fleet.made[1], 0.0)
            assert (pool.status("m").version, pool.status("m").priority) == ("2", 7)
            assert fleet.made[0].is_unloaded
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_replacement_that_does_not_load_leaves_the_old_one_serving() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            await use(pool, "m")
            fleet.failing.add("m")
            with pytest.raises(ModelLoadError, match="m is broken"):
                await pool.reload("m")
            status = pool.status("m")
            assert (status.state, status.last_error) == (ModelState.READY, "OSError: m is broken")
            assert "ready; a new copy failed to load" in status.reason
            assert await timed_use(pool, clock, "m") == (fleet.made[0], 0.0)
            await asyncio.sleep(100)
            assert len(fleet.loads()) == 2  # nothing is tried again by itself: the old one serves
            fleet.failing.clear()
            await pool.reload("m")
            assert pool.status("m").last_error is None
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_was_built_on_it_is_loaded_anew_too_and_the_old_base_goes_last() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            holder = asyncio.create_task(use(pool, "app", seconds=6.0))
            await asyncio.sleep(2.5)
            old_base, old_app = fleet.made
            await pool.reload("base")
            assert await use(pool, "base") is not old_base
            assert await timed_use(pool, clock, "app") == (old_app, 0.0)
            await asyncio.sleep(1.5)
            assert (await timed_use(pool, clock, "app"))[1] == 0.0
            assert fleet.loads() == ["base", "app", "base", "app"]
            assert not old_base.is_unloaded  # the old app, still leased, was built on it
            await holder
            await asyncio.sleep(0.1)
            assert fleet.journal[-2:] == ["unload app", "unload base"]
            assert (old_app.is_unloaded, old_base.is_unloaded) == (True, True)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_without_room_for_two_the_old_copy_goes_first() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=60))
        pool.register(fleet.spec("other", size_bytes=40))
        async with pool:
            await use(pool, "m")
            await use(pool, "other")
            await pool.reload("m")
            # Even without the other there is room for only one of 60: nobody else has to go for that.
            assert fleet.journal == ["load m", "load other", "unload m", "load m"]
            assert pool.get_stats()["used_bytes"] <= 100
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_the_copy_that_serves_is_not_evicted_for_others_while_it_is_loaded_anew() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=40))
        pool.register(fleet.spec("next", size_bytes=40))
        async with pool:
            await use(pool, "m")
            reload = asyncio.create_task(pool.reload("m"))
            await asyncio.sleep(0.5)
            demand = asyncio.create_task(use(pool, "next"))
            await asyncio.sleep(0.1)
            assert await timed_use(pool, clock, "m") == (fleet.made[0], 0.0)
            await asyncio.gather(reload, demand)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_reload_of_what_is_not_loaded_loads_it_and_one_during_a_load_loads_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.reload("m")
            assert fleet.loads() == ["m"]
            await pool.unload("m")
            caller = asyncio.create_task(use(pool, "m"))
            await asyncio.sleep(0.5)
            await pool.reload("m")
            await caller
            assert fleet.loads() == ["m", "m", "m"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_the_stop_comes_in_the_middle_of_a_reload() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        await pool.start()
        await use(pool, "m")
        reload = asyncio.create_task(pool.reload("m"))
        await asyncio.sleep(0.5)
        await pool.stop()
        assert isinstance((await asyncio.gather(reload, return_exceptions=True))[0], Exception)
        check_ended(pool, fleet)

    run_virtual(scenario)
