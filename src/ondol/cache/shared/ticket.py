"""service: the way of an answer from the shared tier's thread to the coroutine or thread that asked."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

__all__ = ["Ticket", "settle_all"]

T = TypeVar("T")


class Ticket(Generic[T]):
    """Stands for one caller who waits for one answer.

    Thread-safety: one thread settles it; the caller waits in its own thread or event loop.
    """

    __slots__ = ("_answer", "_event", "_future", "is_left", "is_settled", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Wait in ``loop``, or by blocking a thread when it is ``None``."""
        self.loop = loop
        self._future: asyncio.Future[T] | None = None if loop is None else loop.create_future()
        self._event = threading.Event() if loop is None else None
        self._answer: T | None = None
        self.is_settled = False
        self.is_left = False
        """Whether the caller has gone away."""

    async def arrival(self) -> T:
        """Return the answer."""
        assert self._future is not None
        return await self._future

    def arrival_blocking(self) -> T:
        """Return the answer; blocks the thread until it is there."""
        assert self._event is not None
        self._event.wait()
        return self._answer  # type: ignore[return-value]  # the event is set once it is there

    def leave(self) -> T | None:
        """Take note that the caller goes away; return the answer if it had just been delivered."""
        self.is_left = True
        if self._future is None or not self._future.done() or self._future.cancelled():
            return None
        return self._future.result()

    def deliver(self, answer: T) -> None:
        """Hand the answer over, in the caller's loop."""
        if self._future is not None and not self._future.done():
            self._future.set_result(answer)

    def settle(self, answer: T) -> None:
        """Answer this one ticket, from any thread; the first answer counts."""
        settle_all(((self, answer),))

    def take(self, answer: T) -> bool:
        """Take note of the answer; return whether the caller's loop has to be told."""
        if self.is_settled:
            return False
        self.is_settled = True
        if self._event is None:
            return True
        self._answer = answer
        self._event.set()
        return False


def settle_all(answers: Iterable[tuple[Ticket[T], T]]) -> None:
    """Answer many tickets, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket[T], T]]] = {}
    for ticket, answer in answers:
        if ticket.take(answer) and ticket.loop is not None:
            by_loop.setdefault(ticket.loop, []).append((ticket, answer))
    for loop, group in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_deliver, group)


def _deliver(group: list[tuple[Ticket[T], T]]) -> None:
    for ticket, answer in group:
        ticket.deliver(answer)
