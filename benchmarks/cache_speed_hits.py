"""How long a hit takes: ``await get`` and decorated functions, beside the caches for coroutines; plain gets."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from cache_speed_timing import Contender, taken_in_turn
from harness import Figure, machine, package

from ondol import Cache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["hit_rows"]

OURS = "ondol"
KEYS = [f"item-{number:06d}" for number in range(1000)]
VALUE = "x" * 1024
_REPEATED = 20
_REPEATED_SLOWLY = 2

Asks = list[str]


def hit_rows() -> Iterator[Figure]:
    """Measure all of it."""
    yield from awaited_rows()
    yield from decorated_rows()
    yield from plain_rows()


def always(work: Callable[[], object]) -> Callable[[int], Callable[[], object]]:
    """Return what gives the same work in each round."""
    return lambda _number: work


def in_loop(loop: asyncio.AbstractEventLoop, get: Callable[[str], Awaitable[Any]], keys: Asks) -> Callable[[], object]:
    """Return work that awaits ``get`` of each key in one coroutine."""

    async def work() -> None:
        for key in keys:
            await get(key)

    return lambda: loop.run_until_complete(work())


def one_by_one(get: Callable[[str], Any], keys: Asks) -> Callable[[], object]:
    """Return work that calls ``get`` with each key."""

    def work() -> None:
        for key in keys:
            get(key)

    return work


def filled() -> Cache:
    """Return our cache with all keys in it."""
    cache = Cache()
    for key in KEYS:
        cache.set_nowait("item", VALUE, key)
    return cache


def awaited_rows() -> Iterator[Figure]:
    """``await cache.get``, beside async-lru's decorated function, cashews and aiocache."""
    from aiocache import SimpleMemoryCache  # type: ignore[import-untyped]  # it has no types
    from async_lru import alru_cache
    from cashews import Cache as CashewsCache

    lru, cashews, aiocache = (package(name) for name in ("async-lru", "cashews", "aiocache"))
    cache, theirs, simple = filled(), CashewsCache(), SimpleMemoryCache()
    theirs.setup("mem://", size=10 * len(KEYS))

    @alru_cache(maxsize=10 * len(KEYS))
    async def remembered(_key: str) -> str:
        return VALUE

    async def prepare() -> None:
        for key in KEYS:
            await remembered(key)
            await theirs.set(key, VALUE)
            await simple.set(key, VALUE)

    async def ours(keys: Asks) -> None:
        for key in keys:
            await cache.get("item", key)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(prepare())
    many, few = KEYS * _REPEATED, KEYS * _REPEATED_SLOWLY
    times = taken_in_turn(
        [
            Contender(OURS, len(many), lambda _: lambda: loop.run_until_complete(ours(many))),
            Contender(lru, len(many), lambda _: in_loop(loop, remembered, many)),
            Contender(cashews, len(few), lambda _: in_loop(loop, theirs.get, few)),
            Contender(aiocache, len(few), lambda _: in_loop(loop, simple.get, few)),
        ]
    )
    loop.run_until_complete(theirs.close())
    loop.close()
    how = f"1,000 keys in turn, all found, 1 KB each, one coroutine; CPU time, 11 rounds in turn, one core; {machine()}"
    what = "await get, hit, 1 KB"
    yield Figure(what, times.of(OURS), "ns", conditions=how)
    yield Figure(f"{what}: time against async-lru's hit", times.ratio(OURS, lru), "x", 0.5, "lower", lru, how)
    yield Figure(f"{what}: times faster than cashews", times.ratio(cashews, OURS), "x", 15, "higher", cashews, how)
    yield Figure(f"{what}: times faster than aiocache", times.ratio(aiocache, OURS), "x", 30, "higher", aiocache, how)


def decorated_rows() -> Iterator[Figure]:
    """Calls of decorated functions, coroutine functions and plain ones."""
    import cachebox
    import cachetools
    import moka_py
    from async_lru import alru_cache

    cache = Cache()

    async def compute(_key: str) -> str:
        return VALUE

    def compute_now(_key: str) -> str:
        return VALUE

    size = 10 * len(KEYS)
    loop = asyncio.new_event_loop()
    many = KEYS * _REPEATED
    awaited: dict[str, Any] = {
        OURS: cache.cached("awaited")(compute),
        package("async-lru"): alru_cache(maxsize=size)(compute),
    }
    called: dict[str, Any] = {
        OURS: cache.cached("called")(compute_now),
        "functools.lru_cache": functools.lru_cache(maxsize=size)(compute_now),
        package("cachetools"): cachetools.cached(cachetools.LRUCache(maxsize=size))(compute_now),
        package("cachebox"): cachebox.cached(cachebox.LRUCache(size))(compute_now),
        package("moka-py"): moka_py.cached(maxsize=size)(compute_now),
    }
    for function in awaited.values():
        in_loop(loop, function, KEYS)()
    for function in called.values():
        one_by_one(function, KEYS)()
    yield from compared(
        "decorated coroutine function, hit",
        [Contender(label, len(many), always(in_loop(loop, function, many))) for label, function in awaited.items()],
    )
    loop.close()
    yield from compared("decorated function, hit", plain_contenders(called, many))


def plain_rows() -> Iterator[Figure]:
    """``get_nowait`` beside the gets of caches without coroutines; most of these are compiled."""
    import cachebox
    import cachetools
    import lru
    import moka_py
    import theine

    cache, size = filled(), 10 * len(KEYS)
    getters: dict[str, Any] = {OURS: functools.partial(cache.get_nowait, "item")}
    stored: dict[str, Any] = {
        package("cachetools"): cachetools.LRUCache(maxsize=size),
        package("cachebox"): cachebox.LRUCache(size),
        package("lru-dict"): lru.LRU(size),
    }
    for label, theirs in stored.items():
        for key in KEYS:
            theirs[key] = VALUE
        getters[label] = theirs.get
    moka: Any = moka_py.Moka(size)
    their_theine: Any = theine.Cache(size)
    for key in KEYS:
        moka.set(key, VALUE)
        their_theine.set(key, VALUE)
    getters |= {package("moka-py"): moka.get, package("theine"): their_theine.get}
    yield from compared("get_nowait, hit, 1 KB", plain_contenders(getters, KEYS * _REPEATED))
    their_theine.close()


def plain_contenders(getters: dict[str, Any], keys: Asks) -> list[Contender]:
    """Return contenders that call their getter with each key."""
    return [Contender(label, len(keys), always(one_by_one(getter, keys))) for label, getter in getters.items()]


def compared(what: str, contenders: list[Contender]) -> Iterator[Figure]:
    """Measure and return rows without a target: our time, and our time in parts of each other's."""
    times = taken_in_turn(contenders)
    how = f"1,000 keys in turn, all found; CPU time, 11 rounds in turn, one core, no target; {machine()}"
    yield Figure(what, times.of(OURS), "ns", conditions=how)
    for contender in contenders:
        if contender.label != OURS:
            ratio = times.ratio(OURS, contender.label)
            yield Figure(
                f"{what}: time against {contender.label.split()[0]}", ratio, "x", None, "lower", contender.label, how
            )
