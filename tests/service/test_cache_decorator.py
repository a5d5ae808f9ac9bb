from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from ondol.cache import AsyncCachedFunction, Cache, CachedFunction, make_cache_result
from ondol.errors import UnstableKeyError
from ondol.testing import FakeClock, VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def test_positional_and_keyword_arguments_are_one_call() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        calls: list[tuple[int, int]] = []

        @cache.cached("add", ttl_hours=1)
        async def add(a: int, b: int = 2) -> int:
            calls.append((a, b))
            return a + b

        assert [await add(1, 2), await add(1), await add(1, b=2), await add(b=2, a=1)] == [3] * 4
        assert await add(2, 2) == 4
        assert calls == [(1, 2), (2, 2)]

    run_virtual(scenario)


def test_plain_functions_stay_plain() -> None:
    cache = Cache()
    calls: list[int] = []

    @cache.cached("double")
    def double(number: int) -> int:
        """Twice the number."""
        calls.append(number)
        return number * 2

    assert double(4) == double(number=4) == 8
    assert calls == [4]
    assert double.__doc__ == "Twice the number."
    assert list(inspect.signature(double).parameters) == ["number"]
    assert not inspect.iscoroutinefunction(double)


def test_signature_types_and_kind_are_kept() -> None:
    cache = Cache()

    @cache.cached("a")
    async def coroutine_function(number: int) -> str:
        return str(number)

    @cache.cached("b")
    def plain_function(number: int) -> str:
        return str(number)

    async def scenario(_clock: VirtualClock) -> None:
        assert_type(await coroutine_function(1), str)
        assert_type(await coroutine_function.invalidate(1), bool)

    run_virtual(scenario)
    assert_type(plain_function(1), str)
    assert_type(plain_function.invalidate(1), bool)
    assert_type(plain_function.key(1), str)
    checked: tuple[AsyncCachedFunction[[int], str], CachedFunction[[int], str]]
    checked = (coroutine_function, plain_function)
    assert inspect.iscoroutinefunction(checked[0])
    assert plain_function.__name__ == "plain_function"


def test_none_is_a_result() -> None:
    cache = Cache()
    calls: list[str] = []

    @cache.cached("lookup")
    def lookup(key: str) -> None:
        calls.append(key)

    assert lookup("absent") is lookup("absent") is None
    assert calls == ["absent"]


def test_invalidate_and_key_take_the_functions_arguments() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        calls: list[int] = []

        @cache.cached("a")
        async def slow(number: int, *, scale: int = 1) -> int:
            calls.append(number)
            return number * scale

        assert slow.key(1) == slow.key(number=1, scale=1) != slow.key(1, scale=2)
        assert await slow.invalidate(1) is False
        await slow(1)
        await slow(1, scale=2)
        assert await slow.invalidate(number=1) is True
        await slow(1)
        await slow(1, scale=2)
        assert calls == [1, 1, 1]
        assert await cache.invalidate_pattern("a:1:*") == 2

    run_virtual(scenario)


def test_ttl_of_a_decorated_function() -> None:
    clock = FakeClock()
    cache = Cache(clock=clock)
    calls: list[int] = []

    @cache.cached("f", ttl_s=10)
    def f() -> int:
        calls.append(1)
        return len(calls)

    assert (f(), f()) == (1, 1)
    clock.advance(10)
    assert (f(), f()) == (2, 2)


def test_the_cache_is_resolved_at_each_call_and_never_while_decorating() -> None:
    caches = [Cache(), Cache()]
    resolved: list[Cache] = []

    def resolve() -> Cache:
        resolved.append(caches[0])
        return caches[0]

    cache_result = make_cache_result(resolve)

    @cache_result("f")
    def f(number: int) -> int:
        return number

    assert resolved == []
    f(1)
    caches.reverse()
    f(1)
    assert [cache.get_stats()["computations"] for cache in caches] == [1, 1]


def test_the_cost_of_a_computation_is_measured() -> None:
    async def scenario(clock: VirtualClock) -> None:
        records: list[tuple[str, float, str, dict[str, str]]] = []

        def record(name: str, value: float, unit: str = "", **labels: str) -> None:
            records.append((name, value, unit, labels))

        cache = Cache(clock=clock, recorder=record)

        @cache.cached("slow")
        async def slow() -> int:
            await asyncio.sleep(2)
            return 1

        for _ in range(4):
            await slow()
        stats = cache.get_stats()
        assert stats["compute_seconds"] == pytest.approx(2)
        assert stats["saved_seconds"] == pytest.approx(6)
        assert len(records) == 1
        assert records[0][0] == "cache.compute_time"
        assert records[0][1] == pytest.approx(2)
        assert records[0][2:] == ("seconds", {"entry": "slow"})

    run_virtual(scenario)


def test_methods_count_the_object_as_an_argument() -> None:
    cache = Cache()
    calls: list[int] = []

    @dataclass(frozen=True)
    class Scaled:
        factor: int

        def compute(self, number: int) -> int:
            calls.append(number)
            return self.factor * number

    class Opaque:
        def compute(self, number: int) -> int:
            return number

    method = cache.cached("method")(Scaled.compute)
    assert (method(Scaled(2), 5), method(Scaled(2), 5), method(Scaled(3), 5)) == (10, 10, 15)
    assert calls == [5, 5]
    with pytest.raises(UnstableKeyError, match=r"argument 'self' of 'other' .*Opaque"):
        cache.cached("other")(Opaque.compute)(Opaque(), 1)


def test_misuse_is_refused_with_what_to_do() -> None:
    cache = Cache()

    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="generator function"):
            cache.cached("n")(function)
    bare: Any = cache.cached
    with pytest.raises(TypeError, match="needs a name"):
        bare(generator)

    async def forgotten() -> int:
        return 1

    def returns_coroutine() -> Any:
        return forgotten()

    with pytest.raises(TypeError, match="returned an awaitable"):
        cache.cached("n")(returns_coroutine)()
    plain: Any = cache.cached("n")(lambda number: number)
    with pytest.raises(TypeError, match="'number'"):
        plain()
