"""service: the model pool: leases, shared loads, eviction within a byte budget."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ondol.clock import Clock, SystemClock
from ondol.errors import AlreadyClosedError, LifecycleError, NotStartedError
from ondol.models.controls import PoolControls
from ondol.models.estimate_keeper import EstimateKeeper
from ondol.models.isolated import Isolator, check_loader
from ondol.models.job import Tools
from ondol.models.lease import Lease
from ondol.models.ledger import Ledger
from ondol.models.loops import in_loop
from ondol.models.meter import MemoryMeter
from ondol.models.options import Options, check_bound
from ondol.models.parting import Parting
from ondol.models.queue import Displacing
from ondol.models.registry import Registry
from ondol.models.retry import RetryPolicy
from ondol.models.run import PoolRun
from ondol.models.spec import ModelSpec  # noqa: TC001  # the example of ModelPool uses it
from ondol.recorder import Recorder, discard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from ondol.models.entry import Resident
    from ondol.models.ports import EstimateStore, MemoryProbe
    from ondol.tracing import SpanRelay

__all__ = ["ModelPool"]

logger = logging.getLogger("ondol.models")


class ModelPool(PoolControls):
    """Keeps models in memory, within a budget, and never takes one from under its user.

    Thread-safety: ``register``, ``configure``, ``set_expected``, ``set_advisor``, ``add_listener``, ``promise``,
    pinning and everything that only reads, but for ``may_leave``, may be called from any thread, with or without a
    running loop. The rest belongs to the loop that ``start`` ran in.

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
        load_timeout_s: float | None = None,
        idle_ttl_s: float | None = None,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008  # frozen
        random: Callable[[], float] | None = None,
        estimates: EstimateStore | None = None,
        prepare_memory: Callable[[], object] | None = None,
        release_memory: Callable[[], object] | None = None,
        spans: SpanRelay | None = None,
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
            load_timeout_s: longest load of a model that does not say so itself; ``None`` is no limit.
            idle_ttl_s: how long a model that does not say so itself stays without use; ``None`` is for ever.
            retry: when a load that failed is tried again; ``None``: only by the next request.
            random: returns numbers from 0 to 1, for the jitter of retries; ``random.random`` when not given.
            estimates: where learnt sizes and load times outlive the process.
            prepare_memory: called once, before the first load.
            release_memory: hands free memory back to the system after an unload; called in a thread.
            spans: where the waits for leases and loads are told, when it is connected.

        Raises:
            ConfigurationError: a bound is not positive.
        """
        check_bound("memory_limit_bytes", memory_limit_bytes)
        options = Options(
            max_background_loads,
            max_demand_loads,
            is_lazy_loading_enabled,
            lease_timeout_s,
            load_timeout_s,
            idle_ttl_s,
            retry,
        )
        super().__init__(Registry(clock or SystemClock(), recorder, Ledger(memory_limit_bytes), options, spans))
        self._stop_grace_s = stop_grace_s
        self._meter = MemoryMeter(memory_probe)
        self._isolator = Isolator()
        parting = Parting(self._meter, release_memory)
        self._tools = Tools(self._registry.clock, self._meter, parting, self._isolator, prepare_memory)
        self._random = random
        self._memory = EstimateKeeper(self._registry, estimates)
        self._stopping: asyncio.Task[None] | None = None

    def register(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """Make a model known; before or after the start, from any thread.

        When it replaces one that is loaded, the new one loads beside it, takes its place, and the old one goes once
        its leases are back. Should the new one fail to load, the old one serves on.

        Raises:
            ConfigurationError: the name is taken and ``replace`` is false, or another process could not find the loader
                of an isolated model.
            DependencyCycleError: the model closes a circle of dependencies; the message gives the path.
        """
        check_loader(spec)
        with self._registry.lock:
            is_new = self._registry.register(spec, replace=replace)
            run = self._run
            if run is None or run.loop.is_closed():
                if not is_new:
                    self._registry.adopt(spec)
                self._registry.review(spec.name)
                run = None
        if run is not None:
            in_loop(run.loop, run.registered, spec, is_new)
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
        self._memory.start()
        with self._registry.lock:
            self._meter.reset()
            self._registry.forgive_all()
            self._run = PoolRun(self._registry, self._tools, self._random)
        await self._tools.parting.part_with_all(left_behind)

    def _take_from_lost_loop(self) -> list[Resident]:
        """Return what was loaded in a loop that was closed without ``stop``, and make all models idle."""
        self._stopping = None
        logger.warning("the model pool's event loop was closed without stopping the pool; its models are unloaded now")
        return self._registry.abandon("unloaded: the event loop it was loaded in was closed")

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
            await self._tools.parting.part_with_all(left_behind)
            return
        if run is None or run.loop is not asyncio.get_running_loop():
            return
        if self._stopping is None:
            run.is_closing = True  # from this moment on, not only from the task's first step
            closing = self._close(run, self._stop_grace_s if grace_s is None else grace_s)
            self._stopping = run.loop.create_task(closing, name="ondol-models-stop")
        await asyncio.shield(self._stopping)

    async def _close(self, run: PoolRun, grace_s: float) -> None:
        is_over = True
        try:
            await run.close(grace_s)
            await self._memory.stop()
            await self._isolator.close()
        except asyncio.CancelledError:
            is_over = False  # the loop ends: the next start or stop sees to what is left in memory
            raise
        finally:
            with self._registry.lock:
                self._run, self._stopping = None if is_over else run, None

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
            ModelLoadError: the load failed for good, or waits for a dependency nobody has registered. A load that may
                succeed later is tried again, and this call waits for it.
            ModelQuarantinedError: it failed several times in a row.
            ModelBudgetError: the model is larger than the budget.
            ModelNotLoadedError: loading on first use is switched off.
            LeaseTimeoutError: it took longer than ``lease_timeout_s``.
        """
        return Lease(self._running(), name)

    async def load(
        self,
        name: str,
        *,
        is_background: bool = False,
        displacing: Collection[str] = (),
        is_only_displacing: bool = False,
    ) -> None:
        """Return when the model is ready.

        A background load comes after every demand, displaces only idle models of lower priority and those it is told
        of, none that was promised to stay, and gives up with ``ModelBudgetError`` when there is no room for it.

        Args:
            name: of the model.
            is_background: nobody waits for it yet.
            displacing: models that a background load, and what it depends on, may displace whatever their priority,
                because somebody has compared what they are worth. They go only if they are idle and in the way then.
            is_only_displacing: no others may go for it, whatever their priority; unless another caller who waits for
                the same model, or for one that depends on it, may displace more.

        Cancellation: cancels nothing, the load goes on. There is no time limit; put ``asyncio.timeout`` around it.

        Raises:
            OndolError: as ``lease`` does, but for the time limit and for lazy loading, which do not apply.
        """
        reach = Displacing(frozenset(displacing), is_only_displacing)
        await self._running().load(name, is_background=is_background, displacing=reach)

    def may_leave(self, name: str) -> bool:
        """Tell whether the model could leave at once, by itself, for a background load. In the pool's loop.

        It is ready, neither leased, pinned nor promised to stay, nothing that is in memory or loads was built on it,
        and no new copy loads beside it. A model that is unknown or not ready may not. Cost: small.
        """
        run = self._run
        return run is not None and not run.loop.is_closed() and run.may_leave(name)

    async def unload(self, name: str) -> bool:
        """Unload a model once its leases are back; return whether there was anything to unload.

        Models that depend on it are unloaded before it. A load under way is waited for, its callers are served. A
        background load that waits for its turn is taken back. Pinned models are unloaded too: somebody asked for it.

        Cancellation: the unload goes on.

        Raises:
            UnknownModelError: no such model.
        """
        return await self._running().unload(name)

    async def reload(self, name: str) -> None:
        """Load the model anew beside the copy that serves, and return when the new one has taken its place.

        Nobody waits meanwhile: leases get the old copy, later ones the new one. The old copy goes once its leases are
        back; what was built on it is loaded anew, too. When there is no room for two copies the old one goes first.
        Should the new one fail to load, the old one serves on. A model that is not loaded is simply loaded; one in
        quarantine is released.

        Cancellation: the reload goes on.

        Raises:
            OndolError: as ``load`` does.
        """
        await self._running().reload(name)

    def release(self, name: str) -> bool:
        """Let a model that backs off or is quarantined be loaded again; return whether it was. In the pool's loop.

        Raises:
            UnknownModelError: no such model.
            NotStartedError, AlreadyClosedError: the pool does not run; a start releases all models anyway.
        """
        return self._running().release(name)
