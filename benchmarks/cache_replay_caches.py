"""What the replay puts traces through: our cache with each policy, and the peers; all behind two functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ondol import Cache

if TYPE_CHECKING:
    from cache_replay_traces import Trace

__all__ = ["OURS", "PEERS", "Contender", "Maker"]

_NAME: Final = "trace"


@dataclass(frozen=True, slots=True)
class Contender:
    """A cache under test. The value kept is the entry's size, so that each cache can weigh it."""

    find: Callable[[int], Any]
    """Takes a key; returns the value or ``None``."""
    keep: Callable[[int, int, float], Any]
    """Takes key, size and cost of what was not found."""
    close: Callable[[], Any] = bool


Maker = Callable[["Trace", float], Contender]
"""Takes the trace and the fraction of its bytes that is the cache's bound."""


def _ours(policy: str, trace: Trace, fraction: float) -> Contender:
    cache = Cache(max_bytes=trace.capacity(fraction), policy=policy, size_of=int)
    find, put = cache.get_nowait, cache.set_nowait

    def keep(key: int, size: int, cost_s: float) -> None:
        put(_NAME, size, key, cost_seconds=cost_s)

    return Contender(partial(find, _NAME), keep)


def _cachetools(trace: Trace, fraction: float) -> Contender:
    import cachetools

    cache: Any = cachetools.LRUCache(trace.capacity(fraction), getsizeof=int)

    def keep(key: int, size: int, _: float) -> None:
        with suppress(ValueError):  # larger than the cache
            cache[key] = size

    return Contender(cache.get, keep)


def _cachebox(trace: Trace, fraction: float) -> Contender:
    import cachebox

    cache: Any = cachebox.LRUCache(trace.capacity(fraction), getsizeof=lambda _, size: size)

    def keep(key: int, size: int, _: float) -> None:
        with suppress(OverflowError):  # larger than the cache
            cache[key] = size

    return Contender(cache.get, keep)


def _moka(trace: Trace, fraction: float) -> Contender:
    import moka_py

    cache: Any = moka_py.Moka(trace.capacity(fraction), policy="tiny_lfu", weigher=lambda _, size: size)
    return Contender(cache.get, lambda key, size, _: cache.set(key, size))


def _theine(trace: Trace, fraction: float) -> Contender:
    import theine

    cache: Any = theine.Cache(trace.capacity_entries(fraction))
    return Contender(lambda key: cache.get(key)[0], lambda key, size, _: cache.set(key, size), cache.close)


def _lru_dict(trace: Trace, fraction: float) -> Contender:
    import lru

    cache: Any = lru.LRU(trace.capacity_entries(fraction))
    return Contender(cache.get, lambda key, size, _: cache.__setitem__(key, size))


OURS: Final[dict[str, Maker]] = {name: partial(_ours, name) for name in ("lru", "s3fifo", "gdsf", "adaptive")}
PEERS: Final[dict[str, Maker]] = {
    "cachetools": _cachetools,
    "cachebox": _cachebox,
    "moka-py": _moka,
    "theine": _theine,
    "lru-dict": _lru_dict,
}
"""The last two cannot weigh entries: they are bounded by the same fraction of the number of keys."""
