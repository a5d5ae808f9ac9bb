"""In which order what waits is loaded, what a load ahead may displace, and what the pool says it is busy with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ondol.errors import ModelBudgetError
from ondol.models import LoadState, ModelPool, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Sequence


def ready(pool: ModelPool) -> set[str]:
    return {status.name for status in pool.statuses() if status.state is ModelState.READY}


async def load_behind_a_busy_slot(pool: ModelPool, callers: Sequence[str], *, leaving: int = 0) -> None:
    """Ask for ``busy`` and, while it loads, for ``callers``; the last ``leaving`` of them give up before its end."""
    waits = [asyncio.create_task(use(pool, "busy"))]
    await asyncio.sleep(0.1)
    waits += [asyncio.create_task(use(pool, name)) for name in callers]
    await asyncio.sleep(0.1)
    for wait in waits[len(waits) - leaving :]:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.parametrize(
    ("callers", "leaving", "order"),
    [
        (["slow", "quick"], 0, ["quick", "slow"]),
        (["slow"] * 11 + ["quick"], 0, ["slow", "quick"]),
        (["unknown", "slow", "quick"], 0, ["quick", "unknown", "slow"]),
        (["quick"] + ["slow"] * 11, 10, ["quick", "slow"]),  # the crowd has left
        (["same", "quick"], 0, ["quick", "same"]),  # registered first
        (["important", "quick", "quick"], 0, ["important", "quick"]),
        (["quick", "built", "built", "built"], 0, ["below", "built", "quick"]),
    ],
)
def test_the_load_goes_first_that_relieves_most_requests_per_second(
    callers: list[str], leaving: int, order: list[str]
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, max_demand_loads=1)
        pool.register(fleet.spec("busy"))
        pool.register(fleet.spec("slow", load_seconds=5.0))
        pool.register(fleet.spec("unknown"))  # taken for a second
        pool.register(fleet.spec("quick", load_seconds=0.5))
        pool.register(fleet.spec("same", load_seconds=0.5))
        pool.register(fleet.spec("important", load_seconds=50.0, priority=6))
        pool.register(fleet.spec("built", ("below",), load_seconds=1.0))
        pool.register(fleet.spec("below", load_seconds=100.0))
        async with pool:
            await load_behind_a_busy_slot(pool, callers, leaving=leaving)
            assert fleet.loads() == ["busy", *order]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_crowd_that_grows_while_it_waits_is_counted() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=3.0), ModelPool(clock=clock, max_demand_loads=1)
        for name in ("busy", "first", "second"):
            pool.register(fleet.spec(name, load_seconds=3.0))
        async with pool:
            waits = [asyncio.create_task(use(pool, name)) for name in ("busy", "first", "second")]
            await asyncio.sleep(1)
            waits.append(asyncio.create_task(use(pool, "second")))
            await asyncio.gather(*waits)
            assert fleet.loads() == ["busy", "second", "first"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_loads_ahead_keep_the_order_of_priority_and_registration() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        names = ("busy", "slow", "quick")
        for name, seconds in zip(names, (1.0, 50.0, 0.1), strict=True):
            pool.register(fleet.spec(name, load_seconds=seconds))
        async with pool:
            await asyncio.gather(*(pool.load(name, is_background=True) for name in names for _ in range(2)))
            assert fleet.loads() == [*names]
        check_ended(pool, fleet)

    run_virtual(scenario)


# Loads ahead


def test_a_load_ahead_displaces_what_it_was_told_of_if_it_is_idle_and_in_the_way() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name, size in (("cold", 40), ("other", 40), ("ahead", 50), ("small", 5)):
            pool.register(fleet.spec(name, size_bytes=size, priority=9 if size == 40 else 5))
        async with pool:
            await use(pool, "other")
            await use(pool, "cold")
            await pool.load("small", is_background=True, displacing=["cold"])
            assert ready(pool) == {"cold", "other", "small"}  # it was not in the way
            with pytest.raises(ModelBudgetError, match="no room"):
                await pool.load("ahead", is_background=True, displacing=["nobody"])
            holder = asyncio.create_task(use(pool, "cold", seconds=5.0))
            await asyncio.sleep(0)
            with pytest.raises(ModelBudgetError, match="no room"):
                await pool.load("ahead", is_background=True, displacing=["cold"])
            await holder
            pool.pin("cold")
            with pytest.raises(ModelBudgetError, match="no room"):
                await pool.load("ahead", is_background=True, displacing=["cold"])
            pool.unpin("cold")
            with pytest.raises(ModelBudgetError, match="no room"):  # what was said earlier does not count any more
                await pool.load("ahead", is_background=True)
            await pool.load("ahead", is_background=True, displacing=["cold"])
            assert ready(pool) == {"other", "ahead", "small"}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_a_load_ahead_depends_on_may_displace_the_same_and_a_second_caller_may_name_more() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("busy"))
        pool.register(fleet.spec("one", size_bytes=45, priority=9))
        pool.register(fleet.spec("two", size_bytes=45, priority=9))
        pool.register(fleet.spec("base", size_bytes=50))
        pool.register(fleet.spec("app", ("base",), size_bytes=50))
        async with pool:
            await use(pool, "one")
            await use(pool, "two")
            slot = asyncio.create_task(pool.load("busy", is_background=True))
            await asyncio.sleep(0.5)
            loads = [
                asyncio.create_task(pool.load("app", is_background=True, displacing=[name])) for name in ("one", "two")
            ]
            await asyncio.gather(slot, *loads)
            assert ready(pool) == {"busy", "base", "app"}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_ahead_that_waits_goes_on_when_somebody_names_what_it_may_displace() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=10.0), ModelPool(clock=clock, memory_limit_bytes=100, max_background_loads=2)
        pool.register(fleet.spec("cold", size_bytes=60, priority=9))
        pool.register(fleet.spec("moving", size_bytes=10))
        pool.register(fleet.spec("ahead", size_bytes=60))
        async with pool:
            await use(pool, "cold")
            moving = asyncio.create_task(pool.load("moving", is_background=True))
            await asyncio.sleep(1)
            first = asyncio.create_task(pool.load("ahead", is_background=True))
            await asyncio.sleep(1)
            assert pool.status("cold").state is ModelState.READY  # it waits for what loads
            second = asyncio.create_task(pool.load("ahead", is_background=True, displacing=["cold"]))
            await asyncio.sleep(1)
            assert pool.status("ahead").state is ModelState.LOADING
            await asyncio.gather(moving, first, second)
        check_ended(pool, fleet)

    run_virtual(scenario)


# What it is busy with


def test_the_load_state_says_what_is_free_who_waits_and_what_loads() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(unload_seconds=1.0), ModelPool(clock=clock, memory_limit_bytes=100, max_demand_loads=1)
        for name, size in (("a", 30), ("b", 20), ("ahead", 10)):
            pool.register(fleet.spec(name, size_bytes=size))
        assert pool.memory_limit_bytes == 100
        assert pool.load_state() == LoadState(0, False, 0, 0)
        async with pool:
            assert pool.load_state() == LoadState(100, False, 0, 0)
            waits: list[asyncio.Task[object]] = [asyncio.create_task(use(pool, "a"))]
            await asyncio.sleep(0.1)
            assert pool.load_state() == LoadState(70, False, 1, 0)  # what is reserved is not free
            waits.append(asyncio.create_task(use(pool, "b")))
            waits.append(asyncio.create_task(pool.load("ahead", is_background=True)))
            await asyncio.sleep(0.1)
            assert pool.load_state() == LoadState(60, True, 1, 1)
            waits[1].cancel()
            await asyncio.sleep(0.1)
            assert pool.load_state() == LoadState(60, False, 1, 1)
            await asyncio.gather(*waits, return_exceptions=True)
            assert pool.load_state() == LoadState(40, False, 0, 1)  # the load of the one that left goes on
            await asyncio.sleep(2)
            unload = asyncio.create_task(pool.unload("a"))
            await asyncio.sleep(0.5)
            assert pool.load_state() == LoadState(40, False, 0, 0)  # what leaves is not free yet
            await unload
            assert pool.load_state().free_bytes == 70
            pool.configure(memory_limit_bytes=None)
            assert pool.load_state() == LoadState(None, False, 0, 0)
            pool.configure(memory_limit_bytes=5)
            assert pool.load_state().free_bytes == 0
        assert pool.load_state() == LoadState(0, False, 0, 0)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_request_of_which_nothing_has_begun_is_seen_from_the_moment_it_asks() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        states: dict[str, LoadState] = {}

        def note(event: str, _name: str) -> None:
            states.setdefault(event, pool.load_state())

        pool.add_listener(note)
        async with pool:
            await use(pool, "m")
        assert states["asked"] == LoadState(None, True, 0, 0)
        assert states["loading"] == LoadState(None, False, 1, 0)
        assert states["ready"].is_demand_waiting is False
        assert states["leaving"] == LoadState()  # it stops
        check_ended(pool, fleet)

    run_virtual(scenario)
