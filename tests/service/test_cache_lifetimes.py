"""Idle time, stale use, refreshing, jitter, errors that are kept: on the virtual clock."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from random import Random
from typing import Any

import pytest

from ondol.cache import Cache
from ondol.errors import ConfigurationError
from ondol.testing import FakeClock, VirtualClock, run_virtual

WAIT_S = 20


class Counter:
    """A computation that tells one result from the next."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.calls = 0
        self.seconds = seconds
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return number


def test_an_idle_entry_leaves_and_a_used_one_stays_until_its_time_to_live() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        await cache.start()
        await cache.set("used", 1, idle_ttl_s=10, ttl_s=60)
        await cache.set("idle", 2, idle_ttl_s=10)
        for _ in range(9):
            await asyncio.sleep(6)
            assert await cache.get("used") == 1
        assert cache.get_stats()["entries"] == 1
        assert cache.get_stats()["left"] == {"idle": 1}
        await asyncio.sleep(6)
        assert await cache.get("used") is None
        assert cache.get_stats()["left"] == {"idle": 1, "expired": 1}
        await cache.stop()

    run_virtual(scenario)


def test_a_stale_value_serves_while_one_task_computes_the_new_one() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter()

        async def ask() -> int:
            value: int = await cache.get_or_compute("rate", compute=compute, ttl_s=10, stale_ttl_s=30)
            return value

        assert await ask() == 1
        await asyncio.sleep(15)
        before = clock.monotonic()
        assert await asyncio.gather(*(ask() for _ in range(20))) == [1] * 20
        assert clock.monotonic() == before  # nobody waited
        await asyncio.sleep(2)
        assert await ask() == 2
        assert compute.calls == 2
        assert cache.get_stats()["refreshes"] == 1
        await asyncio.sleep(41)
        assert await ask() == 3  # too old: computed while the caller waits

    run_virtual(scenario)


def test_refresh_ahead_keeps_a_used_entry_from_ever_expiring() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter()

        @cache.cached("f", ttl_s=100, refresh_ahead=0.8)
        async def f() -> int:
            return await compute()

        await f()
        waits = []
        for _ in range(60):
            await asyncio.sleep(10)
            before = clock.monotonic()
            await f()
            waits.append(clock.monotonic() - before)
        assert max(waits) == 0
        assert 6 <= compute.calls <= 8

    run_virtual(scenario)


def test_a_failing_refresh_keeps_the_old_value_and_is_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter(seconds=0.1)

        async def ask() -> int:
            value: int = await cache.get_or_compute("rate", compute=compute, ttl_s=10, stale_ttl_s=100)
            return value

        assert await ask() == 1
        compute.error = OSError("down")
        await asyncio.sleep(20)
        for _ in range(50):
            assert await ask() == 1
            await asyncio.sleep(0.5)
        assert compute.calls in {3, 4}  # one each ten seconds, not one each time
        compute.error = None
        await asyncio.sleep(10)
        await ask()
        await asyncio.sleep(1)
        assert await ask() == compute.calls
        assert cache.get_stats()["failed_refreshes"] in {2, 3}

    with caplog.at_level(logging.ERROR, "ondol.cache"):
        run_virtual(scenario)
    assert "OSError: down" in caplog.text


def test_plain_functions_are_refreshed_in_a_thread() -> None:
    clock = FakeClock()
    cache = Cache(clock=clock)
    is_refreshed = threading.Event()
    calls: list[int] = []

    @cache.cached("f", ttl_s=10, stale_ttl_s=100)
    def f() -> int:
        calls.append(1)
        if len(calls) == 2:
            is_refreshed.set()
        return len(calls)

    assert f() == 1
    clock.advance(11)
    assert f() == 1
    assert is_refreshed.wait(WAIT_S)
    deadline = threading.Event()
    while f() != 2:
        assert not deadline.wait(0.001)
    assert cache.get_stats()["refreshes"] == 1


def test_a_value_set_during_a_refresh_is_not_replaced_by_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter(seconds=5)
        options = {"ttl_s": 10.0, "stale_ttl_s": 100.0}
        await cache.get_or_compute("n", compute=compute, ttl_s=10, stale_ttl_s=100)
        await asyncio.sleep(12)
        assert await cache.get_or_compute("n", compute=compute, ttl_s=10, stale_ttl_s=100) == 1
        await asyncio.sleep(1)
        await cache.set("n", "newer", **options)  # type: ignore[arg-type]  # plain floats
        await asyncio.sleep(10)
        assert compute.calls == 2
        assert await cache.get("n") == "newer"

    run_virtual(scenario)


