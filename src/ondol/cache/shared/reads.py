"""service: reads from the shared store, all of the same moment in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.cache.shared.batcher import Batcher
from ondol.cache.shared.inbox import Inbox
from ondol.cache.shared.ticket import settle_all

if TYPE_CHECKING:
    import asyncio

    from ondol.cache.ports import SharedStore
    from ondol.cache.shared.health import Health
    from ondol.cache.shared.params import SharedParams
    from ondol.cache.shared.ticket import Ticket

__all__ = ["Reads"]


class _Flight:
    """One key that is being read, and who waits for it."""

    __slots__ = ("key", "tickets")

    def __init__(self, key: str) -> None:
        self.key = key
        self.tickets: list[Ticket[bytes | None]] = []


class Reads:
    """Reads by key. Who asks for a key that is about to be read shares it.

    One that has been sent already is not shared: another process may have invalidated the key since, and been told so.

    Thread-safety: ``ask`` may be called from any thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: SharedStore,
        health: Health,
        params: SharedParams,
    ) -> None:
        self._store = store
        self._health = health
        self._flights: dict[str, _Flight] = {}
        self._inbox: Inbox[tuple[str, Ticket[bytes | None]]] = Inbox(loop, self._board, _turn_away)
        self._batcher: Batcher[_Flight] = Batcher(
            self._send, max_items=params.read_batch, max_under_way=params.reads_under_way
        )

    def ask(self, *asked: tuple[str, Ticket[bytes | None]]) -> None:
        """Answer each ticket with the value under its key, or ``None``."""
        self._inbox.post(*asked)

    async def stop(self) -> None:
        """Answer everybody with a miss."""
        self._inbox.close()
        left = await self._batcher.stop()
        settle_all((ticket, None) for flight in left for ticket in flight.tickets)
        self._flights.clear()

    def _board(self, asked: list[tuple[str, Ticket[bytes | None]]]) -> None:
        for key, ticket in asked:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(key)
                self._batcher.add(flight)
            flight.tickets.append(ticket)
        self._batcher.flush()

    async def _send(self, flights: list[_Flight]) -> None:
        for flight in flights:
            del self._flights[flight.key]
        frames: list[bytes | None] | None = None
        try:
            if self._health.is_up:
                self._health.count("batches")
                frames = await self._health.attempt(
                    "get", lambda: self._store.get_many([flight.key for flight in flights])
                )
        finally:
            self._land(flights, frames or [None] * len(flights))

    def _land(self, flights: list[_Flight], frames: list[bytes | None]) -> None:
        answers: list[tuple[Ticket[bytes | None], bytes | None]] = []
        hits = 0
        for flight, frame in zip(flights, frames, strict=True):
            hits += len(flight.tickets) if frame is not None else 0
            answers.extend((ticket, frame) for ticket in flight.tickets)
        self._health.count("hits", hits)
        self._health.count("misses", len(answers) - hits)
        settle_all(answers)


def _turn_away(asked: tuple[str, Ticket[bytes | None]]) -> None:
    asked[1].settle(None)
