"""service: the callers of one key in one process, and a lease that one of them holds."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from ondol.cache.ports import Put
from ondol.cache.shared.ticket import settle_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.shared.leases import Claimed
    from ondol.cache.shared.ticket import Ticket

__all__ = ["Held", "Keeper", "Line"]


class Keeper(Protocol):
    """Who does what the holder of a lease asks for; from any thread."""

    def commit(self, held: Held, put: Put, done: Callable[[bool], None]) -> None:
        """Store a value."""
        ...

    def give_back(self, held: Held) -> None:
        """End a lease without one."""
        ...


class Held:
    """One lease of this process."""

    __slots__ = ("_keeper", "_line", "ended", "extended_at_s", "key", "mark", "since_s", "stamp", "token")

    def __init__(self, keeper: Keeper, line: Line, token: str, stamp: int, loop: asyncio.AbstractEventLoop) -> None:
        self._keeper = keeper
        self._line = line
        self.key = line.key
        self.mark = 0
        """Who had come into the line when the value was sent to the store; a later one may be due a newer value."""
        self.token = token
        self.stamp = stamp
        self.since_s = self.extended_at_s = loop.time()
        self.ended: asyncio.Future[bytes | None] = loop.create_future()
        """What was stored under it; ``None`` when it was given back or lost."""

    def commit(self, frame: bytes, ttl_s: float | None, tags: tuple[str, ...], done: Callable[[bool], None]) -> None:
        """Store the value."""
        self.mark = self._line.arrivals
        self._keeper.commit(self, Put(self.key, frame, ttl_s, tags, self.token, self.stamp), done)

    def release(self) -> None:
        """End it without one."""
        self._keeper.give_back(self)


class Line:
    """Those who want the same key, in the order they came.

    An answer of the store is given only to those who had come before it was asked for: what has been invalidated
    meanwhile, by whatever process, is not to reach one who came after that.
    """

    __slots__ = ("_tickets", "arrivals", "key", "woken")

    def __init__(self, key: str) -> None:
        self.key = key
        self.arrivals = 0
        self._tickets: deque[tuple[int, Ticket[Claimed]]] = deque()
        self.woken = asyncio.Event()

    def join(self, ticket: Ticket[Claimed]) -> None:
        """Stand at the end."""
        self.arrivals += 1
        self._tickets.append((self.arrivals, ticket))

    def has_callers(self) -> bool:
        """Tell whether anybody still waits."""
        while self._tickets and self._tickets[0][1].is_left:
            self._tickets.popleft()
        return bool(self._tickets)

    def next_caller(self) -> Ticket[Claimed] | None:
        """Take the first who still waits out of the line."""
        return self._tickets.popleft()[1] if self.has_callers() else None

    def answer_all(self, answer: Claimed) -> None:
        """Give everybody the same answer."""
        self.answer_until(self.arrivals, answer)

    def answer_until(self, mark: int, answer: Claimed) -> None:
        """Give it to those who had come when ``arrivals`` was ``mark``."""
        answers = []
        while self._tickets and self._tickets[0][0] <= mark:
            answers.append((self._tickets.popleft()[1], answer))
        settle_all(answers)

    async def wait(self, longest_s: float) -> None:
        """Wait until woken, or ``longest_s``."""
        try:
            async with asyncio.timeout(longest_s):
                await self.woken.wait()
        except TimeoutError:
            return
