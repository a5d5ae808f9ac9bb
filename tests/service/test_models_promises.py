"""What a load ahead must not displace, and what was promised to stay."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from typing import TYPE_CHECKING

import pytest

from ondol.errors import ModelBudgetError, ModelLoadError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Iterator


def ready(pool: ModelPool) -> set[str]:
    return {status.name for status in pool.statuses() if status.state is ModelState.READY}


class Adviser:
    def __init__(self, *names: str) -> None:
        self.names = names

    def coldest_first(self, _now_s: float) -> Iterator[str]:
        yield from self.names


# What it was told of, and nothing else


def test_a_load_ahead_displaces_only_what_it_was_told_of_and_so_does_what_it_depends_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("lower", size_bytes=50, priority=1))
        pool.register(fleet.spec("named", size_bytes=50, priority=9))
        pool.register(fleet.spec("base", size_bytes=40))
        pool.register(fleet.spec("app", ("base",), size_bytes=10))
        async with pool:
            await use(pool, "lower")
            for displacing in ([], ["absent"]):
                await use(pool, "named")
                with pytest.raises(ModelLoadError, match="no room"):
                    await pool.load("app", is_background=True, displacing=displacing, is_only_displacing=True)
            holder = asyncio.create_task(use(pool, "named", seconds=5.0))
            await asyncio.sleep(0)
            with pytest.raises(ModelLoadError, match="no room"):
                await pool.load("app", is_background=True, displacing=["named"], is_only_displacing=True)
            await holder
            await pool.load("app", is_background=True, displacing=["named"], is_only_displacing=True)
            assert ready(pool) == {"lower", "base", "app"}
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("is_strict_first", [True, False])
@pytest.mark.parametrize("other", ["app", "friend"])
def test_another_caller_who_may_displace_more_is_not_held_up_by_one_who_may_not(
    is_strict_first: bool, other: str
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("busy", size_bytes=1))
        pool.register(fleet.spec("lower", size_bytes=90, priority=1))
        pool.register(fleet.spec("base", size_bytes=40))
        for name in ("app", "friend"):
            pool.register(fleet.spec(name, ("base",), size_bytes=10))
        async with pool:
            await use(pool, "lower")
            slot = asyncio.create_task(pool.load("busy", is_background=True))
            await asyncio.sleep(0.5)
            asked = [("app", True), (other, False)]
            loads = [
                asyncio.create_task(pool.load(name, is_background=True, is_only_displacing=is_only))
                for name, is_only in (asked if is_strict_first else asked[::-1])
            ]
            await asyncio.gather(slot, *loads)
            assert ready(pool) == {"busy", "base", "app", other}
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("is_lower", [True, False])
def test_one_that_waits_goes_on_when_another_caller_may_displace_more(is_lower: bool) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=10.0), ModelPool(clock=clock, memory_limit_bytes=100, max_background_loads=2)
        pool.register(fleet.spec("cold", size_bytes=60, priority=1 if is_lower else 9))
        pool.register(fleet.spec("moving", size_bytes=10))
        pool.register(fleet.spec("ahead", size_bytes=60))
        async with pool:
            await use(pool, "cold")
            moving = asyncio.create_task(pool.load("moving", is_background=True))
            await asyncio.sleep(1)
            first = asyncio.create_task(pool.load("ahead", is_background=True, is_only_displacing=True))
            await asyncio.sleep(1)
            assert pool.status("cold").state is ModelState.READY
            second = asyncio.create_task(pool.load("ahead", is_background=True))
            await asyncio.sleep(1)
            assert (pool.status("ahead").state is ModelState.LOADING) is is_lower
            results = await asyncio.gather(moving, first, second, return_exceptions=True)
            assert [type(result) for result in results[1:]] == [type(None) if is_lower else ModelBudgetError] * 2
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize(("is_background", "survivors"), [(True, {"named", "kept"}), (False, {"more"})])
def test_a_load_ahead_that_takes_more_than_expected_displaces_no_others_for_it(
    is_background: bool, survivors: set[str]
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        rss = [0]
        fleet = Fleet()
        pool = ModelPool(clock=clock, memory_limit_bytes=100, memory_probe=lambda: rss[0])

        async def load() -> object:
            await asyncio.sleep(1.0)
            rss[0] += 80
            return object()

        pool.register(fleet.spec("named", size_bytes=40))
        pool.register(fleet.spec("kept", size_bytes=40, priority=1))
        pool.register(ModelSpec("more", load, size_bytes=20))
        async with pool:
            await use(pool, "named")
            await use(pool, "kept")
            with pytest.raises(ModelBudgetError) if is_background else contextlib.nullcontext():
                await pool.load(
                    "more", is_background=is_background, displacing=["named"], is_only_displacing=is_background
                )
            assert ready(pool) == survivors
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_ahead_does_not_grow_into_one_that_displaces_its_equals_by_waiting() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=70.0), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("a", "b", "c"):
            pool.register(fleet.spec(name, size_bytes=50))
        pool.register(fleet.spec("lower", size_bytes=50, priority=4))
        async with pool:
            await use(pool, "a")
            loads = [asyncio.create_task(pool.load(name, is_background=True)) for name in ("b", "c")]
            results = await asyncio.gather(*loads, return_exceptions=True)
            assert [type(result) for result in results] == [type(None), ModelBudgetError]
            assert ready(pool) == {"a", "b"}
            await pool.unload("b")
            await use(pool, "lower")
            await pool.load("c", is_background=True)
            assert ready(pool) == {"a", "c"}
        check_ended(pool, fleet)

    run_virtual(scenario)


# What was promised


def test_what_was_promised_is_displaced_by_no_load_ahead_until_then() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=30, priority=1))
        pool.register(fleet.spec("report", ("base",), size_bytes=30, priority=1))
        pool.register(fleet.spec("ahead", size_bytes=90, priority=9))
        pool.promise("nobody", clock.monotonic() + 600)
        pool.promise("report", clock.monotonic() + 600)
        async with pool:
            await use(pool, "report")
            for displacing in ([], ["report", "base"]):
                with pytest.raises(ModelBudgetError, match="no room"):
                    await pool.load("ahead", is_background=True, displacing=displacing)
            await asyncio.sleep(600)
            await pool.load("ahead", is_background=True)
            assert ready(pool) == {"ahead"}
            pool.promise("ahead", math.inf)
            await use(pool, "report")  # a request may displace it all the same
            assert ready(pool) == {"base", "report"}
            pool.promise("report", math.inf)
            pool.promise("report", -math.inf)
            await pool.load("ahead", is_background=True)
            assert ready(pool) == {"ahead"}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_for_a_request_the_advisor_says_how_late_it_goes() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("promised", "other", "next"):
            pool.register(fleet.spec(name, size_bytes=50))
        pool.set_advisor(Adviser("other", "promised"))
        pool.promise("promised", math.inf)
        async with pool:
            await use(pool, "promised")
            await use(pool, "other")
            await use(pool, "next")
            assert ready(pool) == {"promised", "next"}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_was_promised_is_not_idle_until_then() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, idle_ttl_s=60.0)
        for name in ("report", "longer", "other", "taken_back", "ever"):
            pool.register(fleet.spec(name))
        async with pool:
            await asyncio.gather(*(use(pool, name) for name in ("report", "longer", "other", "taken_back", "ever")))
            begun_s = clock.monotonic()
            pool.promise("report", begun_s + 900)
            pool.promise("longer", begun_s + 100)
            pool.promise("taken_back", begun_s + 900)
            pool.promise("ever", math.inf)
            await asyncio.sleep(70)
            assert ready(pool) == {"report", "longer", "taken_back", "ever"}
            pool.promise("longer", begun_s + 200)
            await asyncio.to_thread(pool.promise, "taken_back", -math.inf)
            await asyncio.sleep(0)
            assert ready(pool) == {"report", "longer", "ever"}
            await asyncio.sleep(129)
            assert "longer" in ready(pool)
            await asyncio.sleep(2)
            assert ready(pool) == {"report", "ever"}
            await asyncio.sleep(698)
            assert ready(pool) == {"report", "ever"}
            await asyncio.sleep(2)
            assert ready(pool) == {"ever"}
            await asyncio.sleep(10 * 86400)
            assert ready(pool) == {"ever"}
            assert pool.get_stats()["idle_unloads"] == 4
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_ahead_that_waits_goes_on_when_a_promise_is_taken_back() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=10.0), ModelPool(clock=clock, memory_limit_bytes=100, max_background_loads=2)
        pool.register(fleet.spec("cold", size_bytes=60, priority=1))
        pool.register(fleet.spec("moving", size_bytes=10))
        pool.register(fleet.spec("ahead", size_bytes=60))
        async with pool:
            await use(pool, "cold")
            pool.promise("cold", math.inf)
            loads = [asyncio.create_task(pool.load(name, is_background=True)) for name in ("moving", "ahead")]
            await asyncio.sleep(1)
            assert pool.status("ahead").state is ModelState.QUEUED
            taking = threading.Thread(target=pool.promise, args=("cold", -math.inf))
            taking.start()
            taking.join()
            await asyncio.sleep(1)
            assert pool.status("ahead").state is ModelState.LOADING
            await asyncio.gather(*loads)
        check_ended(pool, fleet)

    run_virtual(scenario)


# Who may leave


def test_who_may_leave_at_once() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(unload_seconds=1.0), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        assert not pool.may_leave("base")
        async with pool:
            assert not pool.may_leave("nobody")
            assert not pool.may_leave("base")
            loading = asyncio.create_task(pool.load("app"))
            await asyncio.sleep(0.5)
            assert not pool.may_leave("base")  # it loads
            await asyncio.sleep(1.0)
            assert pool.status("app").state is ModelState.LOADING
            assert not pool.may_leave("base")
            await loading
            assert (pool.may_leave("base"), pool.may_leave("app")) == (False, True)
            async with pool.lease("app"):
                assert not pool.may_leave("app")
            pool.pin("app")
            assert not pool.may_leave("app")
            pool.unpin("app")
            pool.promise("app", clock.monotonic() + 5)
            assert not pool.may_leave("app")
            await asyncio.sleep(5)
            assert pool.may_leave("app")
            reloading = asyncio.create_task(pool.reload("app"))
            await asyncio.sleep(0.5)
            assert not pool.may_leave("app")  # it serves while the new copy loads
            await reloading
            assert pool.may_leave("app")
            unloading = asyncio.create_task(pool.unload("app"))
            await asyncio.sleep(0.5)
            assert (pool.may_leave("base"), pool.may_leave("app")) == (True, False)  # what leaves does not hold it
            await unloading
            assert pool.may_leave("base")
        assert not pool.may_leave("base")
        check_ended(pool, fleet)

    run_virtual(scenario)
