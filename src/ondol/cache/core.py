"""service: the cache by key: lookups, storing, shared computation. ``Cache`` and the decorator both stand on it."""

from __future__ import annotations

import inspect
import logging
import math
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.cache.flight import SingleFlight, Work
from ondol.cache.sizing import entry_size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ondol.cache.memory import MemoryTier
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["MISSING", "CacheCore", "checked_ttl_s"]

logger = logging.getLogger("ondol.cache")

MISSING: Final[Any] = object()
"""Stands for "nothing there" where ``None`` is a value."""

_S_PER_HOUR: Final = 3600.0


def checked_ttl_s(ttl_hours: float | None, ttl_s: float | None) -> float | None:
    """Return the time to live in seconds, ``None`` when none was given, infinity for ever.

    Raises:
        ValueError: it is not above 0, not a number, or given twice.
    """
    if ttl_hours is None and ttl_s is None:
        return None
    if ttl_hours is not None and ttl_s is not None:
        raise ValueError(f"give ttl_hours or ttl_s, not both: ttl_hours={ttl_hours!r}, ttl_s={ttl_s!r}")
    name = "ttl_s" if ttl_hours is None else "ttl_hours"
    value: Any = ttl_s if ttl_hours is None else ttl_hours
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name}={value!r} is not allowed: it must be a number > 0 (math.inf for ever)")
    return float(value) if ttl_hours is None else float(value) * _S_PER_HOUR


class _Computed(NamedTuple):
    value: Any
    cost_s: float
    size_bytes: int


