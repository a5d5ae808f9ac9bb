"""service: when what was learnt of models is read and written."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ondol.models.loader import call

if TYPE_CHECKING:
    from ondol.models.ports import EstimateStore
    from ondol.models.registry import Registry

__all__ = ["EstimateKeeper"]

logger = logging.getLogger("ondol.models")

_WRITE_DELAY_S: Final = 2.0
"""After a load; those that end meanwhile are written with it."""


class EstimateKeeper:
    """Reads the store once, and writes it soon after each load and at each stop. Without a store it does nothing."""

    def __init__(self, registry: Registry, store: EstimateStore | None) -> None:
        """Keep what ``registry`` learns in ``store``."""
        self._registry = registry
        self._store = store
        self._has_read = False
        self._written_loads = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        registry.on_learnt = self._loaded

    def start(self) -> None:
        """Take in what earlier processes learnt (a small file, read once); begin to write in the running loop."""
        self._timer = self._writing = None  # not those of a loop that was closed
        if self._store is not None and not self._has_read:
            self._has_read = True
            self._registry.remember(self._store)

    def _loaded(self) -> None:
        if self._store is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_DELAY_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._loaded()
            return
        self._writing = asyncio.get_running_loop().create_task(self._write(), name="ondol-estimates")

    async def stop(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._write()

    async def _write(self) -> None:
        loads = self._registry.totals.loads
        if self._store is None or loads == self._written_loads:
            return
        try:
            await call(self._store.write, self._registry.estimates(), name="estimates")
            self._written_loads = loads
        except OSError:
            self._registry.totals.estimate_failures += 1
            logger.exception("what was learnt of models cannot be kept; the next process learns it anew")
