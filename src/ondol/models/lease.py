"""service: the hold on one model; what is leased is never unloaded."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

from ondol.errors import LifecycleError

if TYPE_CHECKING:
    from types import TracebackType

    from ondol.models.entry import Resident
    from ondol.models.run import PoolRun

__all__ = ["Lease"]


class Lease:
    """``async with pool.lease(name) as model``: the model stays loaded until the block ends.

    Cost: a few microseconds for a model that is ready. Use each lease once at a time, in the pool's event loop.
    """

    __slots__ = ("_name", "_resident", "_run")

    def __init__(self, run: PoolRun, name: str) -> None:
        """Prepare to hold the model ``name``; nothing happens before the block begins."""
        self._run = run
        self._name = name
        self._resident: Resident | None = None

    async def __aenter__(self) -> Any:
        """Return the model, loaded if need be.

        Raises:
            LeaseTimeoutError, ModelLoadError, ModelBudgetError, ModelNotLoadedError, UnknownModelError,
            AlreadyClosedError: see ``ModelPool.lease``.
        """
        run = self._run
        if self._resident is not None or get_running_loop() is not run.loop:
            message = f"the lease of {self._name!r} is in use already, or belongs to another event loop; take a new one"
            raise LifecycleError(message)
        resident = run.ready.get(self._name)
        is_found_ready = resident is not None
        if resident is None:
            resident = await run.acquire(self._name)
        else:
            resident.leases += 1
            if run.relay.is_on:
                run.spans.found_ready(self._name)
        self._resident = resident
        run.note_use(resident, is_found_ready=is_found_ready)
        return resident.model

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the model back."""
        resident, self._resident = self._resident, None
        if resident is not None:
            self._run.give_back(resident)