class CacheCore:
    """Lookups, storing and shared computation by canonical key.

    Thread-safety: every method may be called from any thread and event loop.
    """

    def __init__(
        self, memory: MemoryTier, clock: Clock, recorder: Recorder, *, default_ttl_s: float | None, is_enabled: bool
    ) -> None:
        self.memory = memory
        self.is_enabled = is_enabled
        self._clock = clock
        self._record = recorder
        self._default_ttl_s = default_ttl_s
        self._flights: SingleFlight[_Computed] = SingleFlight()
        self._lock = threading.Lock()
        self._computations = 0
        self._shared = 0
        self._failures = 0
        self._compute_s = 0.0
        self._shared_saved_s = 0.0
        self._invalidations = 0

    def find(self, key: str, name: str, default: Any) -> Any:
        """Return the value under ``key``, or ``default``; counted for ``name``."""
        if self.is_enabled:
            return self.memory.find(key, name, default)
        self.memory.count_miss(name)
        return default

    def store(self, key: str, name: str, value: Any, ttl_s: float | None, cost_s: float) -> None:
        """Keep ``value``; a computation under way for the same key is older and will not replace it."""
        if self.is_enabled:
            self._flights.detach(key)
            self._store(key, name, _Computed(value, cost_s, 0), ttl_s)

    def discard(self, key: str) -> bool:
        """Drop what is under ``key``, also what is being computed; return whether there was a live entry."""
        self._flights.detach(key)
        is_gone = self.memory.remove(key)
        self.count_invalidations(int(is_gone))
        return is_gone

    def detach_where(self, matches: Callable[[str], object]) -> None:
        """Keep computations under way for keys that match from storing their results."""
        self._flights.detach_where(matches)

    def count_invalidations(self, count: int) -> None:
        """Count entries that were dropped on demand."""
        if count:
            with self._lock:
                self._invalidations += count

    def clear(self) -> int:
        """Drop everything, also what is being computed; return how many entries went."""
        self._flights.detach_where(lambda _key: True)
        count = self.memory.clear()
        self.count_invalidations(count)
        return count

    def set_enabled(self, is_enabled: bool) -> None:
        """Switch on or off; either way it is empty then: what is set or deleted while off would make it wrong."""
        self.is_enabled = is_enabled
        self._flights.detach_where(lambda _key: True)
        self.memory.clear()

    async def compute(
        self, key: str, name: str, compute: Callable[[], Any | Awaitable[Any]], ttl_s: float | None
    ) -> Any:
        """Return the result of ``compute``, stored and shared with all who ask for ``key`` meanwhile.

        Raises:
            Exception: what the computation raised; nothing is stored then.

        Cancellation: leaves the computation to the others who wait for it; the last one to leave cancels it.
        """
        if not self.is_enabled:
            value = compute()
            return await value if inspect.isawaitable(value) else value

        async def measured() -> _Computed:
            started_s = self._clock.monotonic()
            try:
                value = compute()
                if inspect.isawaitable(value):
                    value = await value
            except Exception:
                self._count_failure()
                raise
            return self._measure(key, name, value, started_s, ttl_s)

        return self._shared_value(*await self._flights.run(key, self._work(key, name, measured, ttl_s)))

    def compute_blocking(self, key: str, name: str, compute: Callable[[], Any], ttl_s: float | None) -> Any:
        """Do what ``compute`` does in the calling thread; others who ask, in threads or loops, wait for it.

        Raises:
            Exception: what the computation raised; nothing is stored then.
            TypeError: it returned an awaitable.
        """
        if not self.is_enabled:
            return compute()

        def measured() -> _Computed | Awaitable[_Computed]:
            started_s = self._clock.monotonic()
            try:
                value = compute()
            except Exception:
                self._count_failure()
                raise
            if inspect.isawaitable(value):
                return value
            return self._measure(key, name, value, started_s, ttl_s)

        return self._shared_value(*self._flights.run_blocking(key, self._work(key, name, measured, ttl_s)))

    def get_stats(self) -> dict[str, Any]:
        """Return the memory tier's figures together with those of computations."""
        stats = self.memory.get_stats()
        with self._lock:
            stats["saved_seconds"] += self._shared_saved_s
            return stats | {
                "is_enabled": self.is_enabled,
                "invalidations": self._invalidations,
                "computations": self._computations,
                "shared_computations": self._shared,
                "failed_computations": self._failures,
                "computing": len(self._flights),
                "compute_seconds": self._compute_s,
            }

    def _work(
        self, key: str, name: str, measured: Callable[[], _Computed | Awaitable[_Computed]], ttl_s: float | None
    ) -> Work[_Computed]:
        def recheck() -> _Computed | None:
            entry = self.memory.peek(key)
            return None if entry is None else _Computed(entry.value, entry.cost_s, entry.size_bytes)

        def commit(computed: _Computed) -> None:
            if self.is_enabled:
                self._store(key, name, computed, ttl_s)

        return Work(measured, recheck, commit)

    def _measure(self, key: str, name: str, value: Any, started_s: float, ttl_s: float | None) -> _Computed:
        cost_s = self._clock.monotonic() - started_s
        with self._lock:
            self._computations += 1
            self._compute_s += cost_s
        self._record("cache.compute_time", cost_s, "seconds", entry=name)
        # Here rather than while storing, which happens under a lock that all computations share.
        size_bytes = entry_size(key, value, has_deadline=self._effective_ttl_s(ttl_s) is not None)
        return _Computed(value, cost_s, size_bytes)

    def _count_failure(self) -> None:
        with self._lock:
            self._computations += 1
            self._failures += 1

    def _shared_value(self, computed: _Computed, is_shared: bool) -> Any:
        if is_shared:
            with self._lock:
                self._shared += 1
                self._shared_saved_s += computed.cost_s
        return computed.value

    def _effective_ttl_s(self, ttl_s: float | None) -> float | None:
        ttl_s = self._default_ttl_s if ttl_s is None else ttl_s
        return None if ttl_s is None or math.isinf(ttl_s) else ttl_s

    def _store(self, key: str, name: str, computed: _Computed, ttl_s: float | None) -> None:
        is_stored = self.memory.store(
            key,
            name,
            computed.value,
            ttl_s=self._effective_ttl_s(ttl_s),
            cost_s=computed.cost_s,
            size_bytes=computed.size_bytes,
        )
        if is_stored:
            return
        ledger = self.memory.name_ledger(name)
        if not ledger.has_warned:
            ledger.has_warned = True
            logger.warning(
                "cache: an entry of %r is larger than the whole cache (%d bytes) and is not kept; "
                "raise CACHE_MEMORY_LIMIT_MB or cache something smaller (said once per name)",
                name,
                self.memory.max_bytes,
                extra={"fields": {"entry": name, "max_bytes": self.memory.max_bytes}},
            )
