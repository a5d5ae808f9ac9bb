from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ondol.errors import LifecycleError, ModelLoadError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use


def test_unload_waits_for_the_lease_and_new_callers_get_a_new_model() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m")
            holder = asyncio.create_task(use(pool, "m", seconds=5.0))
            await asyncio.sleep(0)
            unload = asyncio.create_task(pool.unload("m"))
            await asyncio.sleep(1)
            status = pool.status("m")
            assert (status.state, status.leases, unload.done()) == (ModelState.DRAINING, 1, False)
            second = asyncio.create_task(use(pool, "m"))
            assert await unload
            assert holder.done()
            assert await second is fleet.made[1]
            assert await holder is fleet.made[0]
            assert clock.monotonic() == pytest.approx(7.0)  # load, lease, load anew
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_unload_of_what_loads_serves_its_callers_first() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            caller = asyncio.create_task(use(pool, "m", seconds=1.0))
            await asyncio.sleep(0.5)
            assert await pool.unload("m")
            assert caller.done()
            assert fleet.journal == ["load m", "unload m"]
            assert not await pool.unload("m")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_who_asked_for_an_unload_may_leave() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            holder = asyncio.create_task(use(pool, "m", seconds=5.0))
            await asyncio.sleep(2)
            unload = asyncio.create_task(pool.unload("m"))
            await asyncio.sleep(0)
            unload.cancel()
            await holder
            await asyncio.sleep(0.1)
            assert pool.status("m").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_dependencies_load_first_and_in_parallel_where_they_can() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("app", ("left", "right"), priority=9))
        pool.register(fleet.spec("left", ("base",), priority=1))
        pool.register(fleet.spec("right", ("base",), priority=2))
        pool.register(fleet.spec("base", priority=1))
        async with pool:
            await use(pool, "app")
            assert clock.monotonic() == pytest.approx(3.0)
            assert fleet.loads()[0] == "base"
            assert set(fleet.loads()[1:3]) == {"left", "right"}
            assert fleet.loads()[3] == "app"
            assert await pool.unload("base")
            assert [line for line in fleet.journal if line.startswith("unload")][::3] == ["unload app", "unload base"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_priority_orders_what_waits_and_demand_overtakes_the_background() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, max_background_loads=1, max_demand_loads=1)
        for name, priority in (("low", 1), ("high", 9), ("first", 5), ("second", 5)):
            pool.register(fleet.spec(name, priority=priority))
        pool.register(fleet.spec("needed", ("lifted",), priority=8))
        pool.register(fleet.spec("lifted", priority=1))
        async with pool:
            names = ("first", "second", "low", "high", "needed")
            loads = [asyncio.create_task(pool.load(name, is_background=True)) for name in names]
            await asyncio.sleep(0.5)
            demand = asyncio.create_task(use(pool, "low"))
            await asyncio.gather(*loads, demand)
            assert fleet.loads() == ["first", "low", "high", "lifted", "needed", "second"]
            assert fleet.most_loading == 2  # one of each kind
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_loads_at_once_are_bounded_by_kind() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, max_demand_loads=3, max_background_loads=2)
        for index in range(9):
            pool.register(fleet.spec(f"m{index}"))
        async with pool:
            await asyncio.gather(*(use(pool, f"m{index}") for index in range(9)))
            assert fleet.most_loading == 3
            assert clock.monotonic() == pytest.approx(3.0)
            await asyncio.gather(*(pool.unload(f"m{index}") for index in range(9)))
            fleet.most_loading = 0
            await asyncio.gather(*(pool.load(f"m{index}", is_background=True) for index in range(9)))
            assert fleet.most_loading == 2
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_unregistered_dependency_blocks_visibly_until_it_is_registered() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("app", ("mid",)))
        pool.register(fleet.spec("mid", ("later",)))
        async with pool:
            status = pool.status("app")
            assert (status.state, status.waits_on) == (ModelState.BLOCKED, ("later",))
            assert "later" in status.reason
            with pytest.raises(ModelLoadError, match="waits for later"):
                await use(pool, "app")
            with pytest.raises(ModelLoadError, match="waits for later"):
                await pool.load("mid", is_background=True)
            pool.register(fleet.spec("later"))
            assert pool.status("app").state is ModelState.REGISTERED
            await use(pool, "app")
            assert fleet.loads() == ["later", "mid", "app"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_failed_dependency_blocks_who_needs_it_until_it_loads() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"base"}), ModelPool(clock=clock, retry=None)
        pool.register(fleet.spec("app", ("mid",)))
        pool.register(fleet.spec("mid", ("base",)))
        pool.register(fleet.spec("base"))
        async with pool:
            with pytest.raises(ModelLoadError, match="dependency 'base' failed: base is broken"):
                await use(pool, "app")
            assert pool.status("base").state is ModelState.FAILED
            for name in ("app", "mid"):
                status = pool.status(name)
                assert (status.state, status.waits_on) == (ModelState.BLOCKED, ("base",))
            fleet.failing.clear()
            await pool.load("base")
            assert pool.status("app").state is ModelState.REGISTERED
            await use(pool, "app")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_replaced_while_it_loads_is_loaded_anew() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            caller = asyncio.create_task(use(pool, "m"))
            await asyncio.sleep(0.5)
            pool.register(fleet.spec("m"), replace=True)
            assert await caller is fleet.made[1]
            assert fleet.made[0].is_unloaded
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_stop_under_load_lets_leases_end_and_unloads_dependents_first() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        for index in range(5):
            pool.register(fleet.spec(f"m{index}"))
        await pool.start()
        holder = asyncio.create_task(use(pool, "app", seconds=4.0))
        await asyncio.sleep(2.5)
        cold = [asyncio.create_task(use(pool, f"m{index}")) for index in range(5)]
        await asyncio.sleep(0.1)
        await pool.stop()
        assert holder.done()
        assert holder.exception() is None
        assert clock.monotonic() == pytest.approx(6.0)
        results = await asyncio.gather(*cold, return_exceptions=True)
        assert all(isinstance(result, LifecycleError) for result in results)
        assert fleet.journal[-2:] == ["unload app", "unload base"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_stop_gives_up_after_its_grace_and_leaves_the_holder_its_model() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, stop_grace_s=3.0)
        pool.register(fleet.spec("m"))
        await pool.start()
        holder = asyncio.create_task(use(pool, "m", seconds=60.0))
        await asyncio.sleep(2)
        await pool.stop()
        assert clock.monotonic() == pytest.approx(5.0)
        assert pool.get_stats()["used_bytes"] == 0
        async with pool:  # started again while the old lease is still out
            await use(pool, "m")
            assert pool.status("m").leases == 0
            await holder  # returning it now disturbs nothing
            assert pool.status("m").leases == 0
        assert [model.is_unloaded for model in fleet.made] == [False, True]

    run_virtual(scenario)


