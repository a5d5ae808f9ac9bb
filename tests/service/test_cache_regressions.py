"""What a review found, each as a story of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache import Cache, TierOptions
from ondol.cache.codec import encode
from ondol.cache.shelf import MAX_NAMES
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pattern_that_was_given_up_half_way_leaves_no_half_index() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        for number in range(5000):
            cache.set_nowait("user", number, number, "x")
        first = asyncio.create_task(cache.invalidate_pattern("user:1:*"))
        await asyncio.sleep(0)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert await cache.invalidate_pattern("user:4000:*") == 1
        cache.set_nowait("user", 1, 4000, "x")
        assert sorted(await asyncio.gather(*(cache.invalidate_pattern(f"user:{n}:*") for n in (4000, 4001)))) == [1, 1]

    run_virtual(scenario)


def test_a_refresh_gives_nothing_that_was_computed_before_it_was_asked_for() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        source = ["old"]

        @cache.cached("f")
        async def f(part: str) -> str:
            seen = source[0]
            await asyncio.sleep(5)
            return seen

        computing = asyncio.create_task(f("a"))
        await asyncio.sleep(1)
        source[0] = "new"
        assert await f.refresh("a") == "new"
        assert await computing == "old"
        assert await f("a") == "new"

    run_virtual(scenario)


def test_a_failed_refresh_never_takes_the_place_of_a_good_value() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache(clock=_clock)
        is_broken = False

        @cache.cached("f", ttl_s=10, stale_ttl_s=100, negative_ttl_s=60)
        async def f(part: str) -> str:
            if is_broken:
                raise OSError("down")
            return "good"

        assert await f("a") == "good"
        is_broken = True
        await asyncio.sleep(15)
        for _ in range(3):
            assert await f("a") == "good"
            await asyncio.sleep(1)
        with pytest.raises(OSError, match="down"):
            await f.refresh("a")
        assert await f("a") == "good"
        assert cache.get_stats()["failed_refreshes"] == 1

    run_virtual(scenario)


@pytest.mark.parametrize("policy", ["lru", "s3fifo", "gdsf", "adaptive"])
def test_names_beyond_those_with_figures_lose_no_entries_and_no_bytes(policy: str) -> None:
    cache = Cache(max_bytes=60_000, policy=policy)
    for number in range(MAX_NAMES):
        cache.get_nowait(f"name {number}")
    for number in range(3000):
        name, part = f"other {number % 40}", f"{number % 3}"
        cache.set_nowait(name, "x" * (number % 700), part)
        assert cache.get_nowait(name, part) is not None
        assert cache.used_bytes == sum(entry.size_bytes for entry in cache._memory.entries()) <= 60_000
    cache.configure(policy="lru" if policy != "lru" else "gdsf")
    cache.resize(900)
    assert cache.used_bytes <= 900
    cache.clear()
    assert cache.used_bytes == 0


def test_parts_that_equal_each_other_are_not_mixed_up() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        await cache.set("n", "int", 1)
        await cache.set("n", "float", 1.0)
        assert await cache.get_many("n", [1]) == {1: "int"}
        with pytest.raises(ValueError, match="cannot be told from another"):
            await cache.get_many("n", [1, 1.0])

    run_virtual(scenario)


@pytest.mark.parametrize("cost", [Decimal("1.5"), 10**400, True, "1", -1.0, float("inf")])
def test_a_cost_that_is_no_number_of_seconds_is_refused(cost: Any) -> None:
    cache = Cache()
    with pytest.raises(ValueError, match="cost_seconds"):
        cache.set_nowait("n", 1, "a", cost_seconds=cost)
    assert cache.used_bytes == 0


def test_a_time_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="ttl_s is not allowed: it is too large"):
        Cache().set_nowait("n", 1, ttl_s=10**400)


def test_what_happens_while_the_tiers_are_closed_is_made_up_for(tmp_path: Path) -> None:
    cache = Cache(tiers=TierOptions(disk_dir=tmp_path))
    cache.open()
    for part in ("deleted", "replaced", "tagged", "kept"):
        cache.set_nowait("n", "old", part, tags=[part])
    cache.close()
    cache.delete_nowait("n", "deleted")
    cache.set_nowait("n", "new", "replaced")
    asyncio.run(cache.invalidate_tags("tagged"))
    cache.resize(1)  # what is in memory leaves
    cache.open()
    found = asyncio.run(cache.get_many("n", ["deleted", "replaced", "tagged", "kept"]))
    assert found == {"kept": "old"}
    cache.close()


def test_memory_and_disk_agree_when_threads_set_the_same_keys(tmp_path: Path) -> None:
    cache = Cache(tiers=TierOptions(disk_dir=tmp_path))
    cache.open()
    start = threading.Barrier(3)
    before = sys.getswitchinterval()

    def write(name: str) -> None:
        start.wait()
        for number in range(600):
            cache.set_nowait("n", f"{name} {number}", number % 5)
            if number % 7 == 0:
                cache.delete_nowait("n", number % 5)

    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    in_memory = {part: cache.get_nowait("n", part) for part in range(5)}
    cache.resize(1)
    below = asyncio.run(cache.get_many("n", range(5)))
    assert {part: value for part, value in in_memory.items() if value is not None} == below
    cache.close()


@pytest.mark.parametrize("policy", ["lru", "s3fifo", "gdsf", "adaptive"])
def test_finalizers_that_use_the_cache_find_it_whole(policy: str) -> None:
    cache = Cache(max_bytes=9000, policy=policy, size_of=lambda _value: 400)

    class Restless:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            cache.delete_nowait("n", (self.number + 1) % 60)
            cache.set_nowait("last words", self.number, self.number % 5)

    for number in range(400):
        cache.set_nowait("n", Restless(number), number % 60)
    cache.resize(2000)
    entries = cache._memory.entries()
    assert cache.used_bytes == sum(entry.size_bytes for entry in entries) <= 2000
    assert all(entry.is_live for entry in entries)
    cache.clear()


def test_a_function_may_return_infinity() -> None:
    cache = Cache(policy="s3fifo")

    @cache.cached("f")
    def f(part: str) -> float:
        return float("inf")

    for _ in range(5):
        f("a")
    stats = cache.get_stats()
    assert (stats["hits"], stats["misses"]) == (4, 1)


def test_a_plain_computation_may_not_return_an_awaitable_switched_off_either() -> None:
    cache = Cache(is_enabled=False)

    async def compute() -> int:
        return 1

    with pytest.raises(TypeError, match="awaitable"):
        cache.get_or_compute_blocking("n", compute=compute)


FORKS = """
import os, threading, warnings
from ondol.cache import Cache
warnings.simplefilter("ignore", DeprecationWarning)
caches = [Cache() for _ in range(3)]
failed = []
def fork():
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            caches[0].set_nowait("n", 1)
            os._exit(0 if caches[0].get_nowait("n") == 1 else 1)
        failed.append(os.waitpid(pid, 0)[1])
threads = [threading.Thread(target=fork) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
caches[1].set_nowait("n", 1)
raise SystemExit(any(failed))
"""


def test_threads_may_fork_at_once() -> None:
    assert subprocess.run([sys.executable, "-c", FORKS], check=False, timeout=100).returncode == 0


FIRST_USE = """
import sys, threading
from ondol.cache.codec import decode, encode

frame = bytes.fromhex(sys.argv[1])
found = []

def use():
    found.append(decode(frame) == [1, ("a",)] == decode(encode([1, ("a",)])))

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=use) for _ in range(200)]
[thread.start() for thread in threads]  # one after the other: most come while the first imports
[thread.join() for thread in threads]
raise SystemExit(found != [True] * 200)
"""


def test_threads_that_use_the_codec_for_the_first_time_at_once_wait_for_its_import() -> None:
    frame = encode([1, ("a",)]).hex()
    for _ in range(5):
        assert subprocess.run([sys.executable, "-c", FIRST_USE, frame], check=False, timeout=60).returncode == 0
