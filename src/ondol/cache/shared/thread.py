"""service: one background thread with an event loop of its own, which outlives all loops of the program."""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

__all__ = ["LoopThread"]

T = TypeVar("T")

_disowned: list[object] = []
"""What a forked child must not clean up: it belongs to the parent."""


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that a forked child can let go of.

    The child shares the parent's epoll instance: taking a connection out of it there would take it from the parent.
    """

    def __init__(self) -> None:
        self._own_selector = selectors.DefaultSelector()
        self._is_disowned = False
        super().__init__(self._own_selector)

    def is_closed(self) -> bool:
        """Tell whether it may not be used; true in a forked child."""
        return self._is_disowned or super().is_closed()

    def disown(self) -> None:
        """Close the child's own handle of the selector, so that nothing done later reaches the parent's."""
        self._is_disowned = True
        self._own_selector.close()
        _disowned.append(self)


class LoopThread:
    """A thread that runs an event loop from ``start`` to ``stop``."""

    def __init__(self, name: str) -> None:
        """Create the loop; the thread begins with ``start``."""
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def is_current(self) -> bool:
        """Tell whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    def stop(self, timeout_s: float) -> bool:
        """End the loop and wait for the thread; return false when it did not end in time (it is a daemon then)."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self.is_current():
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def disown(self, *belongings: object) -> None:
        """Let go of it, and of what works in its loop, in a forked child, where the thread does not exist."""
        self._loop.disown()
        _disowned.append((self, belongings))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
            self._loop.close()
            asyncio.set_event_loop(None)
