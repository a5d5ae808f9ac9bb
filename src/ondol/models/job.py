"""service: one load, from the call of the loader to a warm and measured model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from ondol.models.loader import call, is_async

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.meter import MemoryMeter
    from ondol.models.spec import ModelSpec

__all__ = ["LoadJob", "Loaded", "put_away"]

logger = logging.getLogger("ondol.models")


class Loaded(NamedTuple):
    """A model that is loaded and warm, and what its load took."""

    model: Any
    seconds: float
    growth_bytes: int | None


async def put_away(spec: ModelSpec, model: Any, meter: MemoryMeter) -> bool:
    """Call the specification's ``unload``; return whether it went well (a failure is logged)."""
    if spec.unload is None:
        return True
    reading = meter.begin()
    try:
        await call(spec.unload, model, name=spec.name)
    except (Exception, SystemExit):
        logger.exception("unloading model %s failed", spec.name, extra={"fields": {"model": spec.name}})
        return False
    finally:
        meter.end(reading)
    return True


class LoadJob:
    """One load under way; the pool owns it, callers only wait for its end."""

    __slots__ = ("_clock", "_meter", "_running", "is_demand", "spec", "task")

    def __init__(self, spec: ModelSpec, *, is_demand: bool, clock: Clock, meter: MemoryMeter) -> None:
        """Prepare the load of ``spec`` in a demand or a background slot."""
        self.spec = spec
        self.is_demand = is_demand
        self.task: asyncio.Task[None] | None = None
        self._clock = clock
        self._meter = meter
        self._running: Callable[..., Any] | None = None

    @property
    def is_cancellable(self) -> bool:
        """Whether a coroutine of the specification runs, which can be stopped; a thread cannot."""
        return self._running is not None and is_async(self._running)

    async def bring_up(self, on_warming: Callable[[], None]) -> Loaded:
        """Load and warm up the model.

        Cancellation: a coroutine is cancelled. A thread is left behind; a model it still returns is put away. One
        whose warm-up is left behind is let go of without ``unload``, because the thread may still use it.

        Raises:
            BaseException: whatever the loader or the warm-up raised; in the second case the model was put away.
        """
        started_s = self._clock.monotonic()
        reading = self._meter.begin()
        growth_bytes = None
        try:
            model = await self._call(self.spec.load, put_away=self.spec.unload)
            if self.spec.warm_up is not None:
                on_warming()
                await self._warm_up(self.spec.warm_up, model)
        finally:
            growth_bytes = self._meter.end(reading)
        return Loaded(model, self._clock.monotonic() - started_s, growth_bytes)

    async def _warm_up(self, warm_up: Callable[[Any], Any], model: Any) -> None:
        try:
            await self._call(warm_up, model)
        except (Exception, SystemExit):
            await put_away(self.spec, model, self._meter)
            raise

    async def _call(
        self, function: Callable[..., Any], *args: Any, put_away: Callable[[Any], Any] | None = None
    ) -> Any:
        self._running = function
        try:
            return await call(function, *args, name=self.spec.name, put_away=put_away)
        finally:
            self._running = None