def test_stop_twice_at_once_and_start_while_stopping_work() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(unload_seconds=1.0), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        await pool.start()
        await pool.start()
        await use(pool, "m")
        await asyncio.gather(pool.stop(), pool.stop(), pool.start(), pool.start())
        await use(pool, "m")
        await pool.stop()
        await pool.stop()
        assert fleet.loads() == ["m", "m"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_loader_that_hangs_in_its_thread_does_not_hold_up_the_stop() -> None:
    entered, release, gone = threading.Event(), threading.Event(), threading.Event()

    def hang() -> str:
        entered.set()
        release.wait(timeout=30)
        return "late"

    def put_away(model: str) -> None:
        assert model == "late"
        gone.set()

    async def scenario() -> None:
        # On the real loop: virtual time stands still while a thread works.
        pool = ModelPool(stop_grace_s=0.05)
        pool.register(ModelSpec("m", load=hang, unload=put_away))
        await pool.start()
        caller = asyncio.create_task(pool.load("m"))
        await asyncio.to_thread(entered.wait, 10)
        await pool.stop()
        with pytest.raises(LifecycleError):
            await caller
        assert pool.status("m").state is ModelState.REGISTERED
        assert pool.get_stats()["used_bytes"] == 0

    try:
        asyncio.run(scenario())
    finally:
        release.set()
    assert gone.wait(timeout=10), "the model that came too late was not put away"


def test_a_thread_that_ends_within_the_grace_is_waited_for() -> None:
    entered, release, gone = threading.Event(), threading.Event(), threading.Event()

    def load() -> str:
        entered.set()
        release.wait(timeout=30)
        return "model"

    async def scenario() -> None:
        pool = ModelPool(stop_grace_s=20)
        pool.register(ModelSpec("m", load=load, unload=lambda _model: gone.set()))
        await pool.start()
        caller = asyncio.create_task(pool.load("m"))
        await asyncio.to_thread(entered.wait, 10)
        stopping = asyncio.create_task(pool.stop())
        await asyncio.sleep(0)
        release.set()
        await stopping
        assert gone.is_set()
        assert isinstance(caller.exception(), LifecycleError)

    asyncio.run(scenario())


def test_it_outlives_event_loops_with_and_without_a_stop() -> None:
    fleet, pool = Fleet(load_seconds=0.0), ModelPool()
    pool.register(fleet.spec("m"))
    pool.register(fleet.spec("slow"))

    async def orderly() -> None:
        async with pool:
            await use(pool, "m")

    async def abandoned() -> None:
        await pool.start()
        await use(pool, "m")
        fleet.load_seconds = 100.0
        task = asyncio.create_task(use(pool, "slow"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pool.status("slow").state is ModelState.LOADING
        assert not task.done()

    asyncio.run(orderly())
    asyncio.run(abandoned())
    fleet.load_seconds = 0.0
    asyncio.run(orderly())
    assert fleet.loads() == ["m", "m", "slow", "m"]
    check_ended(pool, fleet)


def test_two_loops_at_once_are_refused() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))

        def elsewhere() -> None:
            asyncio.run(pool.start())

        async with pool:
            with pytest.raises(LifecycleError, match="another event loop"):
                await asyncio.to_thread(elsewhere)

    run_virtual(scenario)


def test_statistics_and_measurements_say_what_happened() -> None:
    recorded: list[tuple[str, float, str, str]] = []

    def record(name: str, value: float, unit: str = "", **labels: str) -> None:
        recorded.append((name, round(value, 3), unit, labels["model"]))

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, recorder=record, memory_limit_bytes=1000)
        pool.register(fleet.spec("m", size_bytes=300, load_seconds=9.0))
        async with pool:
            assert pool.status("m").load_seconds == 9.0
            await use(pool, "m")
            stats: dict[str, Any] = pool.get_stats()
            assert (stats["ready"], stats["loading"], stats["queued"]) == (1, 0, 0)
            assert (stats["loads"], stats["leases"], stats["load_failures"], stats["evictions"]) == (1, 1, 0, 0)
            assert (stats["used_bytes"], stats["limit_bytes"]) == (300, 1000)
            assert stats["load_seconds_total"] == pytest.approx(1.0)
            assert stats["models"][0]["reason"] == "ready after 1.00 s"
            await asyncio.sleep(5)
            assert pool.status("m").since_s == pytest.approx(5.0)
        assert recorded == [("models.load_time", 1.0, "seconds", "m"), ("models.lease_wait", 1.0, "seconds", "m")]

    run_virtual(scenario)


def test_a_load_that_had_not_begun_when_the_stop_came_never_begins() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        await pool.start()
        caller = asyncio.create_task(use(pool, "m"))
        await asyncio.sleep(0)
        assert pool.status("m").state is ModelState.LOADING
        await pool.stop()
        assert fleet.loads() == []
        assert isinstance(caller.exception(), LifecycleError)
        check_ended(pool, fleet)

    run_virtual(scenario)
