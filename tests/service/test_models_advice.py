"""An advisor says who leaves first; whatever it does, room is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ondol.models import ModelPool, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Iterator


class Adviser:
    """Names ``names`` in their order, and keeps books of what was read of it."""

    def __init__(self, *names: str, fails_after: int | None = None) -> None:
        self.names = names
        self.fails_after = fails_after
        self.asked_at_s: list[float] = []
        self.read: list[str] = []
        self.closed = 0

    def coldest_first(self, now_s: float) -> Iterator[str]:
        self.asked_at_s.append(now_s)
        try:
            for number, name in enumerate(self.names):
                if number == self.fails_after:
                    raise OSError("no idea")
                self.read.append(name)
                yield name
        finally:
            self.closed += 1


def ready(pool: ModelPool) -> set[str]:
    return {status.name for status in pool.statuses() if status.state is ModelState.READY}


def filled(clock: VirtualClock, fleet: Fleet) -> ModelPool:
    pool = ModelPool(clock=clock, memory_limit_bytes=100)
    for name in ("a", "b", "c", "d"):
        pool.register(fleet.spec(name, size_bytes=25))
    for size in (20, 50, 90):
        pool.register(fleet.spec(f"new{size}", size_bytes=size))
    return pool


async def fill(pool: ModelPool) -> None:
    for name in ("a", "b", "c", "d"):
        await use(pool, name)


def test_the_advisor_says_who_leaves_and_is_read_no_further_than_needed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, advisor = Fleet(), Adviser("d", "c", "b", "a")
        pool = filled(clock, fleet)
        pool.set_advisor(advisor)
        async with pool:
            await fill(pool)
            assert not advisor.asked_at_s  # there was room
            await use(pool, "new20")
            assert ready(pool) == {"a", "b", "c", "new20"}
            assert (advisor.read, advisor.closed) == (["d"], 1)
            assert advisor.asked_at_s == [pytest.approx(4.0)]
            advisor.read.clear()
            await use(pool, "new50")
            assert ready(pool) == {"a", "new20", "new50"}
            assert advisor.read == ["d", "c", "b"]  # one of them had left already
            pool.set_advisor(None)
            await use(pool, "d")
            assert ready(pool) == {"a", "d", "new20"}  # by its worth: half of what another saves per byte
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_held_models_and_dependencies_stay_whatever_the_advisor_says() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, advisor = Fleet(), Adviser("base", "app", "held", "cold")
        pool = ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=25))
        pool.register(fleet.spec("app", ("base",), size_bytes=25))
        pool.register(fleet.spec("held", size_bytes=25))
        pool.register(fleet.spec("cold", size_bytes=25))
        pool.register(fleet.spec("new", size_bytes=25))
        pool.register(fleet.spec("large", size_bytes=50))
        pool.set_advisor(advisor)
        async with pool:
            await use(pool, "app")
            await use(pool, "cold")
            async with pool.lease("held"):
                await use(pool, "new")
                assert ready(pool) == {"base", "held", "cold", "new"}  # ``app`` before what it was built on
                await use(pool, "large")
                assert ready(pool) == {"held", "new", "large"}
        assert (pool.get_stats()["advisor_failures"], advisor.closed) == (0, len(advisor.asked_at_s))
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_the_advisor_does_not_name_leaves_last_by_its_worth() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet = Fleet()
        pool = filled(clock, fleet)
        pool.set_advisor(Adviser("nobody", "d", "d"))
        async with pool:
            await fill(pool)
            await use(pool, "b")
            await use(pool, "new50")
            assert ready(pool) == {"b", "c", "new50"}
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize(("fails_after", "left"), [(0, {"a", "b"}), (1, {"d", "a"})])
def test_an_advisor_that_fails_is_counted_and_the_rest_goes_by_worth(
    fails_after: int, left: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, advisor = Fleet(), Adviser("d", "c", "b", "a", fails_after=fails_after)
        pool = filled(clock, fleet)
        pool.set_advisor(advisor)
        async with pool:
            await fill(pool)
            await use(pool, "new50")
            assert ready(pool) == {"a", "b", "c", "d", "new50"} - left
            assert (pool.get_stats()["advisor_failures"], advisor.closed) == (1, 1)
            assert "no idea" in caplog.text
        check_ended(pool, fleet)

    run_virtual(scenario)


class Useless:
    """Fails in every other way."""

    def __init__(self, how: str) -> None:
        self.how = how

    def coldest_first(self, _now_s: float) -> Iterator[str]:
        if self.how == "at once":
            raise ValueError(self.how)
        if self.how == "no iterator":
            return None  # type: ignore[return-value]  # what it is tested for
        return iter([[]]) if self.how == "no names" else self  # type: ignore[list-item]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return "a"

    def close(self) -> None:
        raise ValueError(self.how)


@pytest.mark.parametrize("how", ["at once", "no iterator", "no names", "when it is closed"])
def test_no_failure_of_an_advisor_keeps_room_from_being_made(how: str) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet = Fleet()
        pool = filled(clock, fleet)
        pool.set_advisor(Useless(how))
        async with pool:
            await fill(pool)
            await use(pool, "new20")
            assert ready(pool) == {"b", "c", "d", "new20"}
            assert pool.get_stats()["advisor_failures"] == 1
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_the_advisor_is_asked_too_when_a_limit_is_lowered_and_when_a_copy_makes_way() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, advisor = Fleet(), Adviser("d", "c", "b", "a")
        pool = filled(clock, fleet)
        pool.set_advisor(advisor)
        async with pool:
            await fill(pool)
            pool.configure(memory_limit_bytes=50)
            await asyncio.sleep(1)
            assert ready(pool) == {"a", "b"}
            await pool.reload("a")
            assert ready(pool) == {"a"}
            assert advisor.closed == len(advisor.asked_at_s)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_advisor_that_changes_the_pool_breaks_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet = Fleet()
        pool = filled(clock, fleet)

        class Meddler:
            def coldest_first(self, _now_s: float) -> Iterator[str]:
                pool.set_advisor(None)
                pool.configure(memory_limit_bytes=75)
                yield from ("a", "b")

        pool.set_advisor(Meddler())
        async with pool:
            await fill(pool)
            await use(pool, "new50")
            assert pool.get_stats()["used_bytes"] <= 75
        check_ended(pool, fleet)

    run_virtual(scenario)
