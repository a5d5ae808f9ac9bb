"""service: a cache as something that is made, started, resized, watched and stopped; ``Cache`` reads and writes."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.core import CacheCore
from ondol.cache.forks import guard_forks
from ondol.cache.lifetime import LifetimeOptions, checked_lifetime
from ondol.cache.memory import MemoryTier
from ondol.cache.policies import DEFAULT_POLICY, make_policy
from ondol.cache.quotas import checked_quotas
from ondol.cache.reports import CacheReports
from ondol.cache.sweeper import Sweeper
from ondol.cache.tier_options import TierOptions
from ondol.clock import SystemClock
from ondol.recorder import discard
from ondol.units import MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.cache.tiers import Tiers
    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.tracing import SpanRelay

__all__ = ["DEFAULT_MAX_BYTES", "ManagedCache"]

logger = logging.getLogger("ondol.cache")

DEFAULT_MAX_BYTES: Final = 200 * MIB


class ManagedCache:
    """The life of a cache: its bound, its quotas, its tiers, its figures."""

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        policy: str = DEFAULT_POLICY,
        quotas: Mapping[str, float] | None = None,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
        recorder: Recorder = discard,
        default_ttl_s: float | None = None,
        size_of: Callable[[Any], int] | None = None,
        tiers: TierOptions | None = None,
        is_enabled: bool = True,
        spans: SpanRelay | None = None,
    ) -> None:
        """Make an empty cache; nothing runs until ``start``.

        Args:
            max_bytes: bound of all entries together: values, keys and the cache's own records.
            policy: which entry leaves when room is needed: ``"adaptive"`` (finds out which of the others serves best),
                ``"lru"``, ``"s3fifo"`` or ``"gdsf"``.
            quotas: bounds of single names, in bytes, or as a share of ``max_bytes`` when not above 1; what exceeds a
                quota takes the place of entries of the same name only.
            clock: where time comes from.
            random: where jitter and sampling come from.
            recorder: takes ``cache.compute_time`` of each computation, and, once started, the figures of
                :mod:`ondol.cache.reports`.
            default_ttl_s: time to live of entries that are set without one; ``None`` for ever.
            size_of: gives the bytes that an entry with this value takes, in place of measuring it.
            tiers: the disk tier and the shared tier, which are there between ``start`` and ``stop``.
            is_enabled: whether it keeps anything.
            spans: where computations and the waits for them are told, when it is connected.

        Raises:
            ConfigurationError: a bound that is not a positive whole number, a policy or quota that is not allowed.
            ValueError: a ``default_ttl_s`` that is not above 0.
        """
        clock = clock if clock is not None else SystemClock()
        random = random if random is not None else random_module.Random()  # noqa: S311  # jitter, no secret
        self._quotas = checked_quotas(quotas or {})
        self._memory = MemoryTier(
            max_bytes, clock, lambda: make_policy(policy, random=random), self._quotas.in_bytes(max_bytes)
        )
        default = LifetimeOptions() if default_ttl_s is None else LifetimeOptions(ttl_s=default_ttl_s)
        self._core = CacheCore(
            self._memory,
            clock,
            recorder,
            random,
            lifetime=checked_lifetime(default),
            size_of=size_of,
            is_enabled=is_enabled,
            spans=spans,
        )
        self._tier_options = tiers if tiers is not None else TierOptions()
        self._make_tiers: Callable[[TierOptions], Tiers | None] = partial(
            _made_tiers, self._core, clock=clock, random=random, recorder=recorder
        )
        self._tiers = self._make_tiers(self._tier_options)
        self._opening = threading.Lock()
        self._changing = threading.RLock()
        self._policy, self._random = policy, random
        self._reports = CacheReports(recorder, self.get_stats)
        self._sweeper = Sweeper(self._memory.sweep, self._reports.report)
        if self._tier_options.is_any:
            self._core.expect_tiers()
        guard_forks(self)
        # What a hit needs, one look away:
        self._shelves = self._memory.shelves.by_name
        self._now_s = clock.monotonic
        self._put = self._memory.put
        self._flying = self._core.computing.flying

    @property
    def core(self) -> CacheCore:
        """The cache by shelf key, for those who have made the key already."""
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

    def resize(self, max_bytes: int) -> None:
        """Set the bound; what no longer fits leaves before this returns.

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
        """
        with self._changing:
            before = self._memory.max_bytes
            if max_bytes == before and not isinstance(max_bytes, bool):
                return
            self._memory.resize(max_bytes)
            for name, quota_bytes in self._quotas.in_bytes(max_bytes).items():
                self._memory.set_quota(name, quota_bytes)
        logger.info(
            "cache: bound changed from %s to %s",
            format_bytes(before),
            format_bytes(max_bytes),
            extra={"fields": {"max_bytes": max_bytes, "used_bytes": self._memory.used_bytes}},
        )

    def set_quota(self, name: str, quota: float | None) -> None:
        """Bound the entries of one name, in bytes or as a share of the whole; ``None`` takes the bound away.

        Raises:
            ConfigurationError: a quota that is not allowed.
        """
        with self._changing:
            self._quotas = self._quotas.with_quota(name, quota)
            self._memory.set_quota(name, self._quotas.in_bytes(self._memory.max_bytes).get(name))

    def set_enabled(self, is_enabled: bool) -> None:
        """Switch the cache on or off.

        Off, it forgets everything and keeps nothing: ``get`` misses, ``set`` does nothing, every call computes. The
        tiers below are left as they are, and not asked.
        """
        if is_enabled != self._core.is_enabled:
            self._core.set_enabled(is_enabled)
            logger.info("cache: switched %s", "on" if is_enabled else "off")

    def open(self) -> None:
        """Open the tiers below, for programs without an event loop; ``start`` does it, too. Blocks; safe to call twice.

        Raises:
            ConfigurationError: a tier cannot be used; the message says why and what to do.
        """
        with self._opening:
            if self._tiers is None or self._tiers.options != self._tier_options:
                if self._tiers is not None:
                    self._tiers.close()
                self._tiers = self._make_tiers(self._tier_options)
            if self._tiers is not None:
                self._tiers.open()

    def close(self) -> None:
        """Write what waits and close the tiers below; ``stop`` does it, too. Blocks; safe to call twice."""
        with self._opening:
            if self._tiers is not None:
                self._tiers.close()

    def configure(self, *, policy: str | None = None, tiers: TierOptions | None = None) -> None:
        """Change the eviction policy, at once, and the tiers below the memory, with the next ``open`` or ``start``.

        Raises:
            ConfigurationError: there is no such policy; nothing was changed.
        """
        if policy is not None:
            self._set_policy(policy)
        if tiers is not None:
            self._tier_options = tiers
            if tiers.is_any:
                self._core.expect_tiers()

    def _set_policy(self, policy: str) -> None:
        with self._changing:
            if policy == self._policy:
                return
            random = self._random
            self._memory.set_policy(lambda: make_policy(policy, random=random))
            logger.info("cache: policy changed from %s to %s", self._policy, policy)
            self._policy = policy

    def hold(self) -> None:
        """Keep everything as it is: a fork is about to happen."""
        self._core.hold()

    def let_go(self) -> None:
        """End ``hold``."""
        self._core.let_go()

    def forked(self) -> None:
        """In a forked child: begin with locks that nobody holds."""
        self._opening, self._changing = threading.Lock(), threading.RLock()
        self._core.forked()
        if self._tiers is not None:
            self._tiers.forked()

    async def start(self) -> None:
        """Open the tiers, and begin to remove expired entries each second in steps of bounded work. Safe to call twice.

        Raises:
            ConfigurationError: a tier cannot be used; the message says why and what to do.
        """
        if self._tiers is not None or self._tier_options.is_any:
            await asyncio.to_thread(self.open)
        await self._sweeper.start()
        logger.info("cache %s: room for %s", "on" if self.is_enabled else "off", format_bytes(self.max_bytes))

    async def stop(self) -> None:
        """End the periodic removal and close the tiers; what is in memory stays. It can be started again.

        Cancellation: the tiers are closed all the same, in a thread.
        """
        try:
            await self._sweeper.stop()
        finally:
            if self._tiers is not None:
                await asyncio.shield(asyncio.to_thread(self.close))
        stats = self.get_stats()
        logger.info(
            "cache stopped: %d entries in %s, %d hits and %d misses so far (%s), %d evictions",
            *(stats["entries"], format_bytes(stats["used_bytes"]), stats["hits"], stats["misses"]),
            *(stats["hit_rate"], stats["evictions"]),
        )

    def get_stats(self) -> dict[str, Any]:
        """Return the cache's figures as plain values.

        ``hits`` (of all tiers), ``memory_hits``, ``misses``, ``hit_rate`` (a ``Percent``), ``entries``, ``used_bytes``,
        ``max_bytes``, ``evictions``, ``expirations``, ``invalidations`` and all of them by reason (``left``),
        ``rejections``, ``computations``, ``shared_computations`` (callers served by another's),
        ``failed_computations``, ``refreshes``, ``failed_refreshes``, ``computing`` (now), ``compute_seconds``,
        ``saved_seconds`` (by hits and shared computations), ``sweep_failures``, ``is_enabled``, ``policy`` (which one
        is in charge and why), ``quotas``, ``tiers`` with the figures of each tier, ``unencodable`` (entries by name
        that cannot leave this process), and ``names`` with the figures of each name (the first 256; the others
        together). Who waits for a shared computation counts as a miss: it did not get its answer at once.
        """
        return self._core.get_stats() | {"sweep_failures": self._sweeper.failures}


def _made_tiers(
    core: CacheCore, options: TierOptions, *, clock: Clock, random: random_module.Random, recorder: Recorder
) -> Tiers | None:
    if not options.is_any:
        return None
    from ondol.cache.tiers import Tiers  # noqa: PLC0415  # a cache in memory alone need not wait for it

    return Tiers(core, options, clock, random, recorder)
