"""The cache with a disk below its memory, alone or with a shared tier: restarts, damage, changes of the tiers."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ondol.cache import Cache, TierOptions
from ondol.errors import ConfigurationError
from ondol.testing import FakeSharedServer, FakeSharedStore
from tests.service.cache_running import CLOCK, WAIT_S, on_disk, running, shared, until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_restart_brings_the_entries_back_and_not_what_was_dropped(tmp_path: Path) -> None:
    async def first() -> None:
        cache = on_disk(tmp_path)
        async with running(cache):
            for part in range(300):
                await cache.set("v", np.full(32, part, np.float32), part, tags=[f"t{part % 3}"], ttl_s=3600)
            await cache.delete("v", 1)
            await cache.invalidate_tags("t0")
            await cache.invalidate_pattern("v:20*")

    async def second() -> None:
        cache = on_disk(tmp_path)
        async with running(cache):
            assert cache._tiers is not None
            assert await asyncio.to_thread(cache._tiers.join_warming, WAIT_S)
            for part in range(300):
                is_gone = part == 1 or part % 3 == 0 or str(part).startswith("20")
                found = cache.get_nowait("v", part)
                assert (found is None) == is_gone, part
                assert is_gone or found[0] == part
            stats = cache.get_stats()
            assert (stats["computations"], stats["tiers"]["disk"]["hits"]) == (0, 0)  # nobody asked the disk
            assert await cache.invalidate_tags("t1") > 90  # tags came back, too

    asyncio.run(first())
    asyncio.run(second())


def test_the_time_to_live_goes_on_over_a_restart(tmp_path: Path) -> None:
    from ondol.testing import FakeClock

    clock = FakeClock()
    cache = on_disk(tmp_path, clock=clock)
    cache.open()
    cache.set_nowait("short", 1, ttl_s=100)
    cache.set_nowait("long", 2, ttl_s=1000)
    cache.close()
    clock.advance(500)
    again = on_disk(tmp_path, clock=clock)
    again.open()
    assert again._tiers is not None
    assert again._tiers.join_warming(WAIT_S)
    assert asyncio.run(again.get("short")) is None
    assert asyncio.run(again.get("long")) == 2
    clock.advance(501)
    assert asyncio.run(again.get("long")) is None
    again.close()


def test_an_idle_entry_does_not_come_back_from_below(tmp_path: Path) -> None:
    from ondol.testing import FakeClock

    clock = FakeClock()
    cache = on_disk(tmp_path, clock=clock)
    cache.open()
    cache.set_nowait("n", 1, "idle", idle_ttl_s=10)
    cache.set_nowait("n", 2, "used", idle_ttl_s=10, ttl_s=100)
    for _ in range(3):
        clock.advance(6)
        assert cache.get_nowait("n", "used") == 2
    assert asyncio.run(cache.get("n", "idle")) is None
    assert asyncio.run(cache.get("n", "used")) == 2
    cache.close()


def test_what_is_set_while_switched_off_leaves_nothing_older_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = on_disk(tmp_path)
        async with running(cache):
            await cache.set("n", 1)
            cache.set_enabled(False)
            await cache.set("n", 2)
            cache.set_enabled(True)
            assert await cache.get("n") is None

    asyncio.run(scenario())


def test_a_refresh_that_cannot_be_encoded_leaves_nothing_older_below(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = on_disk(tmp_path)
        results: list[object] = ["text", threading.Lock()]

        @cache.cached("f")
        async def f() -> object:
            return results.pop(0)

        async with running(cache):
            assert await f() == "text"
            lock = await f.refresh()
            assert await f() is lock
            cache.resize(1)  # it leaves the memory
            assert await cache.get("f") is None

    asyncio.run(scenario())


def test_sizes_of_ones_own_hold_for_what_comes_from_below(tmp_path: Path) -> None:
    cache = on_disk(tmp_path, size_of=lambda _value: 7)
    cache.open()
    cache.set_nowait("n", "x" * 1000, 1)
    cache.close()
    again = on_disk(tmp_path, size_of=lambda _value: 7)
    again.open()
    assert asyncio.run(again.get("n", 1)) == "x" * 1000
    assert again.used_bytes == 7
    again.close()


def test_ten_thousand_corrupt_entries_are_misses_counted_and_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = on_disk(tmp_path)
        await cache.start()
        assert cache._tiers is not None
        assert cache._tiers._disk is not None
        for part in range(10_000):
            await cache.set("n", f"value {part}", part)
            if part % 1000 == 0:
                await asyncio.to_thread(cache._tiers._disk.flush)
        await cache.stop()
        cache = on_disk(tmp_path, max_bytes=300)  # nothing is brought back into so small a memory
        await cache.start()
        assert cache._tiers is not None
        disk = cache._tiers._disk
        assert disk is not None
        assert await asyncio.to_thread(cache._tiers.join_warming, WAIT_S)
        fetch = disk.fetch
        broken = {"bytes": 0}

        def damaged(key: str) -> bytes | None:
            frame = fetch(key)
            if frame is None:
                return None
            broken["bytes"] += 1
            kind, place = broken["bytes"] % 4, broken["bytes"] * 7 % len(frame)
            if kind == 0:
                return frame[:place]
            if kind == 1:
                return frame[:place] + bytes([frame[place] ^ 0x55]) + frame[place + 1 :]
            return b"" if kind == 2 else b"\x80\x04\x95" + frame  # a pickle's beginning

        disk.fetch = damaged  # type: ignore[method-assign]  # the disk's bits, turned
        for part in range(10_000):
            assert await cache.get("n", part) is None
        assert cache.get_stats()["tiers"]["disk"]["corrupt_entries"] == 10_000
        disk.fetch = fetch  # type: ignore[method-assign]  # as it was
        assert await cache.get_many("n", range(10_000)) == {}  # they are gone
        assert await cache.get_or_compute("n", 1, compute=lambda: "new") == "new"
        await cache.stop()

    asyncio.run(scenario())


def test_the_disk_makes_up_for_what_others_dropped_while_it_was_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)

        def both() -> Cache:
            return Cache(tiers=TierOptions(disk_dir=tmp_path, store=FakeSharedStore(CLOCK, server)))

        one, other = both(), shared(server)
        async with running(other):
            async with running(one):
                for part in range(5):
                    await one.set("n", part, part)
                await until(lambda: len(server.state.values) == 5)
            await other.delete("n", 3)
            await until(lambda: len(server.state.values) == 4)
            again = both()
            async with running(again):
                assert again._tiers is not None
                assert await asyncio.to_thread(again._tiers.join_warming, WAIT_S)
                await until(lambda: again.get_nowait("n", 3) is None)
                assert await again.get_many("n", range(5)) == {0: 0, 1: 1, 2: 2, 4: 4}
            server.restart()  # its log is gone: nobody knows what was dropped
            last = both()
            async with running(last):
                await until(lambda: last.get_stats()["tiers"]["shared"]["is_up"])
                await until(lambda: last.get_stats()["entries"] == 0)
                assert await last.get("n", 1) is None

    asyncio.run(scenario())


def test_tiers_can_be_changed_between_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = Cache()
        await cache.start()
        await cache.set("n", 1)
        cache.configure(tiers=TierOptions(disk_dir=tmp_path))
        assert cache.get_stats()["tiers"].keys() == {"memory"}
        await cache.start()
        await cache.set("n", 2)
        assert cache.get_stats()["tiers"].keys() == {"memory", "disk"}
        await cache.stop()
        assert cache.get_stats()["tiers"].keys() == {"memory"}
        assert await cache.get("n") == 2
        cache.configure(tiers=TierOptions())
        await cache.start()
        assert cache.get_stats()["tiers"].keys() == {"memory"}
        await cache.stop()

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    cache = on_disk(blocker)
    with pytest.raises(ConfigurationError, match="file"):
        cache.open()
    cache.close()
    cache.set_nowait("n", 1)
    assert cache.get_nowait("n") == 1


def test_switched_off_the_tiers_are_not_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = on_disk(tmp_path)
        async with running(cache):
            await cache.set("n", 1)
            cache.set_enabled(False)
            assert await cache.get("n") is None
            assert await cache.get_or_compute("n", compute=lambda: 2) == 2
            cache.set_enabled(True)
            assert await cache.get("n") == 1

    asyncio.run(scenario())
