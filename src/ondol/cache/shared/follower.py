"""service: follows the log of invalidations, so that the memory of this process learns what others invalidate."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from ondol.cache.ports import Invalidation, LogGapError, StoreFaultError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.ports import LogPage, LogPosition, SharedStore
    from ondol.cache.shared.claims import Claims
    from ondol.cache.shared.health import Health
    from ondol.cache.shared.writer import Writer

__all__ = ["Events", "Follower"]

logger = logging.getLogger("ondol.cache")


class Events(NamedTuple):
    """Whom the tier tells what others do; called in the tier's thread, where they must not wait for the tier."""

    invalidated: Callable[[Invalidation], None]
    gap: Callable[[], None]


class Follower:
    """One process's place in the log.

    Thread-safety: for the tier's loop.
    """

    def __init__(
        self, store: SharedStore, health: Health, writer: Writer, claims: Claims, *, events: Events, sender: str
    ) -> None:
        self._store = store
        self._health = health
        self._writer = writer
        self._claims = claims
        self._events = events
        self._sender = sender
        self.position: LogPosition | None = None

    async def catch_up(self) -> None:
        """Learn everything that the log tells up to now.

        Raises:
            StoreFaultError: the store failed; what was learnt so far counts.
        """
        if self.position is None:
            self.position = await self._store.position()
            self._tell_gap()  # what is in memory already may have been invalidated before
            return
        while True:
            try:
                page = await self._store.read_log(self.position, 0.0)
            except LogGapError as exc:
                await self._jump(exc)
                continue
            self._apply(page)
            if not page.lines:
                return

    async def run(self, wait_s: float) -> None:
        """Follow the log until cancelled, or the store fails."""
        while self._health.is_up:
            assert self.position is not None
            try:
                self._apply(await self._store.read_log(self.position, wait_s))
            except LogGapError as exc:
                await self._jump_over(exc)
            except StoreFaultError as exc:
                self._health.failed("follow", exc)
                return

    async def _jump_over(self, gap: LogGapError) -> None:
        try:
            await self._jump(gap)
        except StoreFaultError as exc:
            self._health.failed("follow", exc)

    async def _jump(self, gap: LogGapError) -> None:
        """Go on at the log's end; what is in memory may be outdated, and in the store, too, when that went back."""
        self.position = await self._store.position()
        self._health.count("gaps")
        logger.warning("cache: invalidations may have been missed, so that memory is emptied: %s", gap)
        if gap.is_rollback:
            self._writer.invalidate(Invalidation("all"))
        self._tell_gap()

    def _apply(self, page: LogPage) -> None:
        for line in page.lines:
            if line.sender == self._sender:
                self._writer.confirmed(line.invalidation)
                continue
            self._health.count("invalidations_received")
            self._writer.overtaken(line.invalidation)
            try:
                self._events.invalidated(line.invalidation)
            except Exception:
                logger.exception("cache: applying the invalidation %r of another process failed", line.invalidation)
            self._claims.invalidated(line.invalidation)
        for key in page.woken:
            self._claims.wake(key)
        self.position = page.position

    def _tell_gap(self) -> None:
        try:
            self._events.gap()
        except Exception:
            logger.exception("cache: emptying memory after missed invalidations failed")
