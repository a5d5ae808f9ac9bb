"""service: requests of the same moment go out together."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Batcher"]

ItemT = TypeVar("ItemT")


class Batcher(Generic[ItemT]):
    """Collects items until a round trip is free, then sends all of them with ``send``, which never raises.

    While ``max_under_way`` round trips are under way, items wait for the next: the more is asked, the larger the
    batches. ``send`` has to answer its items even when it is cancelled.

    Thread-safety: for one event loop.
    """

    def __init__(self, send: Callable[[list[ItemT]], Awaitable[None]], *, max_items: int, max_under_way: int) -> None:
        self._send = send
        self._max_items = max_items
        self._max_under_way = max_under_way
        self._waiting: deque[ItemT] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, item: ItemT) -> None:
        """Let ``item`` go out with the next ``flush``."""
        self._waiting.append(item)

    def flush(self) -> None:
        """Send what has been added, as far as round trips are free."""
        while self._waiting and len(self._tasks) < self._max_under_way:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_items))]
            self._tasks.add(asyncio.get_running_loop().create_task(self._run(batch), name="ondol shared batch"))

    async def stop(self) -> list[ItemT]:
        """Cancel what is under way; return what has not been sent."""
        left = list(self._waiting)
        self._waiting.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        return left

    async def _run(self, batch: list[ItemT]) -> None:
        try:
            await self._send(batch)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.discard(task)
            self.flush()
