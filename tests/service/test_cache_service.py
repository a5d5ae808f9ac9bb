from __future__ import annotations

import asyncio
import logging
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ondol.cache import Cache
from ondol.cache.sweeper import SWEEP_STEP_ENTRIES
from ondol.errors import ConfigurationError, UnstableKeyError
from ondol.testing import FakeClock, VirtualClock, run_virtual
from ondol.units import MIB, Percent

PAGE = "x" * 1000


def test_absent_none_and_default_are_told_apart() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        assert await cache.get("user", 1) is None
        assert await cache.get("user", 1, default="absent") == "absent"
        await cache.set("user", None, 1)
        assert await cache.get("user", 1, default="absent") is None
        assert await cache.get("user", "1", default="absent") == "absent"
        assert await cache.get("user", True, default="absent") == "absent"

    run_virtual(scenario)


def test_synchronous_and_asynchronous_calls_see_the_same_entries() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        cache.set_nowait("a", 1, "x")
        await cache.set("b", 2)
        assert await cache.get("a", "x") == 1
        assert cache.get_nowait("b") == 2
        assert cache.get_nowait("c", default=3) == 3
        assert await cache.delete("a", "x") is True
        assert await cache.delete("a", "x") is False
        assert cache.get_stats()["invalidations"] == 1

    run_virtual(scenario)


def test_ttl_runs_on_the_clock() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock, default_ttl_s=10)
        await cache.set("default", 1)
        await cache.set("hours", 2, ttl_hours=1)
        await cache.set("short", 3, ttl_s=0.5)
        await cache.set("ever", 4, ttl_s=math.inf)
        await asyncio.sleep(0.4)
        assert await cache.get("short") == 3
        await asyncio.sleep(0.1)
        assert await cache.get("short") is None
        assert await cache.get("default") == 1
        await asyncio.sleep(9.5)
        assert await cache.get("default") is None
        assert await cache.get("hours") == 2
        await asyncio.sleep(3600)
        assert await cache.get("hours") is None
        assert await cache.get("ever") == 4
        assert cache.get_stats()["expirations"] == 3

    run_virtual(scenario)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, True, "1"])
@pytest.mark.parametrize("unit", ["ttl_hours", "ttl_s"])
def test_a_bad_ttl_is_refused_everywhere(ttl: Any, unit: str) -> None:
    cache = Cache()
    with pytest.raises(ValueError, match=unit):
        cache.set_nowait("n", 1, **{unit: ttl})
    with pytest.raises(ValueError, match=unit):
        cache.cached("n", **{unit: ttl})

    async def compute() -> None:
        await cache.get_or_compute("n", compute=lambda: 1, **{unit: ttl})

    with pytest.raises(ValueError, match=unit):
        asyncio.run(compute())


def test_other_bad_arguments_are_refused() -> None:
    cache = Cache()
    with pytest.raises(ValueError, match="not both"):
        cache.set_nowait("n", 1, ttl_hours=1, ttl_s=1)
    with pytest.raises(ValueError, match="cost_seconds"):
        cache.set_nowait("n", 1, cost_seconds=math.nan)
    with pytest.raises(ValueError, match="ttl_s"):
        Cache(default_ttl_s=0)
    with pytest.raises(UnstableKeyError, match="part 1 of 'n'"):
        cache.get_nowait("n", object())
    for bound in (0, -1, True, 1.5):
        wrong: Any = bound
        with pytest.raises(ConfigurationError, match="max_bytes"):
            Cache(max_bytes=wrong)
        with pytest.raises(ConfigurationError, match="max_bytes"):
            cache.resize(wrong)


def test_least_recently_used_entries_make_room() -> None:
    cache = Cache(max_bytes=20_000)
    for number in range(10):
        cache.set_nowait("page", PAGE, number)
    assert cache.get_stats()["evictions"] == 0
    cache.get_nowait("page", 0)
    for number in range(10, 20):
        cache.set_nowait("page", PAGE, number)
    assert cache.used_bytes <= 20_000
    assert cache.get_nowait("page", 0) is not None
    assert cache.get_nowait("page", 1) is None
    assert cache.get_nowait("page", 19) is not None
    assert cache.get_stats()["evictions"] > 0


