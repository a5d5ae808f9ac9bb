"""The cache with tiers below its memory: two of them on one store stand for two processes."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from ondol.cache import Cache, TierOptions
from ondol.testing import FakeSharedServer, FakeSharedStore
from tests.service.cache_running import CLOCK, WAIT_S, becomes, running, shared, until


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
