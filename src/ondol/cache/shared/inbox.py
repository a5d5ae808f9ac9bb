"""service: requests from any thread for the one loop that serves them, picked up together."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Inbox"]

ItemT = TypeVar("ItemT")


class Inbox(Generic[ItemT]):
    """Hands what is posted, from any thread, to ``serve`` in ``loop``; once closed, to ``turn_away`` at once.

    Thread-safety: ``post`` may be called from any thread; nothing posted gets lost, also while it is being closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        serve: Callable[[list[ItemT]], None],
        turn_away: Callable[[ItemT], None],
    ) -> None:
        self._loop = loop
        self._serve = serve
        self._turn_away = turn_away
        self._items: deque[ItemT] = deque()
        self._is_called = False
        self._is_closed = False

    def post(self, *items: ItemT) -> None:
        """Hand ``items`` over; they are served together."""
        self._items.extend(items)
        if self._is_closed:
            self._refuse()
        elif not self._is_called:
            self._is_called = True
            try:
                self._loop.call_soon_threadsafe(self._pick_up)
            except RuntimeError:  # the loop was closed this moment
                self._refuse()

    def close(self) -> None:
        """Take nothing any more."""
        self._is_closed = True
        self._refuse()

    def _pick_up(self) -> None:
        self._is_called = False  # before taking: what is posted from here on calls again
        if items := self._take():
            self._serve(items)

    def _refuse(self) -> None:
        for item in self._take():
            self._turn_away(item)

    def _take(self) -> list[ItemT]:
        items: list[ItemT] = []
        while True:
            try:
                items.append(self._items.popleft())
            except IndexError:
                return items