def test_refresh_computes_at_once_and_shares() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter()

        @cache.cached("f", ttl_s=100)
        async def f(part: str) -> int:
            return await compute()

        assert await f("a") == 1
        refreshing = [asyncio.create_task(f.refresh("a")) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert await f("a") == 1
        # The first began at once; whoever came after that gets what was computed after they came, and shares it.
        assert await asyncio.gather(*refreshing) == [2, 3, 3, 3, 3]
        assert await f("a") == 3
        compute.error = OSError("down")
        with pytest.raises(OSError, match="down"):
            await f.refresh("a")
        assert await f("a") == 3

    run_virtual(scenario)


def test_jitter_spreads_the_ends_of_what_was_stored_together() -> None:
    clock = FakeClock()
    cache = Cache(clock=clock, random=Random(1))
    for number in range(200):
        cache.set_nowait("n", number, number, ttl_s=100, ttl_jitter=0.2)
    clock.advance(79.9)
    assert sum(cache.get_nowait("n", number) is not None for number in range(200)) == 200
    clock.advance(10)
    assert 60 < sum(cache.get_nowait("n", number) is not None for number in range(200)) < 140
    clock.advance(10.2)
    assert not any(cache.get_nowait("n", number) is not None for number in range(200))


def test_an_error_is_kept_when_asked_and_only_those_that_are_meant() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        compute = Counter(seconds=0.1)
        compute.error = LookupError("no such user")

        async def ask() -> int:
            value: int = await cache.get_or_compute(
                "user", 7, compute=compute, ttl_s=600, negative_ttl_s=5, negative_errors=LookupError
            )
            return value

        for _ in range(5):
            with pytest.raises(LookupError, match="no such user") as caught:
                await ask()
            assert len(caught.traceback) < 8  # frames of earlier callers do not pile up
        assert compute.calls == 1
        assert await cache.get("user", 7, default="nothing") == "nothing"
        await asyncio.sleep(6)
        compute.error = OSError("down")
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                await ask()
        assert compute.calls == 3
        compute.error = None
        assert await ask() == await ask() == 4

    run_virtual(scenario)


@pytest.mark.parametrize("policy", ["adaptive", "s3fifo"])
def test_a_plain_functions_error_is_kept_too(policy: str) -> None:
    clock = FakeClock()
    cache = Cache(clock=clock, policy=policy)
    calls: list[str] = []

    @cache.cached("f", negative_ttl_s=5)
    def f(part: str) -> int:
        calls.append(part)
        raise ValueError(part)

    for _ in range(3):
        with pytest.raises(ValueError, match="a"):
            f("a")
    assert calls == ["a"]
    assert asyncio.run(cache.get("f", "a", default="nothing")) == "nothing"
    assert cache.get_nowait("f", "a") is None
    clock.advance(6)
    with pytest.raises(ValueError, match="a"):
        f("a")
    assert calls == ["a", "a"]
    assert f.invalidate("a")


def test_the_default_time_to_live_holds_for_results_too_and_can_be_overruled() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock, default_ttl_s=10)
        compute = Counter()
        await cache.get_or_compute("default", compute=compute)
        await cache.get_or_compute("ever", compute=compute, ttl_s=math.inf)

        @cache.cached("f")
        async def f() -> int:
            return await compute()

        await f()
        await asyncio.sleep(20)
        assert await cache.get("default") is None
        assert await cache.get("ever") == 2
        assert await f() == 4

    run_virtual(scenario)


def test_options_add_to_the_caches_default_time_to_live() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock, default_ttl_s=10)
        compute = Counter()

        @cache.cached("f", stale_ttl_s=30)
        async def f() -> int:
            return await compute()

        assert await f() == 1
        await asyncio.sleep(20)
        assert await f() == 1  # stale, and refreshed behind
        await asyncio.sleep(2)
        assert await f() == 2

        @Cache(clock=clock).cached("g", stale_ttl_s=30)
        async def g() -> int:
            return 1

        with pytest.raises(ValueError, match="needs a time to live"):
            await g()

    run_virtual(scenario)


def test_a_lookup_that_finds_a_kept_error_is_a_miss() -> None:
    cache = Cache(policy="s3fifo")
    with pytest.raises(OSError, match="down"):
        cache.get_or_compute_blocking("n", "a", compute=_down, negative_ttl_s=60)
    before = cache.get_stats()
    assert cache.get_nowait("n", "a") is None
    assert asyncio.run(cache.get("n", "a")) is None
    stats = cache.get_stats()
    assert (stats["hits"], stats["misses"]) == (before["hits"], before["misses"] + 2)


def _down() -> int:
    raise OSError("down")


@pytest.mark.parametrize("size", [-1, 1.5, None, True])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    given: Any = lambda _value: size  # noqa: E731  # as users write it
    cache = Cache(size_of=given)
    with pytest.raises(ConfigurationError, match="size_of gave"):
        cache.set_nowait("n", 1)
    assert cache.used_bytes == 0
