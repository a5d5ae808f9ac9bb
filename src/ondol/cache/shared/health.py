"""service: runs every operation on the shared store, counts what comes of it, and says whether the store is up."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ondol.cache.ports import StoreFaultError
from ondol.cache.shared.breaker import CircuitBreaker
from ondol.cache.shared.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ondol.cache.shared.params import SharedParams
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["Health"]

T = TypeVar("T")

logger = logging.getLogger("ondol.cache")

_LOG_EVERY_S: Final = 60.0
_FINAL_KINDS: Final = frozenset({"readonly", "loading", "auth"})
"""The server says itself that it cannot serve: no second failure is needed."""
_FINAL_OPERATIONS: Final = frozenset({"follow"})
"""Without the log nobody knows what others invalidate; where its connection broke, the server may have restarted."""


class Health:
    """The breaker and the figures of one tier. ``went_down`` is called when the breaker opens.

    Thread-safety: ``count``, ``is_up`` and ``get_stats`` may be used in any thread, the rest in the tier's loop.
    """

    def __init__(self, params: SharedParams, clock: Clock, random: Callable[[], float], record: Recorder) -> None:
        self._params = params
        self._random = random
        self.breaker = CircuitBreaker(params, random)
        self.went_down: Callable[[], None] = _nothing
        self._tally = Tally()
        self._lock = threading.Lock()
        self._clock = clock
        self._record = record
        self._logged_at_s: dict[str, float] = {}
        self.is_up = False

    def renew(self) -> None:
        """Begin anew with a new lock: for a forked child, where nobody would open the old one."""
        self.breaker = CircuitBreaker(self._params, self._random)
        self._tally = Tally()
        self._lock = threading.Lock()
        self.is_up = False

    def count(self, name: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._tally.counts[name] += number

    async def attempt(self, what: str, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of an operation on the store, or ``None`` when it failed, which is counted and logged."""
        begun_s = self._clock.monotonic()
        try:
            result = await operation()
        except StoreFaultError as exc:
            self.failed(what, exc)
            return None
        except Exception as exc:  # noqa: BLE001  # a client's bug is a failure of the store, never the caller's
            self.failed(what, exc)
            return None
        self._succeeded(what, self._clock.monotonic() - begun_s)
        return result

    def failed(self, what: str, exc: Exception) -> None:
        """Take note of a failure."""
        kind = exc.kind if isinstance(exc, StoreFaultError) else "unexpected"
        self._count_failure(what, kind, exc)
        # A full store still reads; but where invalidations cannot be announced, nobody may rely on it.
        is_serious = kind != "memory" or what == "invalidate"
        is_final = kind in _FINAL_KINDS or what in _FINAL_OPERATIONS
        if is_serious and self.breaker.failed(self._clock.monotonic(), is_final=is_final):
            self.is_up = False
            logger.warning("cache: the shared store counts as down; the cache works without it (last error: %s)", exc)
            self.went_down()

    def item_failed(self, what: str, fault: StoreFaultError) -> None:
        """Take note that one of several things asked for failed while the others did not: the store is up."""
        self._count_failure(what, fault.kind, fault)

    def probe_failed(self, exc: Exception) -> None:
        """Take note that the store is still down."""
        self.breaker.probe_failed()
        self._count_failure("probe", exc.kind if isinstance(exc, StoreFaultError) else "unexpected", exc)

    def came_up(self) -> None:
        """Let requests out."""
        self.breaker.close(self._clock.monotonic())
        self.is_up = True
        logger.info("cache: the shared store is up")

    def get_stats(self) -> dict[str, Any]:
        """Return the figures."""
        with self._lock:
            figures = self._tally.figures()
        return {
            "is_up": self.is_up,
            "state": self.breaker.state,
            "opened": self.breaker.opened,
            **figures,
        }

    def _succeeded(self, what: str, seconds: float) -> None:
        self.breaker.succeeded()
        with self._lock:
            self._tally.took(seconds)
        self._record("cache.shared_time", seconds, "seconds", operation=what)

    def _count_failure(self, what: str, kind: str, exc: Exception) -> None:
        with self._lock:
            self._tally.failures[kind] += 1
        now_s = self._clock.monotonic()
        if now_s - self._logged_at_s.get(kind, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            self._logged_at_s[kind] = now_s
            logger.warning(
                "cache: %s on the shared store failed (%s); said at most once a minute",
                what,
                kind,
                exc_info=exc,
                extra={"fields": {"operation": what, "kind": kind}},
            )


def _nothing() -> None:
    pass
