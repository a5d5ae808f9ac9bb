"""service: one load, from the call of the loader to a warm and measured model."""

from __future__ import annotations

import asyncio
import functools
import logging
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
    from ondol.models.isolation import IsolatedModel, ModelExit
    from ondol.models.meter import MemoryMeter, Reading
    from ondol.models.parting import Parting
    from ondol.models.spec import ModelSpec

__all__ = ["LoadJob", "LoadTimeout", "Loaded", "Tools"]

logger = logging.getLogger("ondol.models")


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
    """A model that is loaded and warm, and what its load took.

    Attributes:
        growth_is_own: nothing else is in the growth.
        stated_bytes: what the model says of its own size, if it does: an integer attribute ``size_bytes``.
    """

    __slots__ = ("growth_bytes", "growth_is_own", "model", "seconds", "stated_bytes")

    def __init__(self, model: Any) -> None:
        """Own ``model``."""
        self.model = model
        self.seconds = 0.0
        self.growth_bytes: int | None = None
        self.growth_is_own = False
        self.stated_bytes: int | None = None


class LoadJob:
    """One load under way; the pool owns it, callers only wait for its end.

    Attributes:
        account: under which its bytes are booked.
        built_on: the models it depends on; they stay until it has ended.
        on_exit: called when the process of an isolated model ends after it was loaded.
        error: the class of what it failed with; empty until then.
        exited: how it ended, if it has.
        reading: of the memory when it began.
        is_to_be_alone: others wait for its end, so that its size can be measured.
        leftover: set when a thread of the load or of the warm-up is left behind; completes, in the loop, once that
            thread has ended and what it returned was put away. Until then its memory is in use. When the loop is
            closed by then, no callback runs, but ``leftover.done()`` tells.
        settled_bytes: what was booked for the models in this process's memory when it began.
    """

    __slots__ = (
        "_running",
        "_tools",
        "account",
        "built_on",
        "error",
        "exited",
        "is_demand",
        "is_to_be_alone",
        "leftover",
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
        self.error = ""
        self.exited: ModelExit | None = None
        self.leftover: asyncio.Future[None] | None = None
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
        """Load, warm up and measure the model.

        Cancellation: a coroutine is cancelled, a process ended. A thread is left behind (see ``leftover``); the model
        that it still returns, or warms up, is put away when it ends.

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
                await self._make_ready(loaded, on_warming)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            message = f"model {self.spec.name!r} was not loaded within {format_seconds(self.timeout_s or 0.0)}"
            raise LoadTimeout(message) from exc
        finally:
            growth_bytes = self._tools.meter.end(reading)
        if self.spec.isolation == "thread":
            loaded.growth_bytes = growth_bytes
            loaded.stated_bytes = _stated_bytes(self.spec.name, loaded.model)
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

    async def _make_ready(self, loaded: Loaded, on_warming: Callable[[], None]) -> None:
        """Warm up the model; an isolated one is also measured, and ended whatever keeps it from becoming ready."""
        isolated = loaded.model if self.spec.isolation == "process" else None
        try:
            if self.spec.warm_up is not None:
                on_warming()
                await self._warm_up(self.spec.warm_up, loaded)
            if isolated is not None:
                loaded.growth_bytes, loaded.growth_is_own = await self._measured(isolated), True
        except BaseException:
            if isolated is not None:
                isolated.kill(reason="its load was given up")
            raise

    async def _measured(self, model: IsolatedModel) -> int | None:
        self._running = own_bytes
        try:
            return await own_bytes(model)
        finally:
            self._running = None

    async def _warm_up(self, warm_up: Callable[[Any], Any], loaded: Loaded) -> None:
        unload = None if self.spec.isolation == "process" else self.spec.unload
        put_away = None if unload is None else functools.partial(_unload_late, unload, loaded)
        try:
            await self._call(warm_up, loaded.model, put_away=put_away, is_always_put_away=True)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            if not isinstance(exc, asyncio.CancelledError) or (self.spec.isolation == "thread" and is_async(warm_up)):
                await self._tools.parting.part_with(self.spec, loaded)
            raise

    async def _call(self, function: Callable[..., Any], *args: Any, **put_away: Any) -> Any:
        self._running = function
        try:
            return await call(function, *args, name=self.spec.name, on_left_behind=self._left_behind, **put_away)
        finally:
            self._running = None

    def _left_behind(self, over: asyncio.Future[None]) -> None:
        self.leftover = over


def _stated_bytes(name: str, model: Any) -> int | None:
    try:
        stated = getattr(model, "size_bytes", None)
    except Exception:  # a size that nobody needs to know must not undo the load
        logger.warning("model %s cannot tell its size_bytes", name, exc_info=True, extra={"fields": {"model": name}})
        return None
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else None


def _unload_late(unload: Callable[[Any], Any], loaded: Loaded, _result: object) -> Any:
    model, loaded.model = loaded.model, None
    return unload(model)
