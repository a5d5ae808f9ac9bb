"""service: the model pool: leases, shared loads, eviction within a byte budget."""

from __future__ import annotations

import asyncio
import logging
import math
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from ondol.clock import Clock, SystemClock
from ondol.errors import AlreadyClosedError, ConfigurationError, LifecycleError, NotStartedError
from ondol.models.job import put_away
from ondol.models.lease import Lease
from ondol.models.ledger import Ledger
from ondol.models.meter import MemoryMeter
from ondol.models.registry import Options, Registry
from ondol.models.run import PoolRun
from ondol.models.spec import ModelSpec, ModelState, ModelStatus
from ondol.recorder import Recorder, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from ondol.models.entry import Resident
    from ondol.models.ports import Listener, MemoryProbe

__all__ = ["ModelPool"]

logger = logging.getLogger("ondol.models")


class ModelPool:
    """Keeps models in memory, within a budget, and never takes one from under its user.

    Thread-safety: ``register``, ``configure``, ``set_expected``, ``add_listener`` and everything that only reads may
    be called from any thread, with or without a running loop. The rest belongs to the loop that ``start`` ran in.

    >>> import asyncio
    >>> async def example():
    ...     pool = ModelPool()
    ...     pool.register(ModelSpec("greeter", load=lambda: "hello"))
    ...     async with pool, pool.lease("greeter") as model:
    ...         return model
    >>> asyncio.run(example())
    'hello'
    """

    def __init__(
        self,
        *,
        memory_limit_bytes: int | None = None,
        max_background_loads: int = 1,
        max_demand_loads: int = 4,
        is_lazy_loading_enabled: bool = True,
        lease_timeout_s: float = 120.0,
        stop_grace_s: float = 10.0,
        clock: Clock | None = None,
        recorder: Recorder = discard,
        memory_probe: MemoryProbe | None = None,
    ) -> None:
        """Make a pool; it starts nothing.

        Args:
            memory_limit_bytes: bound of all models together; ``None`` is none.
            max_background_loads: preloads at once.
            max_demand_loads: loads for requests at once, beside the preloads.
            is_lazy_loading_enabled: whether a lease may load a model.
            lease_timeout_s: longest wait of a lease.
            stop_grace_s: how long ``stop`` waits for leases, loads in threads and unloads.
            clock: where time is read.
            recorder: where measurements go.
            memory_probe: returns the process's resident bytes; a model's size is then measured as their growth by a
                load that ran alone. Without it the expected sizes count.

        Raises:
            ConfigurationError: a bound is not positive.
        """
        _check_bound("memory_limit_bytes", memory_limit_bytes)
        _check_bound("max_background_loads", max_background_loads)
        _check_bound("max_demand_loads", max_demand_loads)
        _check_bound("lease_timeout_s", lease_timeout_s)
        options = Options(max_background_loads, max_demand_loads, is_lazy_loading_enabled, lease_timeout_s)
        self._registry = Registry(clock or SystemClock(), recorder, Ledger(memory_limit_bytes), options)
        self._stop_grace_s = stop_grace_s
        self._meter = MemoryMeter(memory_probe)
        self._run: PoolRun | None = None
        self._stopping: asyncio.Task[None] | None = None

    def register(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """Make a model known; before or after the start, from any thread.

        A model that is replaced while it is loaded is unloaded as soon as it is not leased any more; the next
        request loads the new one.

        Raises:
            ConfigurationError: the name is taken and ``replace`` is false.
            DependencyCycleError: the model closes a circle of dependencies; the message gives the path.
        """
        with self._registry.lock:
            self._registry.register(spec, replace=replace)
            run = self._run
            if run is None or run.loop.is_closed():
                self._registry.review(spec.name)
                run = None
        if run is not None:
            _in_loop(run.loop, run.registered, spec.name)
        self._registry.announce("registered", spec.name)

    async def start(self) -> None:
        """Begin to take requests; does nothing when it runs already in this loop.

        Raises:
            LifecycleError: it runs in another event loop.
        """
        loop = asyncio.get_running_loop()
        while (run := self._run) is not None and run.loop is loop:
            if self._stopping is None and not run.is_closing:
                return
            await self.stop()
        if run is not None and not run.loop.is_closed():
            raise LifecycleError("the model pool runs in another event loop: stop it there first")
        left_behind = self._take_from_lost_loop() if run is not None else []
        with self._registry.lock:
            self._meter.reset()
            self._run = PoolRun(self._registry, self._meter)
        await self._put_away_all(left_behind)

    async def _put_away_all(self, residents: list[Resident]) -> None:
        for resident in residents:
            await put_away(resident.spec, resident.model, self._meter)

    def _take_from_lost_loop(self) -> list[Resident]:
        """Return what was loaded in a loop that was closed without ``stop``, and make all models idle."""
        self._stopping = None
        logger.warning("the model pool's event loop was closed without stopping the pool; its models are unloaded now")
        left_behind = []
        for entry in self._registry.snapshot():
            self._registry.ledger.release(entry.spec.name)
            if entry.resident is not None:
                left_behind.append(entry.resident)
            entry.reset("unloaded: the event loop it was loaded in was closed", self._registry.clock.monotonic())
        return left_behind

    async def stop(self, *, grace_s: float | None = None) -> None:
        """Refuse new leases, wait for those taken, unload everything. Safe to call twice; ``start`` begins anew.

        Callers that wait for a model get ``AlreadyClosedError``. Loads that are coroutines are cancelled; those in
        threads are waited for. After the grace whatever is still leased or loading is let go of without its
        ``unload`` (logged); a thread that hangs is left behind, it does not keep the process from ending.

        Args:
            grace_s: how long to wait; by default what the pool was made with.

        Cancellation: the stop goes on by itself.
        """
        run = self._run
        if run is not None and run.loop.is_closed():
            left_behind = self._take_from_lost_loop()
            self._run = None
            await self._put_away_all(left_behind)
            return
        if run is None or run.loop is not asyncio.get_running_loop():
            return
        if self._stopping is None:
            run.is_closing = True  # from this moment on, not only from the task's first step
            closing = self._close(run, self._stop_grace_s if grace_s is None else grace_s)
            self._stopping = run.loop.create_task(closing, name="ondol-models-stop")
        await asyncio.shield(self._stopping)

    async def _close(self, run: PoolRun, grace_s: float) -> None:
        try:
            await run.close(grace_s)
        finally:
            with self._registry.lock:
                self._run = self._stopping = None

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop it."""
        await self.stop()

    def _running(self) -> PoolRun:
        run = self._run
        if run is None or run.loop.is_closed():
            raise NotStartedError("the model pool is not running: await pool.start() first")
        if run.is_closing:
            raise AlreadyClosedError("the model pool is stopping: it takes no new requests")
        return run

    def lease(self, name: str) -> AbstractAsyncContextManager[Any]:
        """Return the hold on a model: ``async with pool.lease(name) as model``.

        The first caller of a model that is not loaded starts its load, all wait for the same one. It stays loaded
        until the last block ends.

        Cancellation: a caller that leaves cancels nothing; a load it waited for goes on.

        Raises:
            NotStartedError: the pool does not run.
            AlreadyClosedError: it is stopping. This and the following are raised when the block is entered:
            UnknownModelError: no such model.
            ModelLoadError: the load failed, or waits for a dependency nobody has registered. The next call tries anew.
            ModelBudgetError: the model is larger than the budget.
            ModelNotLoadedError: loading on first use is switched off.
            LeaseTimeoutError: it took longer than ``lease_timeout_s``.
        """
        return Lease(self._running(), name)

    async def load(self, name: str, *, is_background: bool = False) -> None:
        """Return when the model is ready.

        A background load comes after every demand, displaces only idle models of lower priority, and gives up with
        ``ModelBudgetError`` when there is no room for it.

        Cancellation: cancels nothing, the load goes on. There is no time limit; put ``asyncio.timeout`` around it.

        Raises:
            OndolError: as ``lease`` does, but for the time limit and for lazy loading, which do not apply.
        """
        await self._running().load(name, is_background=is_background)

    async def unload(self, name: str) -> bool:
        """Unload a model once its leases are back; return whether there was anything to unload.

        Models that depend on it are unloaded before it. A load under way is waited for, its callers are served. A
        background load that waits for its turn is taken back. Pinned models are unloaded too: somebody asked for it.

        Cancellation: the unload goes on.

        Raises:
            UnknownModelError: no such model.
        """
        return await self._running().unload(name)

    def status(self, name: str) -> ModelStatus:
        """Return what can be seen of one model.

        Raises:
            UnknownModelError: no such model.
        """
        return self._registry.status(self._registry.entry(name))

    def statuses(self) -> list[ModelStatus]:
        """Return what can be seen of every model, in the order of registration."""
        return [self._registry.status(entry) for entry in self._registry.snapshot()]

    def names(self) -> list[str]:
        """Return the names in the order of registration."""
        return self._registry.names()

    def configure(
        self,
        *,
        memory_limit_bytes: int | EllipsisType | None = ...,
        max_background_loads: int | None = None,
        max_demand_loads: int | None = None,
        is_lazy_loading_enabled: bool | None = None,
        lease_timeout_s: float | None = None,
    ) -> None:
        """Change what is given; a lowered limit lets idle models go at once.

        Raises:
            ConfigurationError: a bound is not positive; nothing was changed.
        """
        given = {
            "max_background_loads": max_background_loads,
            "max_demand_loads": max_demand_loads,
            "lease_timeout_s": lease_timeout_s,
        }
        for name, value in given.items():
            _check_bound(name, value)
        if not isinstance(memory_limit_bytes, EllipsisType):
            _check_bound("memory_limit_bytes", memory_limit_bytes)
            self._registry.ledger.limit_bytes = memory_limit_bytes
        for name, value in (given | {"is_lazy_loading_enabled": is_lazy_loading_enabled}).items():
            if value is not None:
                setattr(self._registry.options, name, value)
        run = self._run
        if run is not None and not run.loop.is_closed():
            _in_loop(run.loop, run.reconsider)

    def set_expected(self, names: Collection[str]) -> None:
        """Name the models that somebody is going to load ahead of use.

        With lazy loading off a lease on one of them waits for its load instead of being refused (and hurries it).
        """
        self._registry.expected = frozenset(names)

    def add_listener(self, callback: Listener) -> None:
        """Have ``callback(event, name)`` called on ``registered``, ``leased``, ``ready``, ``failed``, ``unloaded``."""
        self._registry.listeners = (*self._registry.listeners, callback)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of the pool and of each model as plain data."""
        totals = self._registry.totals
        ledger = self._registry.ledger
        statuses = self.statuses()
        states = [status.state for status in statuses]
        return {
            "models": [status.as_dict() for status in statuses],
            "ready": states.count(ModelState.READY),
            "loading": states.count(ModelState.LOADING) + states.count(ModelState.WARMING),
            "queued": states.count(ModelState.QUEUED),
            "used_bytes": ledger.used_bytes,
            "limit_bytes": ledger.limit_bytes,
            "loads": totals.loads,
            "load_failures": totals.load_failures,
            "unload_failures": totals.unload_failures,
            "listener_failures": totals.listener_failures,
            "evictions": totals.evictions,
            "leases": totals.leases,
            "lease_timeouts": totals.lease_timeouts,
            "load_seconds_total": totals.load_seconds,
        }


def _check_bound(name: str, value: float | None) -> None:
    if value is not None and (isinstance(value, bool) or not math.isfinite(value) or value <= 0):
        message = f"{name} must be a number greater than 0, not {value!r}"
        raise ConfigurationError(message)


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call in the loop's thread: at once when this is it."""
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        function(*args)
    else:
        loop.call_soon_threadsafe(function, *args)
