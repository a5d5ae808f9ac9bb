"""service: one run of the pool on one event loop: who waits, what loads, what leaves.

Everything here belongs to the loop's thread. Each event (a caller, the end of a load or an unload, a returned
lease) ends in ``_dispatch``, which asks the decisions what may happen next. A new run begins with every start.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

from ondol.errors import AlreadyClosedError, LeaseTimeoutError, ModelNotLoadedError
from ondol.models.dispatch import Dispatcher
from ondol.models.graph import dependencies, load_order
from ondol.models.loads import Loads
from ondol.models.measuring import Measuring
from ondol.models.queue import Displacing
from ondol.models.refusals import check_expected, impossible, timed_out
from ondol.models.residents import Residents
from ondol.models.setbacks import Setbacks
from ondol.models.spec import ModelState
from ondol.models.status import LoadState
from ondol.models.waiting import Waiter, Waiters
from ondol.models.wants import Wants
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.entry import Entry, Resident
    from ondol.models.job import Tools
    from ondol.models.registry import Registry
    from ondol.models.spec import ModelSpec

__all__ = ["PoolRun"]

logger = logging.getLogger("ondol.models")

_COMING = frozenset({ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING, ModelState.READY, ModelState.BACKOFF})
_LAST_CALL_S = 1.0


class PoolRun:
    """The pool between one start and one stop."""

    def __init__(self, registry: Registry, tools: Tools, draw: Callable[[], float] | None) -> None:
        """Begin in the running loop; ``draw`` returns a random number from 0 to 1, by chance when not given."""
        self.loop = asyncio.get_running_loop()
        self.is_closing = False
        self._registry = registry
        self.spans = registry.spans
        self.relay = registry.spans.relay
        self._residents = Residents(registry, tools.parting, self)
        self.ready = self._residents.ready
        self._waiters = Waiters(self.give_back)
        self._wants = Wants(registry, self._waiters.count_demand)
        self._loads = Loads(registry, tools, self._residents, self._wants, self)
        self._setbacks = Setbacks(registry, self._wants, self._waiters, self._dispatch, draw)
        self._measuring = Measuring(registry, self._residents, self._loads, self._dispatch)
        self._dispatcher = Dispatcher(
            registry, self._residents, self._loads, self._wants, self._setbacks, self._measuring, self.make_way
        )
        self._is_waiting_for_leases = False
        registry.on_ended = self._dispatch

    # Callers

    def note_use(self, resident: Resident, *, is_found_ready: bool) -> None:
        """Count a lease: it makes the model worth more. One that was waited for was announced when it was asked for."""
        registry = self._registry
        registry.totals.leases += 1
        resident.use.note(registry.clock.monotonic())
        if is_found_ready and registry.listeners:
            registry.announce("leased", resident.spec.name)

    def give_back(self, resident: Resident) -> None:
        """Take a lease back."""
        resident.leases -= 1
        if not resident.leases:
            if resident.idle_timer is not None:
                resident.idle_since_s = self._registry.clock.monotonic()
            if resident.on_unused is not None and not resident.supports:
                resident.on_unused()
            if self._is_waiting_for_leases:
                self._dispatch()

    async def acquire(self, name: str) -> Resident:
        """Return the model with a lease counted, once it is ready."""
        if not self.relay.is_on:
            return await self._acquire(name)
        needed = dependencies(self._registry.graph, name)
        under_way = {each for each in (name, *needed) if each in self._loads.jobs or self._wants.covers(each)}
        with self.spans.wait(name, needed, under_way):
            return await self._acquire(name)

    async def _acquire(self, name: str) -> Resident:
        asked_at_s = self._registry.clock.monotonic()
        waiter = self._ask(name, is_demand=True, is_lease=True)
        timeout_s = self._registry.options.lease_timeout_s
        resident = await self._wait(waiter, timeout_s, functools.partial(timed_out, self._registry, name, timeout_s))
        waited_s = self._registry.clock.monotonic() - asked_at_s
        self._registry.record("models.lease_wait", waited_s, "seconds", model=name)
        return resident

    async def load(self, name: str, *, is_background: bool, displacing: Displacing) -> None:
        """Return once the model is ready."""
        self._registry.entry(name)
        if name not in self.ready:
            waiter = self._ask(name, is_demand=not is_background, is_lease=False, displacing=displacing)
            await self._wait(waiter, None, TimeoutError)

    async def reload(self, name: str) -> None:
        """Return once a new copy serves; the old one goes when its leases are back."""
        self._setbacks.release(self._registry.entry(name))
        job = self._loads.jobs.get(name)
        is_anew = name in self.ready or job is not None
        if job is not None and job.task is not None:
            await asyncio.wait([job.task])  # it began before this was asked for: it may be of yesterday's weights
        self._registry.totals.reloads += is_anew
        waiter = self._ask(name, is_demand=True, is_lease=False, is_anew=is_anew)
        await self._wait(waiter, None, TimeoutError)

    async def unload(self, name: str) -> bool:
        """Wait for a load under way and for the leases, then unload; return whether there was something to unload."""
        self._registry.entry(name)
        self._check_open()
        job = self._loads.jobs.get(name)
        if job is not None and job.task is not None:
            await asyncio.wait([job.task])
        if name in self.ready and not self.is_closing:
            if self._waiters.has_demand(name):
                self._wants.no_longer_anew(name)  # a reload that has not begun: it is served once this one has gone
            else:
                self._wants.drop(name)
            for other in (*self._residents.all_dependents(name), name):
                if other in self.ready:  # a cascade may have taken it meanwhile
                    reason = "unloaded on request" if other == name else f"{name}, which it depends on, is unloaded"
                    self._residents.start_drain(other, reason)
            self._take_back_dependents(name)
            self._dispatch()
        drains = self._residents.drains_of(name)
        if drains:
            await asyncio.wait(drains)
            return True
        self._take_back(name)
        self._take_back_dependents(name)
        self._dispatch()
        return False

    def _take_back(self, name: str) -> None:
        """Want a model no more that no request waits for."""
        if name in self._wants and not self._waiters.has_demand(name):
            self._wants.drop(name)
            self._setbacks.forget(name)
            taken_back = f"the background load of model {name!r} was taken back by an unload"
            self._waiters.fail(name, functools.partial(ModelNotLoadedError, taken_back))

    def _take_back_dependents(self, name: str) -> None:
        """Want nothing more that would bring ``name`` back although no request waits for it."""
        for other in load_order(self._registry.needed_by, [name]):
            if other != name and other in self._registry.entries:
                self._take_back(other)

    async def _wait(
        self, waiter: Waiter, timeout_s: float | None, make_timeout: Callable[[], BaseException]
    ) -> Resident:
        try:
            return await self._waiters.wait(waiter, timeout_s, make_timeout)
        except (asyncio.CancelledError, LeaseTimeoutError):
            if waiter.is_demand and not self._waiters.has_demand(waiter.name):
                self._dispatch()  # the load is less urgent now: others may go first
            raise

    def release(self, name: str) -> bool:
        """End a backoff or a quarantine."""
        return self._setbacks.release(self._registry.entry(name))

    def _check_open(self) -> None:
        if self.is_closing:
            raise AlreadyClosedError("the model pool is stopping: it takes no new requests")

    def _ask(
        self,
        name: str,
        *,
        is_demand: bool,
        is_lease: bool,
        is_anew: bool = False,
        displacing: Displacing = Displacing(),  # noqa: B008  # immutable
    ) -> Waiter:
        self._check_open()
        entry = self._registry.entry(name)
        if error := impossible(self._registry, name):
            raise error
        options = self._registry.options
        is_coming = entry.state in _COMING or self._wants.covers(name)
        if is_lease and not options.is_lazy_loading_enabled and not is_coming:
            check_expected(self._registry, entry)
        waiter = Waiter(name, is_lease=is_lease, is_demand=is_demand)
        is_news = is_anew or name not in self._wants or (is_demand and not self._waiters.has_demand(name))
        is_news = is_news or not self._wants.may_displace(name, displacing)
        self._waiters.add(waiter)
        self._wants.ask(name, self._registry.clock.monotonic(), is_anew=is_anew, displacing=displacing)
        try:
            if is_lease:
                self._registry.announce("asked", name)
            if is_news:  # else a crowd asks for the same model, and nothing has changed
                self._dispatch()
        except BaseException:
            self._waiters.remove(waiter)  # nobody awaits it: it must not be handed a lease
            raise
        return waiter

    def load_state(self) -> LoadState:
        """Return what it is busy with. Cost: small; the models that requests wait for are copied."""
        jobs = dict(self._loads.jobs)
        demand_loads = sum(job.is_demand for job in jobs.values())
        return LoadState(
            self._registry.ledger.free_bytes,
            is_demand_waiting=any(name not in jobs for name in self._waiters.demanded()),
            demand_loads=demand_loads,
            background_loads=len(jobs) - demand_loads,
        )

    # What happens next

    def registered(self, spec: ModelSpec, is_new: bool) -> None:  # called through the loop
        """Take note of a specification that is new, or take it in place of another."""
        name = spec.name
        if not is_new:
            self._registry.adopt(spec)
        self._registry.review(name)
        affected = load_order(self._registry.needed_by, [name])
        self._setbacks.reviewed(affected)
        if self.is_closing:
            return
        for other in reversed(affected):
            if error := impossible(self._registry, other):
                self._setbacks.give_up(other, error)
        if name in self.ready:
            self._residents.watch_idle(self.ready[name])
        for other in affected:
            if (held := self.ready.get(other)) is not None and held.spec is not self._registry.entry(other).spec:
                self._renew(other, "ready; another specification was registered and loads beside it")
        self._dispatch()

    def _renew(self, name: str, reason: str) -> None:
        """Load a ready model anew beside itself, in the background; when it cannot be loaded it serves on as it is."""
        if impossible(self._registry, name) is not None:
            return
        self._registry.totals.reloads += 1
        self._wants.ask(name, self._registry.clock.monotonic(), is_anew=True)
        self._registry.move(self._registry.entry(name), ModelState.READY, reason)

    def reconsider(self, *limit_bytes: int | None) -> None:
        """Take note of changed options, and of another limit if one is given."""
        is_limit_changed = bool(limit_bytes) and self._registry.change_limit(*limit_bytes)
        for resident in list(self.ready.values()):
            self._residents.watch_idle(resident)
        self._dispatch()
        if is_limit_changed:
            self._registry.announce("limit", "")

    def no_longer_promised(self, name: str) -> None:
        """Take note that a model may leave sooner than was promised."""
        if (resident := self.ready.get(name)) is not None:
            self._residents.watch_idle(resident)
            self._dispatch()

    def may_leave(self, name: str) -> bool:
        """Tell whether a model could leave at once."""
        return self._residents.may_leave(name)

    def _dispatch(self) -> None:
        if not self.is_closing and not self.loop.is_closed():
            self._is_waiting_for_leases = self._dispatcher.take_turn()

    # What loads and unloads report

    def became_ready(self, entry: Entry, resident: Resident) -> None:
        """Hand the model over to those who wait for it; a copy that served so far goes."""
        name = resident.spec.name
        old = self.ready.get(name)
        entry.resident = self.ready[name] = resident
        entry.use.weight = max(entry.use.weight, 1.0)  # it was wanted: it is not worthless before its first lease
        self._wants.drop(name)
        self._waiters.hand_over(name, resident)
        if old is not None:
            self._replaced(old)
        self._residents.watch_idle(resident)
        self._registry.review(name)
        self._registry.announce("ready", name)

    def _replaced(self, old: Resident) -> None:
        name = old.spec.name
        for user in list(old.supports):
            if self.ready.get(user.spec.name) is user:
                self._renew(user.spec.name, f"ready; {name}, which it was built on, was loaded anew, so it is too")
        self._residents.retire(old, "a new copy has taken its place")

    def failed(self, entry: Entry, error: BaseException, *, cause: BaseException | None = None) -> None:
        """Keep the error; try again, or end all waits for the model and for what depends on it."""
        self._setbacks.load_failed(entry, error, cause=cause, is_serving=entry.spec.name in self.ready)

    def crashed(self, resident: Resident, error: BaseException) -> None:
        """Let go of a model whose process ended, and load it again."""
        name = resident.spec.name
        if self.ready.get(name) is not resident:
            return  # it leaves anyway
        entry = self._registry.entry(name)
        gone = [other for other in self._residents.crash_out(name) if impossible(self._registry, other) is None]
        if self.is_closing:
            self._registry.move(entry, ModelState.DRAINING, "its process ended while the pool stops")
            self._registry.move(entry, ModelState.UNLOADED, "its process ended while the pool stops")
        else:
            self._setbacks.crashed(entry, error, gone, can_be_loaded=impossible(self._registry, name) is None)
        self._residents.announce_leaving()
        self._registry.announce("crashed", name)
        self._dispatch()

    def make_way(self, name: str) -> None:
        """Let the copy that serves go before the new one comes; it, and what was built on it, is loaded again."""
        self._wants.no_longer_anew(name)
        now_s = self._registry.clock.monotonic()
        for gone in self._residents.let_go(name, "there is no room for two copies: the old one goes first"):
            if impossible(self._registry, gone) is None:
                self._wants.ask(gone, now_s)

    def ended(self) -> None:
        """See what may happen now: in this run, or in the one after it when it is over."""
        if not self.loop.is_closed():
            self._registry.on_ended()

    def torn_down(self) -> None:
        """Begin nothing more: a task was cancelled from outside."""
        self.is_closing = True
        self._fail_all_waiters()

    # The end

    async def close(self, grace_s: float) -> None:
        """End all waits, cancel or await loads, wait for leases, unload everything; at most about ``grace_s``."""
        self.is_closing = True
        self._fail_all_waiters()
        self._setbacks.close()
        self._measuring.close()
        for job in self._loads.jobs.values():
            if job.task is not None and job.is_cancellable:
                job.task.cancel()
        for name in list(self.ready):
            if name in self.ready:  # a cascade may have taken it meanwhile
                self._residents.start_drain(name, "the pool stops")
        await self._await_end(grace_s)
        self._loads.close()
        for entry in self._registry.snapshot():
            if entry.state is ModelState.QUEUED:
                self._registry.move(entry, entry.idle_state, "the pool stopped before its turn came")

    async def _await_end(self, grace_s: float) -> None:
        tasks = [job.task for job in self._loads.jobs.values() if job.task is not None]
        tasks += self._residents.drains.values()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            logger.warning("%s did not end within %s and is given up", task.get_name(), format_seconds(grace_s))
            task.cancel()
        if late:
            _, stuck = await asyncio.wait(late, timeout=_LAST_CALL_S)
            for task in stuck:
                logger.error("%s ignores being cancelled and is left behind", task.get_name())

    def _fail_all_waiters(self) -> None:
        self._wants.clear()
        for name in self._waiters.names():
            self._waiters.fail(
                name, lambda: AlreadyClosedError("the model pool stopped while the model was waited for")
            )
