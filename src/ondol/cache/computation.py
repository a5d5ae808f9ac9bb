"""service: one computation: timed, measured, encoded, or failed; in a coroutine or in the calling thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computed import Computed, KeptError
from ondol.cache.keys import canonical_key
from ondol.cache.lifetime import Lifetime
from ondol.tracing import NO_SPAN
from ondol.units import KIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from ondol.cache.computed import Terms
    from ondol.cache.core import CacheCore
    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.tracing import Span

__all__ = ["LARGE_BYTES", "Computation"]

LARGE_BYTES: Final = 256 * KIB
"""Values above this are encoded for the tiers below in a thread: compressing a megabyte of text takes some 10 ms."""


class Computation:
    """Runs what gives a missing value and counts it; what is kept of it is decided elsewhere."""

    def __init__(self, core: CacheCore, clock: Clock, recorder: Recorder) -> None:
        self._core = core
        self._clock = clock
        self._record = recorder
        self._spans = core.spans
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            ("computations", "shared_computations", "failed_computations", "refreshes", "failed_refreshes"), 0
        )
        self._compute_s = 0.0

    async def _computed(
        self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms, lease: Any
    ) -> Computed:
        started_s = self._clock.monotonic()
        try:
            with self._span(name):
                value = compute()
                if inspect.isawaitable(value):
                    value = await value
            computed = self._measured(name, key, value, started_s, terms, lease)
            if computed.size_bytes > LARGE_BYTES:
                return await asyncio.to_thread(self._framed, name, key, computed, terms)
            return self._framed(name, key, computed, terms)
        except Exception as exc:  # noqa: BLE001  # raised there again, unless it is to be kept
            return self._failed(key, exc, started_s, terms, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise

    def _computed_blocking(
        self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms, lease: Any
    ) -> Computed | Awaitable[Computed]:
        started_s = self._clock.monotonic()
        try:
            with self._span(name):
                value = compute()
            if inspect.isawaitable(value):
                if lease is not None:
                    lease.release()
                return value
            return self._framed(name, key, self._measured(name, key, value, started_s, terms, lease), terms)
        except Exception as exc:  # noqa: BLE001  # raised there again, unless it is to be kept
            return self._failed(key, exc, started_s, terms, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise

    def _span(self, name: str) -> Span:
        spans = self._spans
        return spans.span("cache.compute", {"cache.name": name}) if spans.is_on else NO_SPAN

    def _measured(self, name: str, key: Hashable, value: Any, started_s: float, terms: Terms, lease: Any) -> Computed:
        cost_s = self._clock.monotonic() - started_s
        with self._lock:
            self._counts["computations"] += 1
            self._compute_s += cost_s
        self._record("cache.compute_time", cost_s, "seconds", entry=name)
        # Here rather than while storing, which happens under a lock that all computations share.
        computed = self._core.measure(key, value, terms.lifetime, cost_s, terms.tags)
        return computed if lease is None else computed._replace(lease=lease)

    def _framed(self, name: str, key: Hashable, computed: Computed, terms: Terms) -> Computed:
        """Encode the value for the tiers below, where it goes there."""
        lower = self._core.lower
        if lower is None or terms.is_local:
            return computed
        return lower.encode(canonical_key(name, key), computed)

    def _failed(self, key: Hashable, error: Exception, started_s: float, terms: Terms, lease: Any) -> Computed:
        if lease is not None:
            lease.release()
        with self._lock:
            self._counts["computations"] += 1
            self._counts["failed_computations"] += 1
        if terms.negative_ttl_s is None or not isinstance(error, terms.negative_errors):
            raise error
        cost_s = self._clock.monotonic() - started_s
        lifetime = Lifetime(terms.negative_ttl_s)
        return self._core.measure(key, KeptError(error), lifetime, cost_s, terms.tags)
