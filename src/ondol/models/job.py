"""service: one load, from the call of the loader to a warm and measured model."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from ondol.errors import ModelLoadError
from ondol.models.entry import withdraw
from ondol.models.isolated import own_bytes
from ondol.models.loader import call, is_async
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.entry import Resident
    from ondol.models.isolated import Isolator
    from ondol.models.isolation import ModelExit
    from ondol.models.meter import MemoryMeter, Reading
    from ondol.models.parting import Parting
    from ondol.models.spec import ModelSpec

__all__ = ["LoadJob", "LoadTimeout", "Loaded", "Tools"]


class LoadTimeout(ModelLoadError, TimeoutError):  # noqa: N818  # what the error tree calls it is ModelLoadError
    """A load took longer than it may."""


class Tools(NamedTuple):
    """What every load of a run uses."""

    clock: Clock
    meter: MemoryMeter
    parting: Parting
    isolator: Isolator
    prepare_memory: Callable[[], object] | None = None


class Loaded:
    """A model that is loaded and warm, and what its load took. ``growth_is_own``: nothing else is in the growth."""

    __slots__ = ("growth_bytes", "growth_is_own", "model", "seconds")

    def __init__(self, model: Any) -> None:
        """Own ``model``."""
        self.model = model
        self.seconds = 0.0
        self.growth_bytes: int | None = None
        self.growth_is_own = False

    @property
    def stated_bytes(self) -> int | None:
        """What the model says of its own size, if it does: an integer attribute ``size_bytes``."""
        if self.growth_is_own:
            return None
        stated = getattr(self.model, "size_bytes", None)
        return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else None


class LoadJob:
    """One load under way; the pool owns it, callers only wait for its end.

    Attributes:
        account: under which its bytes are booked.
        built_on: the models it depends on; they stay until it has ended.
        on_exit: called when the process of an isolated model ends after it was loaded.
        exited: how it ended, if it has.
        reading: of the memory when it began.
        is_to_be_alone: others wait for its end, so that its size can be measured.
        settled_bytes: what was booked for the models in this process's memory when it began.
    """

    __slots__ = (
        "_running",
        "_tools",
        "account",
        "built_on",
        "exited",
        "is_demand",
        "is_to_be_alone",
        "on_exit",
        "reading",
        "settled_bytes",
        "spec",
        "task",
        "timeout_s",
    )

    def __init__(
        self,
        spec: ModelSpec,
        tools: Tools,
        *,
        is_demand: bool,
        account: str,
        built_on: tuple[Resident, ...],
        timeout_s: float | None,
        settled_bytes: int = 0,
        is_to_be_alone: bool = False,
    ) -> None:
        """Prepare the load of ``spec`` in a demand or a background slot."""
        self.spec = spec
        self.is_demand = is_demand
        self.account = account
        self.built_on = built_on
        self.timeout_s = timeout_s
        self.task: asyncio.Task[None] | None = None
        self.exited: ModelExit | None = None
        self.reading: Reading | None = None
        self.settled_bytes = settled_bytes
        self.is_to_be_alone = is_to_be_alone
        self.on_exit: Callable[[ModelExit], None] = lambda _exit: None
        self._tools = tools
        self._running: Callable[..., Any] | None = None
        for base in built_on:
            base.supports.add(self)

    def let_go_of_bases(self) -> None:
        """Say that the load has ended: what it depends on may go, as far as the load is concerned."""
        withdraw(self, self.built_on)

    @property
    def is_cancellable(self) -> bool:
        """Whether a coroutine or a process runs, which can be stopped; a thread cannot."""
        return self._running is not None and (self.spec.isolation == "process" or is_async(self._running))

    async def bring_up(self, on_warming: Callable[[], None]) -> Loaded:
        """Load and warm up the model.

        Cancellation: a coroutine is cancelled, a process ended. A thread is left behind; the model that it still
        returns, or warms up, is put away when it ends.

        Raises:
            LoadTimeout: it took longer than ``timeout_s``.
            BaseException: whatever the loader or the warm-up raised; in the second case the model was put away.
        """
        started_s = self._tools.clock.monotonic()
        reading = self.reading = self._tools.meter.begin()
        growth_bytes = None
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                loaded = Loaded(await self._load())
                if self.spec.warm_up is not None:
                    on_warming()
                    await self._warm_up(self.spec.warm_up, loaded)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            message = f"model {self.spec.name!r} was not loaded within {format_seconds(self.timeout_s or 0.0)}"
            raise LoadTimeout(message) from exc
        finally:
            growth_bytes = self._tools.meter.end(reading)
        loaded.growth_bytes = growth_bytes
        if self.spec.isolation == "process":
            loaded.growth_bytes, loaded.growth_is_own = await own_bytes(loaded.model), True
        loaded.seconds = self._tools.clock.monotonic() - started_s
        return loaded

    async def _load(self) -> Any:
        if self.spec.isolation == "process":
            self._running = self._tools.isolator.start
            try:
                return await self._tools.isolator.start(
                    self.spec, timeout_s=self.timeout_s, clock=self._tools.clock, on_exit=self._exited
                )
            finally:
                self._running = None
        assert callable(self.spec.load)  # the specification has checked it
        return await self._call(self.spec.load, put_away=self.spec.unload)

    def _exited(self, ended: ModelExit) -> None:
        self.exited = ended
        self.on_exit(ended)

    async def _warm_up(self, warm_up: Callable[[Any], Any], loaded: Loaded) -> None:
        put_away = None if self.spec.unload is None else functools.partial(_unload_late, self.spec.unload, loaded)
        try:
            await self._call(warm_up, loaded.model, put_away=put_away, is_always_put_away=True)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            if not isinstance(exc, asyncio.CancelledError):
                await self._tools.parting.part_with(self.spec, loaded)
            elif self.spec.isolation == "process":
                loaded.model.kill(reason="its warm-up was given up")
            elif is_async(warm_up):
                await self._tools.parting.part_with(self.spec, loaded)
            raise

    async def _call(self, function: Callable[..., Any], *args: Any, **put_away: Any) -> Any:
        self._running = function
        try:
            return await call(function, *args, name=self.spec.name, **put_away)
        finally:
            self._running = None


def _unload_late(unload: Callable[[Any], Any], loaded: Loaded, _result: object) -> Any:
    model, loaded.model = loaded.model, None
    return unload(model)