def test_expired_entries_make_room_before_live_ones() -> None:
    clock = FakeClock()
    cache = Cache(max_bytes=24_000, clock=clock)
    for number in range(5):
        cache.set_nowait("live", PAGE, number)
    for number in range(8):
        cache.set_nowait("short", PAGE, number, ttl_s=5)
    clock.advance(10)
    for number in range(5, 10):
        cache.set_nowait("live", PAGE, number)
    assert all(cache.get_nowait("live", number) is not None for number in range(10))
    assert cache.get_stats()["evictions"] == 0


def test_resizing_shrinks_at_once_and_keeps_the_most_recent() -> None:
    cache = Cache(max_bytes=MIB)
    for number in range(500):
        cache.set_nowait("page", PAGE, number)
    cache.resize(10_000)
    assert cache.used_bytes <= cache.max_bytes == 10_000
    assert cache.get_nowait("page", 499) is not None
    assert cache.get_nowait("page", 0) is None
    cache.resize(MIB)
    assert cache.get_nowait("page", 499) is not None


def test_an_entry_larger_than_the_cache_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(max_bytes=2000)
    cache.set_nowait("huge", "small", 1)
    with caplog.at_level(logging.WARNING, "ondol.cache"):
        cache.set_nowait("huge", "x" * 3000, 1)
        cache.set_nowait("huge", "x" * 3000, 2)
    assert cache.get_nowait("huge", 1) is None  # not the old value either
    assert cache.get_stats()["rejections"] == 2
    assert [record.getMessage() for record in caplog.records if "'huge'" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]


def test_patterns_reach_every_part() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        await cache.set("user_data", "a", "1")
        await cache.set("user_data", "b", "2")
        await cache.set("user_data", "b", "2", "deep")
        await cache.set("user_settings", "c")
        await cache.set("USER_x", "other case")
        await cache.set("other", "stays", "user_data")
        assert await cache.invalidate_pattern("user_data:2*") == 2
        assert await cache.invalidate_pattern("user_settings:*") == 0
        assert await cache.invalidate_pattern("user_*") == 2
        assert await cache.get("other", "user_data") == "stays"
        assert await cache.get("USER_x") == "other case"
        for number in range(3000):
            await cache.set("many", number, number)
        assert await cache.invalidate_pattern("many:*") == 3000
        assert await cache.invalidate_pattern("nothing*") == 0
        stats = cache.get_stats()
        assert stats["invalidations"] == 3004
        assert stats["entries"] == 2
        assert cache.clear() == 2
        assert cache.used_bytes == 0

    run_virtual(scenario)


def test_statistics_add_up_by_name() -> None:
    clock = FakeClock()
    cache = Cache(clock=clock)
    cache.set_nowait("a", 1, cost_seconds=2.5)
    for _ in range(3):
        cache.get_nowait("a")
    cache.get_nowait("b")
    stats = cache.get_stats()
    assert (stats["hits"], stats["misses"], stats["saved_seconds"]) == (3, 1, 7.5)
    assert isinstance(stats["hit_rate"], Percent)
    assert f"{stats['hit_rate']}" == "75.0%"
    assert stats["names"]["a"]["hits"] == 3
    assert stats["names"]["a"]["used_bytes"] == stats["used_bytes"] == cache.used_bytes > 0
    assert stats["names"]["b"] == {
        "hits": 0,
        "misses": 1,
        "hit_rate": Percent(0.0),
        "saved_seconds": 0.0,
        "entries": 0,
        "used_bytes": 0,
    }


def test_switched_off_it_forgets_keeps_nothing_and_computes_every_time() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        calls: list[int] = []

        @cache.cached("f")
        async def f(number: int) -> int:
            calls.append(number)
            return number

        await cache.set("a", 1)
        cache.set_enabled(False)
        assert cache.is_enabled is False
        assert await cache.get("a") is None
        await cache.set("a", 2)
        assert await f(1) == await f(1) == 1
        assert await cache.get_or_compute("a", compute=lambda: 5) == 5
        assert await cache.get_or_compute("a", compute=lambda: 6) == 6
        assert calls == [1, 1]
        assert cache.get_stats()["entries"] == 0
        cache.set_enabled(True)
        assert await cache.get("a") is None  # neither the value from before nor the one that was ignored
        assert await f(1) == await f(1) == 1
        assert calls == [1, 1, 1]

    run_virtual(scenario)


