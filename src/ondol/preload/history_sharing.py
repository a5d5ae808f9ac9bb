"""service: tells other nodes what was learnt from use, and learns from them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ondol.models.loader import call

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ondol.clock import Clock
    from ondol.preload.ports import Foreign, Knowledge, KnowledgeExchange

__all__ = ["EXCHANGE_S", "Sharing", "Trouble"]

logger = logging.getLogger("ondol.preload")

EXCHANGE_S: Final = 300.0
_FIRST_S: Final = 1.0
_LAST_S: Final = 3.0
_MOST_SEEN: Final = 256


class Trouble:
    """Counts failures, and logs the first of each episode and the end of it."""

    def __init__(self, words: str) -> None:
        """Say ``words`` when it begins."""
        self.count = 0
        self.is_on = False
        self._words = words

    def began(self, exc: Exception) -> None:
        """Take note of a failure."""
        self.count += 1
        if not self.is_on:
            logger.error("%s; until it can be again, failures are only counted", self._words, exc_info=exc)
        self.is_on = True

    def ended(self) -> None:
        """Take note that it went well."""
        if self.is_on:
            logger.info("%s: this is over", self._words)
        self.is_on = False


class Sharing:
    """Exchanges ``knowledge`` every five minutes. Nothing that fails here reaches anybody."""

    def __init__(
        self,
        knowledge: Knowledge,
        exchange: KnowledgeExchange,
        clock: Clock,
        lock: AbstractContextManager[Any],
        on_learnt: Callable[[], None],
    ) -> None:
        """Hold ``lock`` while ``knowledge`` is asked or told; call ``on_learnt`` when another node knew more."""
        self._knowledge = knowledge
        self._exchange = exchange
        self._clock = clock
        self._lock = lock
        self._on_learnt = on_learnt
        self._seen: dict[str, float] = {}
        self._trouble = Trouble("what was learnt of the use of models cannot be exchanged with other nodes")
        self._left = self._nodes_read = self._models_taken = self._damaged = 0

    async def wait_for(self, first: asyncio.Task[None]) -> None:
        """Wait a second at most for the first exchange, which goes on."""
        await asyncio.wait({first}, timeout=_FIRST_S)

    async def go_on(self, first: asyncio.Task[None]) -> None:
        """Exchange for ever, from the ``first`` time on."""
        await asyncio.wait({first})
        while True:
            await asyncio.sleep(EXCHANGE_S)
            await self.exchange(is_leaving=True)

    async def exchange(self, *, is_leaving: bool) -> None:
        """Take in what others know, and leave what is known then."""
        try:
            taken = await call(self._exchange.take, dict(self._seen), name="preload-exchange")
            self._note_damaged(taken.damaged)
            for foreign in taken.nodes:
                self._take_in(foreign)
                await asyncio.sleep(0)  # each may be large; requests come between them
            if is_leaving:
                await self._leave()
        except Exception as exc:  # noqa: BLE001  # it is logged there
            self._trouble.began(exc)
        else:
            self._trouble.ended()

    async def leave_last(self) -> None:
        """Leave what is known before the end, within a few seconds."""
        try:
            async with asyncio.timeout(_LAST_S):
                await self._leave()
        except Exception as exc:  # noqa: BLE001  # it is logged there
            self._trouble.began(exc)
        else:
            self._trouble.ended()

    async def _leave(self) -> None:
        with self._lock:
            plain = self._knowledge.to_plain(self._clock.monotonic())
        await call(self._exchange.leave, plain, name="preload-exchange")
        self._left += 1

    def _take_in(self, foreign: Foreign) -> None:
        try:
            with self._lock:
                models = self._knowledge.take_in(foreign.knowledge, self._clock.monotonic())
        except Exception:
            self._damaged += 1
            logger.exception("what node %s has learnt of the use of models cannot be used", foreign.node)
        else:
            self._nodes_read += 1
            self._models_taken += models
            if models:
                self._on_learnt()
        self._seen.pop(foreign.node, None)
        self._seen[foreign.node] = foreign.written_at_s
        if len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    def _note_damaged(self, count: int) -> None:
        if count:
            self._damaged += count
            logger.warning("what %d nodes left at %s is damaged, and ignored", count, self._exchange.address)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "address": self._exchange.address,
            "node": self._exchange.node,
            "left": self._left,
            "nodes_read": self._nodes_read,
            "models_taken": self._models_taken,
            "failures": self._trouble.count,
            "is_failing": self._trouble.is_on,
            "damaged": self._damaged,
        }
