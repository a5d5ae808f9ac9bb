"""The cache with tiers below its memory: two of them on one store stand for two processes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ondol.cache import Cache, TierOptions
from ondol.clock import SystemClock
from ondol.errors import ConfigurationError
from ondol.testing import FakeSharedServer, FakeSharedStore
from tests.service.cache_running import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

WAIT_S = 20
"""Longest wait for something that happens at once; reached only when it does not happen at all."""

CLOCK = SystemClock()


def shared(server: FakeSharedServer) -> Cache:
    return Cache(tiers=TierOptions(store=FakeSharedStore(CLOCK, server)))


def on_disk(folder: Path, **options: Any) -> Cache:
    return Cache(tiers=TierOptions(disk_dir=folder), **options)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in other threads
            await asyncio.sleep(0.005)


async def becomes(expected: object, ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while await ask() != expected:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.005)


def test_another_process_reads_what_one_stored() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            vector = np.arange(384, dtype=np.float32)
            await one.set("v", vector, "a", 1, ttl_s=60, tags=["t"], cost_seconds=2.5, is_announced=False)
            await one.set_many("n", {part: (part, None) for part in range(50)})
            await until(lambda: len(server.state.values) == 51)
            found = await other.get("v", "a", 1)
            assert np.array_equal(found, vector)
            assert found.dtype == np.float32
            assert await other.get_many("n", range(60)) == {part: (part, None) for part in range(50)}
            assert await other.get("v", "a", "1", default="absent") == "absent"
            stats = other.get_stats()
            assert (stats["hits"], stats["misses"], stats["memory_hits"]) == (51, 11, 0)
            assert stats["saved_seconds"] == 2.5
            assert stats["tiers"]["shared"]["saved_seconds"] == 2.5
            assert await other.get("v", "a", 1) is found  # in memory from now on
            assert other.get_stats()["memory_hits"] == 1

    asyncio.run(scenario())


def test_two_processes_compute_a_missing_value_once() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        caches = [shared(server) for _ in range(3)]
        calls: list[str] = []
        may_end = asyncio.Event()

        async def compute() -> str:
            calls.append("async")
            await may_end.wait()
            return "value"

        def plain() -> str:
            calls.append("plain")
            return "plain"

        async with running(*caches):
            asking = [
                asyncio.create_task(cache.get_or_compute("n", 1, compute=compute))
                for cache in caches
                for _ in range(20)
            ]
            blocking = asyncio.create_task(asyncio.to_thread(caches[1].get_or_compute_blocking, "n", 1, compute=plain))
            await until(lambda: len(calls) == 1)
            await asyncio.sleep(0.05)
            may_end.set()
            async with asyncio.timeout(WAIT_S):
                assert set(await asyncio.gather(*asking, blocking)) == {"value"}
            assert calls == ["async"]
            assert sum(cache.get_stats()["computations"] for cache in caches) == 1

    asyncio.run(scenario())


def test_an_error_gives_the_lease_to_the_next_process() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        calls: list[str] = []
        may_fail = asyncio.Event()

        async def failing() -> str:
            calls.append("failing")
            await may_fail.wait()
            raise OSError("down")

        async with running(one, other):
            first = asyncio.create_task(one.get_or_compute("n", compute=failing))
            await until(lambda: calls == ["failing"])
            second = asyncio.create_task(other.get_or_compute("n", compute=lambda: "up"))
            await asyncio.sleep(0.05)
            assert not second.done()
            may_fail.set()
            with pytest.raises(OSError, match="down"):
                await first
            async with asyncio.timeout(WAIT_S):
                assert await second == "up"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["delete", "tag", "pattern", "clear"])
def test_what_one_process_drops_is_gone_everywhere(kind: str) -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            for part in ("a", "b"):
                await one.set("user", part, part, tags=[f"tag {part}"])
            await until(lambda: len(server.state.values) == 2)
            assert await other.get_many("user", ["a", "b"]) == {"a": "a", "b": "b"}
            if kind == "delete":
                await one.delete("user", "a")
            elif kind == "tag":
                await one.invalidate_tags("tag a")
            elif kind == "pattern":
                await one.invalidate_pattern("user:a*")
            else:
                one.clear()
            await until(lambda: other.get_nowait("user", "a") is None)
            assert await other.get("user", "a") is None
            assert await other.get("user", "b") == (None if kind == "clear" else "b")
            assert other.get_stats()["left"]

    asyncio.run(scenario())


def test_a_value_that_is_set_anew_replaces_the_old_one_everywhere() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            await one.set("n", "old", "k")
            await until(lambda: len(server.state.values) == 1)
            assert await other.get("n", "k") == "old"
            await one.set("n", "new", "k")
            await becomes("new", lambda: other.get("n", "k"))
            lines = len(server.state.lines)
            await one.set("constant", 1, is_announced=False)
            await until(lambda: len(server.state.values) == 2)
            assert len(server.state.lines) == lines

    asyncio.run(scenario())


def test_many_values_at_once_cost_the_others_nothing_else() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            await one.set("unrelated", "kept", "k", is_announced=False)
            await becomes("kept", lambda: other.get("unrelated", "k"))
            await one.set_many("n", {part: part for part in range(9000)})
            await until(lambda: len(server.state.values) == 9001)
            assert other.get_nowait("unrelated", "k") == "kept"
            figures = one.get_stats()["tiers"]["shared"]
            assert (figures["overflows"], figures["dropped_puts"]) == (0, 0)
            assert len(server.state.lines) < 1000

    asyncio.run(scenario())


def test_a_refresh_reaches_the_other_processes() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        versions = iter(["first", "second"])

        @one.cached("f")
        async def f(part: str) -> str:
            return next(versions)

        async with running(one, other):
            assert await f("k") == "first"
            await until(lambda: len(server.state.values) == 1)
            assert await other.get("f", "k") == "first"
            assert await f.refresh("k") == "second"
            await becomes("second", lambda: other.get("f", "k"))

    asyncio.run(scenario())


def test_a_value_computed_before_an_invalidation_elsewhere_is_not_kept() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        is_computing, may_end = asyncio.Event(), asyncio.Event()

        async def compute() -> str:
            is_computing.set()
            await may_end.wait()
            return "old"

        async with running(one, other):
            asking = asyncio.create_task(one.get_or_compute("n", 1, compute=compute, tags=["t"]))
            await is_computing.wait()
            await other.invalidate_tags("t")
            await other.delete("n", 1)
            await until(lambda: one.get_stats()["computing"] == 0)  # detached when the announcement arrives
            # Both have been carried out: the second would take the next lease away, too.
            await until(lambda: other.get_stats()["tiers"]["shared"]["queued"] == 0)
            may_end.set()
            assert await asking == "old"
            assert await one.get_or_compute("n", 1, compute=lambda: "new") == "new"
            await until(lambda: len(server.state.values) == 1)
            assert await other.get("n", 1) == "new"

    asyncio.run(scenario())


def test_what_cannot_be_encoded_stays_here_and_is_counted() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            lock = threading.Lock()
            await one.set("n", "text", 1)
            await until(lambda: len(server.state.values) == 1)
            assert await other.get("n", 1) == "text"
            await one.set("n", lock, 1)
            assert await one.get("n", 1) is lock
            assert one.get_stats()["unencodable"] == {"n": 1}
            await until(lambda: other.get_nowait("n", 1) is None)  # the old text is not left behind
            assert await one.get_or_compute("n", 2, compute=lambda: lock) is lock
            await one.get_or_compute("n", 3, compute=lambda: "local", is_local=True)
            assert await other.get("n", 3) is None

    asyncio.run(scenario())


def test_a_dead_store_raises_nothing_and_memory_goes_on() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        store = FakeSharedStore(CLOCK, server)
        cache = Cache(tiers=TierOptions(store=store))
        async with running(cache):
            await cache.set("n", "kept", 1)
            await until(lambda: len(server.state.values) == 1)
            store.is_cut_off = True
            for part in range(50):
                assert await cache.get_or_compute("n", part + 10, compute=lambda: "computed") == "computed"
            assert await cache.get("n", 1) == "kept"
            assert cache.get_nowait("n", 12) == "computed"
            await cache.delete("n", 1)
            assert cache.get_stats()["tiers"]["shared"]["is_up"] is False
            store.is_cut_off = False
            await until(lambda: cache.get_stats()["tiers"]["shared"]["is_up"])
            await until(lambda: not any(key.startswith("n:1\x00") for key in server.state.values))
            assert await cache.get("n", 1) is None

    asyncio.run(scenario())


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


def test_a_foreign_frame_in_the_shared_store_is_no_answer() -> None:
    async def scenario() -> None:
        server = FakeSharedServer(CLOCK)
        one, other = shared(server), shared(server)
        async with running(one, other):
            await one.set("n", "mine", 1)
            await one.set("n", "other's", 2)
            await until(lambda: len(server.state.values) == 2)
            keys = sorted(server.state.values)
            server.state.values[keys[0]] = server.state.values[keys[1]]  # as a collision or a wrong tool might leave it
            assert await other.get("n", 1) is None
            assert await other.get("n", 2) == "other's"
            assert other.get_stats()["tiers"]["shared"]["corrupt_entries"] == 1
            await until(lambda: keys[0] not in server.state.values)

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
