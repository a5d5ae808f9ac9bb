"""service: ``Cache``: a byte-bounded cache by name and parts, for coroutines and threads, never computing twice."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import math
import re
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.core import MISSING, CacheCore, checked_ttl_s
from ondol.cache.decorator import make_cache_result
from ondol.cache.keys import key_text, make_key
from ondol.cache.memory import MemoryTier
from ondol.cache.sweeper import SWEEP_INTERVAL_S, Sweeper
from ondol.clock import SystemClock
from ondol.recorder import discard
from ondol.units import MIB, Percent, format_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ondol.cache.decorator import CacheDecorator
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["DEFAULT_MAX_BYTES", "Cache"]

logger = logging.getLogger("ondol.cache")

DEFAULT_MAX_BYTES: Final = 200 * MIB

_KEYS_PER_STEP: Final = 1000
_REPORT_INTERVAL_S: Final = 5.0
_REPORT_LOOKUPS: Final = 20
"""Fewer say nothing about the hit rate; they are counted into the next report."""


class Cache:
    """Values by name and key parts, bounded in bytes, least recently used leaving first.

    Parts tell entries of one name apart and keep their type: ``1``, ``"1"`` and ``True`` are three entries. ``None``
    is a value like any other. Values are kept as the objects they are: who changes one, changes what is cached.

    It works at once. ``start`` adds the periodic removal of expired entries, which otherwise leave when they are asked
    for or when room is needed. It belongs to no event loop and can be used in several, one after the other or at once.

    Thread-safety: every method may be called from any thread; the asynchronous ones in any event loop.

    Example:
        >>> import asyncio
        >>> cache = Cache()
        >>> async def example():
        ...     await cache.set("user", {"name": "Mina"}, 7)
        ...     return await cache.get("user", 7), await cache.get("user", 8)
        >>> asyncio.run(example())
        ({'name': 'Mina'}, None)
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Clock | None = None,
        recorder: Recorder = discard,
        default_ttl_s: float | None = None,
        is_enabled: bool = True,
    ) -> None:
        """Make an empty cache; nothing runs until ``start``.

        Args:
            max_bytes: bound of all entries together: values, keys and the cache's own records.
            clock: where time comes from.
            recorder: takes ``cache.compute_time`` of each computation, and, once started, ``cache.hit_rate`` (of the
                last seconds, once there were 20 lookups), ``cache.used_bytes`` and ``cache.entries``.
            default_ttl_s: time to live of entries that are set without one; ``None`` for ever.
            is_enabled: whether it keeps anything.

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
            ValueError: a ``default_ttl_s`` that is not above 0.
        """
        clock = clock if clock is not None else SystemClock()
        self._memory = MemoryTier(max_bytes, clock)
        self._core = CacheCore(
            self._memory,
            clock,
            recorder,
            default_ttl_s=checked_ttl_s(None, default_ttl_s),
            is_enabled=is_enabled,
        )
        self._record = recorder
        self._sweeper = Sweeper(self._memory.sweep, self._report)
        self._sweeps = 0
        self._reported = (0, 0)

    @property
    def core(self) -> CacheCore:
        """The cache by canonical key, for those who have made the key already."""
        return self._core

    @property
    def max_bytes(self) -> int:
        """The bound in bytes."""
        return self._memory.max_bytes

    @property
    def used_bytes(self) -> int:
        """What all entries take together, in bytes; never more than ``max_bytes``."""
        return self._memory.used_bytes

    @property
    def is_enabled(self) -> bool:
        """Whether it keeps anything."""
        return self._core.is_enabled

    async def get(self, name: str, *parts: object, default: Any = None) -> Any:
        """Return the value of ``name`` and ``parts``, or ``default`` when there is none.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.

        Cost: about a microsecond; never waits.
        """
        return self._core.find(make_key(name, parts), name, default)

    def get_nowait(self, name: str, *parts: object, default: Any = None) -> Any:
        """Do what ``get`` does, outside of coroutines."""
        return self._core.find(make_key(name, parts), name, default)

    async def set(
        self,
        name: str,
        value: Any,
        *parts: object,
        ttl_hours: float | None = None,
        ttl_s: float | None = None,
        cost_seconds: float = 0.0,
    ) -> None:
        """Keep ``value`` for ``name`` and ``parts``, in place of what was there.

        A value larger than the whole cache is not kept; that is counted and logged once per name, not raised.

        Args:
            name: what the entry is.
            value: what is kept; ``None`` is a value.
            parts: what tells this entry from the others of its name.
            ttl_hours: how long it may be used, in hours.
            ttl_s: the same in seconds; ``math.inf`` for ever, whatever the cache's default.
            cost_seconds: what it took to compute, for the statistics.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
            ValueError: a time or a cost that is not allowed.
        """
        self.set_nowait(name, value, *parts, ttl_hours=ttl_hours, ttl_s=ttl_s, cost_seconds=cost_seconds)

    def set_nowait(
        self,
        name: str,
        value: Any,
        *parts: object,
        ttl_hours: float | None = None,
        ttl_s: float | None = None,
        cost_seconds: float = 0.0,
    ) -> None:
        """Do what ``set`` does, outside of coroutines."""
        effective_ttl_s = checked_ttl_s(ttl_hours, ttl_s)
        if not 0 <= cost_seconds < math.inf:
            raise ValueError(f"cost_seconds={cost_seconds!r} is not allowed: it must be a number ≥ 0")
        self._core.store(make_key(name, parts), name, value, effective_ttl_s, cost_seconds)

    async def delete(self, name: str, *parts: object) -> bool:
        """Drop one entry; return whether there was one. A computation under way for it will not be stored.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
        """
        return self._core.discard(make_key(name, parts))

    async def invalidate_pattern(self, pattern: str) -> int:
        """Drop every entry whose ``name:part:part`` matches a glob; return how many went.

        ``*`` stands for any text (colons too), ``?`` for one character, ``[ab]`` for one of these. Computations under
        way for matching keys will not be stored. Long parts can be matched by their first characters.

        Cost: O(entries), in steps between which other coroutines run; entries set meanwhile may stay.
        """
        matches = re.compile(fnmatch.translate(pattern)).match
        self._core.detach_where(lambda key: matches(key_text(key)))
        count = 0
        for position, key in enumerate(self._memory.keys(), start=1):
            count += bool(matches(key_text(key))) and self._memory.remove(key)
            if position % _KEYS_PER_STEP == 0:
                await asyncio.sleep(0)
        self._core.count_invalidations(count)
        logger.debug("cache: %d entries matched %r and went", count, pattern)
        return count

    async def get_or_compute(
        self,
        name: str,
        *parts: object,
        compute: Callable[[], Any | Awaitable[Any]],
        ttl_hours: float | None = None,
        ttl_s: float | None = None,
    ) -> Any:
        """Return the value of ``name`` and ``parts``, computing and keeping it when there is none.

        All who ask for it meanwhile, in any thread or event loop, wait for the one computation.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
            ValueError: a time to live that is not allowed.
            Exception: what the computation raised; every waiter gets it, nothing is kept.

        Cancellation: leaves the computation to the others who wait for it; the last one to leave cancels it.
        """
        effective_ttl_s = checked_ttl_s(ttl_hours, ttl_s)
        key = make_key(name, parts)
        value = self._core.find(key, name, MISSING)
        if value is not MISSING:
            return value
        return await self._core.compute(key, name, compute, effective_ttl_s)

    def cached(self, name: str, *, ttl_hours: float | None = None, ttl_s: float | None = None) -> CacheDecorator:
        """Return a decorator that keeps a function's results here, by its arguments.

        The decorated function has ``key(...)`` and ``invalidate(...)``, which take the function's arguments.

        Raises:
            ValueError: a time to live that is not allowed.
        """
        return make_cache_result(lambda: self)(name, ttl_hours=ttl_hours, ttl_s=ttl_s)

    def clear(self) -> int:
        """Drop everything; return how many entries went."""
        count = self._core.clear()
        logger.info("cache: cleared, %d entries went", count)
        return count

    def resize(self, max_bytes: int) -> None:
        """Set the bound; what no longer fits leaves before this returns.

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
        """
        before = self._memory.max_bytes
        if max_bytes == before:
            return
        self._memory.resize(max_bytes)
        logger.info(
            "cache: bound changed from %s to %s",
            format_bytes(before),
            format_bytes(max_bytes),
            extra={"fields": {"max_bytes": max_bytes, "used_bytes": self._memory.used_bytes}},
        )

    def set_enabled(self, is_enabled: bool) -> None:
        """Switch the cache on or off.

        Off, it forgets everything and keeps nothing: ``get`` misses, ``set`` does nothing, every call computes.
        """
        if is_enabled != self._core.is_enabled:
            self._core.set_enabled(is_enabled)
            logger.info("cache: switched %s", "on" if is_enabled else "off")

    async def start(self) -> None:
        """Begin to remove expired entries each second, in steps of bounded work. Safe to call twice."""
        await self._sweeper.start()
        logger.info("cache %s: room for %s", "on" if self.is_enabled else "off", format_bytes(self.max_bytes))

    async def stop(self) -> None:
        """End the periodic removal; entries stay, and it can be started again, also in another event loop."""
        await self._sweeper.stop()
        stats = self.get_stats()
        logger.info(
            "cache stopped: %d entries in %s, %d hits and %d misses so far (%s), %d evictions",
            *(stats["entries"], format_bytes(stats["used_bytes"]), stats["hits"], stats["misses"]),
            *(stats["hit_rate"], stats["evictions"]),
        )

    def get_stats(self) -> dict[str, Any]:
        """Return the cache's figures as plain values.

        ``hits``, ``misses``, ``hit_rate`` (a ``Percent``), ``entries``, ``used_bytes``, ``max_bytes``, ``evictions``,
        ``expirations``, ``invalidations``, ``rejections``, ``computations``, ``shared_computations`` (callers served by
        another's), ``failed_computations``, ``computing`` (now), ``compute_seconds``, ``saved_seconds`` (by hits and
        shared computations), ``sweep_failures``, ``is_enabled``, and ``names`` with the figures of each name (the first
        256; the others together). Who waits for a shared computation counts as a miss: it did not get its answer at
        once.
        """
        return self._core.get_stats() | {"sweep_failures": self._sweeper.failures}

    def _report(self) -> None:
        self._sweeps += 1
        if self._sweeps % round(_REPORT_INTERVAL_S / SWEEP_INTERVAL_S):
            return
        stats = self._memory.get_stats()
        hits, lookups = stats["hits"], stats["hits"] + stats["misses"]
        recent_hits, recent_lookups = hits - self._reported[0], lookups - self._reported[1]
        if recent_lookups >= _REPORT_LOOKUPS:
            self._reported = (hits, lookups)
            self._record("cache.hit_rate", float(Percent.of(recent_hits, recent_lookups)), "percent")
        self._record("cache.used_bytes", stats["used_bytes"], "bytes")
        self._record("cache.entries", stats["entries"], "entries")
