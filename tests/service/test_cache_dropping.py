"""Tags, patterns, quotas, many at once."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache import Cache
from ondol.cache.keys import tail_text
from ondol.errors import ConfigurationError, UnstableKeyError
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from ondol.cache.entry import Entry

PAGE = "x" * 1000


def test_tags_drop_what_carries_them_and_nothing_else() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        await cache.set("page", 1, "a", tags=["user:7", "news"])
        await cache.set("page", 2, "b", tags=["news"])
        await cache.set("page", 3, "c", tags=["user:8"])
        await cache.set("page", 4, "d")
        assert await cache.invalidate_tags("user:7", "nobody") == 1
        assert await cache.invalidate_tags("news") == 1
        assert [await cache.get("page", part) for part in "abcd"] == [None, None, 3, 4]
        await cache.set("page", 5, "c")  # without its tag now
        assert await cache.invalidate_tags("user:8") == 0
        assert cache.get_stats()["tags"] == 0

    run_virtual(scenario)


def test_tags_of_a_functions_results_may_depend_on_its_arguments() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        calls: list[int] = []

        def tags(user_id: int, *, page: int = 1) -> list[str]:
            return [f"user:{user_id}"]

        @cache.cached("feed", tags=tags)
        async def feed(user_id: int, *, page: int = 1) -> int:
            calls.append(user_id)
            return user_id * page

        for user_id in (1, 2):
            await feed(user_id)
            await feed(user_id, page=2)
        assert await cache.invalidate_tags("user:1") == 2
        await feed(2)
        await feed(1)
        assert calls == [1, 1, 2, 2, 1]

    run_virtual(scenario)


@pytest.mark.parametrize("kind", ["tag", "pattern", "delete", "clear", "set"])
def test_what_is_computed_while_it_is_dropped_is_not_stored(kind: str) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        source = ["old"]

        async def compute() -> str:
            value = source[0]
            await asyncio.sleep(5)
            return value

        asking = asyncio.create_task(cache.get_or_compute("n", "a", compute=compute, tags=["t"]))
        await asyncio.sleep(1)
        source[0] = "new"
        if kind == "tag":
            await cache.invalidate_tags("t")
        elif kind == "pattern":
            await cache.invalidate_pattern("n:*")
        elif kind == "delete":
            await cache.delete("n", "a")
        elif kind == "set":
            await cache.set("n", "new", "a")
        else:
            cache.clear()
        assert await asking == "old"
        assert await cache.get_or_compute("n", "a", compute=compute, tags=["t"]) == "new"

    run_virtual(scenario)


def test_a_pattern_with_a_literal_prefix_looks_only_where_it_can_match(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        for user in range(300):
            for page in range(3):
                await cache.set("feed", page, user, page)
            await cache.set("profile", user, user)
        looked_at: list[Any] = []

        def counted(key: Any) -> str:
            looked_at.append(key)
            return tail_text(key)

        monkeypatch.setattr("ondol.cache.core.tail_text", counted)
        assert await cache.invalidate_pattern("feed:7:*") == 3
        assert len(looked_at) == 900  # once, to make the index; no profile among them
        looked_at.clear()
        await cache.set("feed", "new", 7, 0)
        assert await cache.invalidate_pattern("feed:7:*") == 1
        assert await cache.invalidate_pattern("feed:8:1*") == 1
        assert await cache.invalidate_pattern("feed:9999:*") == 0
        assert len(looked_at) == 4
        assert await cache.invalidate_pattern("profile:1") == 1
        assert await cache.invalidate_pattern("f*:8:*") == 2
        assert cache.get_stats()["entries"] == 300 - 1 + 900 - 3 - 3

    run_virtual(scenario)


def test_an_index_keeps_up_with_what_comes_and_goes() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache(max_bytes=60_000)
        await cache.set("n", PAGE, 0, 0)
        assert await cache.invalidate_pattern("n:1:*") == 0
        for number in range(500):
            await cache.set("n", PAGE, number % 50, number)
        held: dict[str, set[Entry]] = cache._memory.shelves.by_name["n"].segments or {}
        assert {entry for entries in held.values() for entry in entries} == set(cache._memory.entries())
        left = sum([1 for number in range(500) if await cache.get("n", 7, number) is not None])
        assert await cache.invalidate_pattern("n:7:*") == left
        cache.clear()
        assert not held

    run_virtual(scenario)


def test_a_quota_keeps_one_name_from_evicting_the_others() -> None:
    cache = Cache(max_bytes=100_000, quotas={"flood": 0.2}, policy="lru")
    for number in range(40):
        cache.set_nowait("calm", PAGE, number)
    for number in range(1000):
        cache.set_nowait("flood", PAGE, number)
    assert all(cache.get_nowait("calm", number) is not None for number in range(40))
    stats = cache.get_stats()
    assert 15_000 < stats["names"]["flood"]["used_bytes"] <= 20_000
    assert stats["left"] == {"quota": stats["evictions"]}
    cache.set_quota("flood", 10_000)
    assert cache.get_stats()["quotas"]["flood"]["used_bytes"] <= 10_000
    cache.set_quota("flood", None)
    for number in range(1000):
        cache.set_nowait("flood", PAGE, number)
    assert cache.get_nowait("calm", 0) is None
    assert cache.used_bytes <= 100_000


def test_a_share_moves_with_the_bound() -> None:
    cache = Cache(max_bytes=100_000, quotas={"a": 0.5, "b": 10_000})
    for number in range(100):
        cache.set_nowait("a", PAGE, number)
    cache.resize(40_000)
    quotas = cache.get_stats()["quotas"]
    assert quotas["a"]["max_bytes"] == 20_000
    assert quotas["b"]["max_bytes"] == 10_000
    assert cache.get_stats()["names"]["a"]["used_bytes"] <= 20_000


def test_bad_quotas_and_policies_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="quota 'a'"):
        Cache(quotas={"a": -1})
    cache = Cache()
    with pytest.raises(ConfigurationError, match="quota 'a'"):
        cache.set_quota("a", 1.5)
    with pytest.raises(ConfigurationError, match="adaptive"):
        Cache(policy="best")


def test_many_at_once() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        await cache.set_many("v", {1: "one", ("a", 2): "two", "n": None}, tags=["batch"])
        assert await cache.get_many("v", [1, ("a", 2), "n", "absent"]) == {1: "one", ("a", 2): "two", "n": None}
        assert await cache.get("v", "a", 2) == "two"
        assert await cache.invalidate_tags("batch") == 3
        assert await cache.get_many("v", [1]) == {}
        stats = cache.get_stats()
        assert (stats["hits"], stats["misses"]) == (4, 2)
        with pytest.raises(UnstableKeyError, match="part 1 of 'v'"):
            await cache.set_many("v", {"good": 1, object(): 2})
        assert cache.get_stats()["entries"] == 0

    run_virtual(scenario)


def test_methods_share_when_self_is_ignored() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()

        class Service:
            def __init__(self) -> None:
                self.calls = 0

            @cache.cached("method", ignore="self")
            async def method(self, number: int, scale: int = 1) -> int:
                self.calls += 1
                return number * scale

            @cache.cached("plain", ignore="self")
            def plain(self, number: int) -> int:
                self.calls += 1
                return number

        one, other = Service(), Service()
        assert await one.method(3, scale=2) == await other.method(3, 2) == 6
        assert one.plain(4) == other.plain(4) == 4
        assert (one.calls, other.calls) == (2, 0)
        assert await one.method.invalidate(3, 2)
        assert one.method.key(3) == other.method.key(3, 1) == Service.method.key(one, 3)
        assert await other.method.refresh(3) == 3
        assert one.plain.refresh(4) == 4
        assert one.plain.invalidate(4)
        assert not Service.plain.invalidate(one, 4)
        assert list(inspect.signature(one.method).parameters) == ["number", "scale"]
        assert inspect.iscoroutinefunction(one.method)
        assert inspect.iscoroutinefunction(Service.method)
        assert one.plain.__name__ == "plain"
        one.calls = other.calls = 0
        assert await other.method(3, 2) == 6
        assert other.calls == 1

        class Sub(Service):
            @classmethod
            @cache.cached("made", ignore="cls")
            def made(cls, number: int) -> int:
                return number

            @staticmethod
            @cache.cached("free")
            def free(number: int) -> int:
                return number

        untyped: Any = Sub  # type checkers see no descriptors behind these two
        assert untyped.made(1) == untyped().made(1) == untyped.free(1) == untyped().free(1) == 1
        assert await Sub().method(3, 2) == 6

    run_virtual(scenario)


def test_blocking_and_waiting_callers_share() -> None:
    cache = Cache()
    assert cache.get_or_compute_blocking("n", 1, compute=lambda: 5, ttl_s=10) == 5
    assert asyncio.run(cache.get_or_compute("n", 1, compute=lambda: 6)) == 5
    with pytest.raises(TypeError, match="allowed are"):
        cache.get_or_compute_blocking("n", 1, compute=lambda: 5, ttl=10)  # type: ignore[call-arg]  # what is tested
    assert cache.delete_nowait("n", 1)