def test_sweeper_removes_what_nobody_asks_for_in_bounded_steps() -> None:
    async def scenario(clock: VirtualClock) -> None:
        records: list[tuple[str, float]] = []

        def record(name: str, value: float, unit: str = "", **labels: str) -> None:
            records.append((name, value))

        cache = Cache(clock=clock, recorder=record)
        steps: list[int] = []
        sweep = cache._memory.sweep

        def counted(limit: int) -> bool:
            before = len(cache._memory)
            is_done = sweep(limit)
            steps.append(before - len(cache._memory))
            return is_done

        cache._sweeper._sweep = counted
        for number in range(2000):
            cache.set_nowait("short", number, number, ttl_s=30)
        cache.set_nowait("ever", 1)
        for _ in range(10):
            cache.get_nowait("ever")
            cache.get_nowait("none")
        await cache.start()
        await cache.start()  # a second start changes nothing
        await asyncio.sleep(20)
        assert cache.get_stats()["entries"] == 2001
        await asyncio.sleep(20)
        assert cache.get_stats()["entries"] == 1
        assert cache.get_stats()["expirations"] == 2000
        assert 0 < max(steps) <= SWEEP_STEP_ENTRIES
        assert ("cache.hit_rate", 50.0) in records
        assert ("cache.entries", 1) in records
        await cache.stop()
        await cache.stop()

    run_virtual(scenario)


def test_a_few_lookups_are_not_taken_for_a_hit_rate() -> None:
    async def scenario(clock: VirtualClock) -> None:
        rates: list[float] = []

        def record(name: str, value: float, unit: str = "", **labels: str) -> None:
            if name == "cache.hit_rate":
                rates.append(value)

        cache = Cache(clock=clock, recorder=record)
        await cache.start()
        for number in range(19):  # a request every four minutes, each for something else
            cache.get_nowait("rare", number)
            await asyncio.sleep(240)
        assert rates == []
        cache.get_nowait("rare", 19)
        await asyncio.sleep(10)
        assert rates == [0.0]
        await cache.stop()

    run_virtual(scenario)


def test_a_failing_sweep_is_logged_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        sweep = cache._memory.sweep
        calls: list[int] = []

        def fail_once(limit: int) -> bool:
            calls.append(limit)
            if len(calls) == 1:
                raise OSError("broken")
            return sweep(limit)

        cache._sweeper._sweep = fail_once
        await cache.start()
        await asyncio.sleep(3.5)
        await cache.stop()
        assert len(calls) == 3
        assert cache.get_stats()["sweep_failures"] == 1

    run_virtual(scenario)
    assert "removing expired entries failed" in caplog.text
    assert "OSError: broken" in caplog.text


def test_it_outlives_event_loops() -> None:
    cache = Cache(max_bytes=MIB)

    @cache.cached("f")
    async def f(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    async def left_running() -> None:
        await cache.start()
        assert list(await asyncio.gather(f(1), f(1))) == [2, 2]

    async def again() -> None:
        await cache.start()
        assert list(await asyncio.gather(f(1), f(2))) == [2, 4]
        await cache.stop()

    asyncio.run(left_running())
    asyncio.run(again())
    assert cache.get_stats()["computations"] == 2


def test_many_threads_keep_the_bound_and_the_sums() -> None:
    cache = Cache(max_bytes=50_000)
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            start.wait()
            for number in range(400):
                place = (number * seed) % 97
                cache.set_nowait("page", f"{place}:" + PAGE, place, ttl_s=None if number % 3 else 60)
                found = cache.get_nowait("page", (place + seed) % 97)
                assert found is None or found.startswith(f"{(place + seed) % 97}:")
                if number % 50 == 0:
                    cache.resize(40_000 + number * seed)
        except BaseException as exc:  # noqa: BLE001  # reported by the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.used_bytes == sum(entry.size_bytes for entry in cache._memory.entries()) <= cache.max_bytes


def test_a_finalizer_may_use_the_cache() -> None:
    cache = Cache(max_bytes=3000)

    class Last:
        def __del__(self) -> None:
            cache.set_nowait("last words", "bye")

    cache.set_nowait("holder", Last())
    cache.set_nowait("holder", 1)
    assert cache.get_nowait("last words") == "bye"
    assert cache.get_nowait("holder") == 1
    assert cache.used_bytes == sum(entry.size_bytes for entry in cache._memory.entries())


def test_a_forked_child_can_use_the_cache_whatever_the_parents_threads_were_doing() -> None:
    script = Path(__file__).with_name("cache_forks.py")
    assert subprocess.run([sys.executable, str(script)], check=False, timeout=100).returncode == 0
