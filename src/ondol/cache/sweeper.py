"""service: the task that removes expired entries and reports the cache's figures while the program runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SWEEP_INTERVAL_S", "SWEEP_STEP_ENTRIES", "Sweeper"]

logger = logging.getLogger("ondol.cache")

SWEEP_INTERVAL_S: Final = 1.0
SWEEP_STEP_ENTRIES: Final = 256
"""Entries removed at once before other coroutines get their turn: well under a millisecond."""


class Sweeper:
    """Calls ``sweep(limit)`` each second until it returns true, and ``report()`` after it.

    Start and stop it as often as wanted, in one event loop after the other.
    """

    def __init__(self, sweep: Callable[[int], bool], report: Callable[[], None]) -> None:
        self._sweep = sweep
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self.failures = 0

    async def start(self) -> None:
        """Begin; does nothing while it runs already."""
        if self._task is None or self._task.done() or not self._task.get_loop().is_running():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ondol cache sweeper")

    async def stop(self) -> None:
        """End; does nothing when it does not run."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        loop = task.get_loop()
        if loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
        elif loop.is_running():
            loop.call_soon_threadsafe(task.cancel)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                is_done = False
                while not is_done:
                    is_done = self._sweep(SWEEP_STEP_ENTRIES)
                    await asyncio.sleep(0)
                self._report()
            except Exception:
                self.failures += 1
                logger.exception("cache: removing expired entries failed; it is tried again")
