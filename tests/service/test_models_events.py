"""What the pool announces, when, and what a listener may do about it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from ondol.errors import ModelLoadError, ModelQuarantinedError, UnknownModelError
from ondol.models import ModelPool, RetryPolicy
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Callable


def listen(pool: ModelPool) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []
    pool.add_listener(lambda event, name: seen.append((event, name)))
    return seen


def test_each_request_is_announced_once_as_one_that_finds_it_ready_or_one_that_waits() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        seen = listen(pool)
        async with pool:
            await asyncio.gather(*(use(pool, "m") for _ in range(3)))
            await use(pool, "m")
            await pool.load("m")
            assert seen == [
                ("asked", "m"),
                ("loading", "m"),
                ("asked", "m"),
                ("asked", "m"),
                ("ready", "m"),
                ("leased", "m"),
            ]
            assert pool.get_stats()["leases"] == 4
        assert seen[6:] == [("leaving", "m"), ("unloaded", "m")]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_that_no_request_waits_for_is_no_use_and_a_refused_request_did_not_wait() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"broken"}), ModelPool(clock=clock, retry=RetryPolicy(attempts=1))
        pool.register(fleet.spec("m"))
        pool.register(fleet.spec("broken"))
        seen = listen(pool)
        async with pool:
            await pool.load("m", is_background=True)
            await pool.load("m")
            assert seen == [("loading", "m"), ("ready", "m")]
            with pytest.raises(UnknownModelError):
                await use(pool, "nobody")
            for kind in (ModelLoadError, ModelQuarantinedError):
                with pytest.raises(kind):
                    await use(pool, "broken")
            assert seen[2:] == [("asked", "broken"), ("loading", "broken"), ("failed", "broken")]

    run_virtual(scenario)


def test_a_request_is_announced_before_anything_is_done_for_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name in ("old", "new"):
            pool.register(fleet.spec(name, size_bytes=60))
        states: list[tuple[str, str, str]] = []
        async with pool:
            await use(pool, "old")
            pool.add_listener(
                lambda event, _name: states.append(
                    (event, pool.status("old").state.value, pool.status("new").state.value)
                )
            )
            await use(pool, "new")
            assert states[:4] == [
                ("asked", "ready", "registered"),
                ("leaving", "draining", "queued"),
                ("unloaded", "unloaded", "queued"),
                ("loading", "unloaded", "loading"),
            ]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_every_way_to_leave_is_announced_once_dependents_first_or_after() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=20))
        pool.register(fleet.spec("app", ("base",), size_bytes=20))
        pool.register(fleet.spec("idle", size_bytes=20, idle_ttl_s=5.0))
        pool.register(fleet.spec("large", size_bytes=90))
        seen = listen(pool)

        def left() -> list[str]:
            names = [name for event, name in seen if event == "leaving"]
            seen.clear()
            return names

        async with pool:
            await use(pool, "app")
            await pool.unload("base")
            assert sorted(left()) == ["app", "base"]
            await use(pool, "idle")
            await asyncio.sleep(10)
            assert left() == ["idle"]
            await use(pool, "app")
            await use(pool, "large")
            assert sorted(left()) == ["app", "base"]
            await use(pool, "app")
            assert left() == ["large"]
            pool.configure(memory_limit_bytes=30)
            assert left() == ["app"]
        assert left() == ["base"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_copy_whose_place_is_taken_does_not_leave_but_one_that_has_to_make_way_does() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=40))
        async with pool:
            await use(pool, "m")
            seen = listen(pool)
            await pool.reload("m")
            assert seen == [("loading", "m"), ("ready", "m")]
            seen.clear()
            pool.configure(memory_limit_bytes=70)
            await pool.reload("m")
            assert seen.pop(0) == ("limit", "")
            assert seen == [("leaving", "m"), ("unloaded", "m"), ("loading", "m"), ("ready", "m")]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_another_limit_is_announced_once_it_holds_in_the_loop_or_at_once() -> None:
    fleet, pool = Fleet(), ModelPool(memory_limit_bytes=100)
    seen: list[tuple[str, str, int | None, threading.Thread]] = []

    def note(event: str, name: str) -> None:
        seen.append((event, name, pool.memory_limit_bytes, threading.current_thread()))

    async def scenario() -> None:
        pool.register(fleet.spec("m", size_bytes=60))
        async with pool:
            await use(pool, "m")
            seen.clear()
            pool.configure(memory_limit_bytes=100)
            pool.configure(max_demand_loads=2)
            assert not seen
            await asyncio.to_thread(pool.configure, memory_limit_bytes=50)
            await asyncio.sleep(0.01)
            here = threading.current_thread()
            assert [row for row in seen if row[0] != "unloaded"] == [
                ("leaving", "m", 50, here),
                ("limit", "", 50, here),
            ]

    fleet.load_seconds = 0.0
    pool.add_listener(note)
    pool.configure(memory_limit_bytes=None)
    assert [row[:3] for row in seen] == [("limit", "", None)]
    pool.configure(memory_limit_bytes=100)
    asyncio.run(scenario())
    seen.clear()
    pool.configure(memory_limit_bytes=50)
    assert not seen
    pool.configure(memory_limit_bytes=60)
    assert [row[:3] for row in seen] == [("limit", "", 60)]


def test_what_was_lost_with_its_loop_leaves_with_the_next_start() -> None:
    fleet, pool = Fleet(load_seconds=0.0), ModelPool()
    pool.register(fleet.spec("m"))

    async def forget() -> None:
        await pool.start()
        await use(pool, "m")

    asyncio.run(forget())
    seen = listen(pool)

    async def again() -> None:
        async with pool:
            assert seen == [("leaving", "m")]

    asyncio.run(again())
    check_ended(pool, fleet)


@pytest.mark.parametrize("event", ["asked", "loading", "leaving"])
@pytest.mark.parametrize(
    "deed",
    [
        lambda pool: pool.configure(max_demand_loads=1),
        lambda pool: pool.configure(memory_limit_bytes=50),
        lambda pool: pool.release("b"),
        lambda pool: pool.unpin("a"),
    ],
)
def test_what_a_listener_changes_in_the_middle_of_a_turn_breaks_nothing(
    event: str, deed: Callable[[ModelPool], None]
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100, max_demand_loads=2)
        for name in ("a", "b", "c", "d", "e"):
            pool.register(fleet.spec(name, size_bytes=40))
        highest = [0]

        def act(heard: str, _name: str) -> None:
            highest.append(pool.get_stats()["used_bytes"])
            if heard == event:
                deed(pool)

        pool.add_listener(act)
        async with pool:
            await asyncio.gather(*(use(pool, name, seconds=0.5) for name in ("a", "b", "c", "d", "e", "a", "c")))
            assert max(highest) <= 100
            assert fleet.most_loading <= 2
            assert pool.get_stats()["listener_failures"] == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_slots_hold_when_a_listener_of_a_load_asks_for_another_look() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, max_demand_loads=2, max_background_loads=2)
        for number in range(6):
            pool.register(fleet.spec(f"m{number}"))
        pool.add_listener(lambda event, _name: pool.unpin("m0") if event == "loading" else None)
        async with pool:
            pool.configure(max_demand_loads=1)
            waits = [asyncio.create_task(use(pool, f"m{number}")) for number in range(6)]
            await asyncio.sleep(0.5)
            pool.configure(max_demand_loads=3)
            await asyncio.gather(*waits)
            assert fleet.most_loading == 3
        check_ended(pool, fleet)

    run_virtual(scenario)
