"""service: one run of the pool on one event loop: who waits, what loads, what leaves.

Everything here belongs to the loop's thread. Each event (a caller, the end of a load or an unload, a returned
lease) ends in ``_dispatch``, which asks the decisions what may happen next. A new run begins with every start.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

from ondol.errors import (
    AlreadyClosedError,
    LeaseTimeoutError,
    ModelBudgetError,
    ModelError,
    ModelLoadError,
    ModelNotLoadedError,
)
from ondol.models.admission import Turn, Verdict, too_large
from ondol.models.graph import Urgency, dependencies, inherit, load_order, missing
from ondol.models.ledger import choose_victims
from ondol.models.loads import Loads
from ondol.models.queue import Slots, Want, ordered
from ondol.models.residents import Residents
from ondol.models.spec import ModelState
from ondol.models.waiting import Waiter, Waiters
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ondol.models.entry import Entry, Resident
    from ondol.models.meter import MemoryMeter
    from ondol.models.registry import Registry

__all__ = ["PoolRun"]

logger = logging.getLogger("ondol.models")

_COMING = frozenset({ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING, ModelState.READY})
_LAST_CALL_S = 1.0


class PoolRun:
    """The pool between one start and one stop."""

    def __init__(self, registry: Registry, meter: MemoryMeter) -> None:
        """Begin in the running loop."""
        self.loop = asyncio.get_running_loop()
        self.is_closing = False
        self._registry = registry
        self._residents = Residents(registry, meter, self)
        self._loads = Loads(registry, meter, self._residents, self)
        self.ready = self._residents.ready
        self._waiters = Waiters(self.give_back)
        self._asked: dict[str, None] = {}
        self._queued: set[str] = set()
        self._is_waiting_for_leases = False

    # Callers

    def note_use(self, resident: Resident) -> None:
        """Count a lease: it makes the model the most recently used."""
        totals = self._registry.totals
        totals.leases += 1
        resident.used_order = totals.leases
        if self._registry.listeners:
            self._registry.announce("leased", resident.spec.name)

    def give_back(self, resident: Resident) -> None:
        """Take a lease back."""
        resident.leases -= 1
        if not resident.leases:
            if resident.on_idle is not None:
                resident.on_idle()
            if self._is_waiting_for_leases:
                self._dispatch()

    async def acquire(self, name: str) -> Resident:
        """Return the model with a lease counted, once it is ready."""
        asked_at_s = self._registry.clock.monotonic()
        waiter = self._ask(name, is_demand=True, is_lease=True)
        timeout_s = self._registry.options.lease_timeout_s
        resident = await self._waiters.wait(waiter, timeout_s, functools.partial(self._timed_out, name, timeout_s))
        waited_s = self._registry.clock.monotonic() - asked_at_s
        self._registry.record("models.lease_wait", waited_s, "seconds", model=name)
        return resident

    async def load(self, name: str, *, is_background: bool) -> None:
        """Return once the model is ready."""
        self._registry.entry(name)
        if name not in self.ready:
            waiter = self._ask(name, is_demand=not is_background, is_lease=False)
            await self._waiters.wait(waiter, None, TimeoutError)

    async def unload(self, name: str) -> bool:
        """Wait for a load under way and for the leases, then unload; return whether there was something to unload."""
        self._registry.entry(name)
        self._check_open()
        job = self._loads.jobs.get(name)
        if job is not None and job.task is not None:
            await asyncio.wait([job.task])
        if name in self.ready and not self.is_closing:
            self._residents.start_drain(name, "unloaded on request")
        drain = self._residents.drains.get(name)
        if drain is not None:
            await asyncio.wait([drain])
            return True
        if name in self._asked and not self._waiters.has_demand(name):
            del self._asked[name]
            taken_back = f"the background load of model {name!r} was taken back by an unload"
            self._waiters.fail(name, functools.partial(ModelNotLoadedError, taken_back))
            self._dispatch()
        return False

    def _check_open(self) -> None:
        if self.is_closing:
            raise AlreadyClosedError("the model pool is stopping: it takes no new requests")

    def _ask(self, name: str, *, is_demand: bool, is_lease: bool) -> Waiter:
        self._check_open()
        entry = self._registry.entry(name)
        if error := self._missing_error(name):
            raise error
        options = self._registry.options
        if is_lease and not options.is_lazy_loading_enabled and entry.state not in _COMING:
            self._check_expected(entry)
        waiter = Waiter(name, is_lease=is_lease, is_demand=is_demand)
        self._waiters.add(waiter)
        self._asked[name] = None
        self._dispatch()
        return waiter

    def _check_expected(self, entry: Entry) -> None:
        name = entry.spec.name
        if name not in self._registry.expected:
            raise ModelNotLoadedError(
                f"model {name!r} is not loaded ({entry.state}: {entry.reason}) and loading on first use is switched "
                f"off (LAZY_LOADING_ENABLED); load it with pool.load({name!r})"
            )

    def _missing_error(self, name: str) -> ModelLoadError | None:
        absent = missing(self._registry.graph, name)
        if not absent:
            return None
        return ModelLoadError(
            f"model {name!r} cannot be loaded: it waits for {', '.join(absent)}, which nobody has registered"
        )

    def _timed_out(self, name: str, timeout_s: float) -> LeaseTimeoutError:
        self._registry.totals.lease_timeouts += 1
        entry = self._registry.entry(name)
        return LeaseTimeoutError(
            f"model {name!r} did not become available within {format_seconds(timeout_s)}: "
            f"it is {entry.state} ({entry.reason})"
        )

    # What happens next

    def registered(self, name: str) -> None:
        """Take note of a specification that is new, or that replaced another."""
        self._registry.review(name)
        if self.is_closing:
            return
        entry = self._registry.entry(name)
        resident = self.ready.get(name)
        if resident is not None and resident.spec is not entry.spec:
            self._residents.start_drain(name, "replaced by another specification")
        for other in load_order(self._registry.needed_by, [name]):
            error = self._missing_error(other) if other in self._asked else None
            if error is not None:
                self._give_up(other, error)
        self._dispatch()

    def reconsider(self) -> None:
        """Take note of changed options."""
        self._dispatch()

    def _dispatch(self) -> None:
        if self.is_closing:
            return
        self._shrink()
        self._refuse_too_large()
        wants = ordered(self._wants())
        self._mark_queued({want.name for want in wants})
        demand_jobs = sum(job.is_demand for job in self._loads.jobs.values())
        options = self._registry.options
        slots = Slots(
            demand=options.max_demand_loads - demand_jobs,
            background=options.max_background_loads - (len(self._loads.jobs) - demand_jobs),
        )
        turn = Turn(self._registry.ledger, slots, is_anything_moving=bool(self._loads.jobs or self._residents.drains))
        needed_ahead: set[str] = set()
        for want in wants:
            needed_ahead.update(dependencies(self._registry.graph, want.name))
            self._consider(want, turn, needed_ahead)
        self._is_waiting_for_leases = turn.is_waiting_for_leases or self._registry.ledger.excess_bytes > 0

    def _refuse_too_large(self) -> None:
        """Fail what can never fit before anything is loaded or evicted for it."""
        while (refusal := self._find_too_large()) is not None:
            self.failed(*refusal)

    def _find_too_large(self) -> tuple[Entry, ModelBudgetError] | None:
        limit_bytes = self._registry.ledger.limit_bytes
        for want in self._wants() if limit_bytes is not None else ():
            entry = self._registry.entry(want.name)
            beside_bytes = self._residents.bytes_beside(want.name)
            reason = too_large(want.name, entry.expected_bytes, beside_bytes, limit_bytes)
            if reason is not None and want.name not in self._residents.drains:
                return entry, ModelBudgetError(reason)
        return None

    def _wants(self) -> Iterable[Want]:
        entries = self._registry.entries
        asked = {name: Urgency(self._waiters.has_demand(name), entries[name].spec.priority) for name in self._asked}
        return [
            Want(name, urgency.is_demand, urgency.priority, entries[name].index)
            for name, urgency in inherit(self._registry.graph, asked).items()
            if name in entries and name not in self.ready and name not in self._loads.jobs
        ]

    def _mark_queued(self, names: set[str]) -> None:
        entries = self._registry.entries
        for name in self._queued - names:
            if entries[name].state is ModelState.QUEUED:
                self._registry.move(entries[name], entries[name].idle_state, "no longer asked for")
        for name in names - self._residents.drains.keys():
            if entries[name].state is not ModelState.QUEUED:
                self._registry.move(entries[name], ModelState.QUEUED, "waits for its turn")
        self._queued = names

    def _consider(self, want: Want, turn: Turn, needed_ahead: Collection[str]) -> None:
        entry = self._registry.entry(want.name)
        waits_on = [name for name in entry.spec.depends_on if name not in self.ready]
        if entry.state is not ModelState.QUEUED:
            return  # it still drains, or what it depends on was given up earlier in this turn
        if waits_on:
            self._registry.move(entry, ModelState.QUEUED, f"waits for {', '.join(waits_on)}, which it depends on")
            return
        need_bytes = entry.expected_bytes
        candidates = functools.partial(self._residents.candidates, self._loads.jobs, needed_ahead)
        admission = turn.judge(want, need_bytes, candidates)
        if admission.verdict is Verdict.START:
            self._loads.start(entry, is_demand=want.is_demand, need_bytes=need_bytes)
        elif admission.verdict is Verdict.NO_ROOM:
            self._registry.move(entry, entry.idle_state, admission.reason)
            self._give_up(want.name, ModelBudgetError(admission.reason))
        else:
            self._registry.move(entry, ModelState.QUEUED, admission.reason)
            self._residents.evict(admission.victims, f"makes room for {want.name}")

    def _shrink(self) -> None:
        """Let models go until a limit that was lowered holds again, as far as leases allow."""
        ledger = self._registry.ledger
        excess_bytes = ledger.excess_bytes - ledger.leaving_bytes
        if excess_bytes > 0:
            self._residents.evict(
                choose_victims(self._residents.candidates(self._loads.jobs), excess_bytes, is_partial=True),
                "the limit was lowered",
            )

    # What loads and unloads report

    def became_ready(self, entry: Entry, resident: Resident) -> None:
        """Hand the model over to those who wait for it."""
        name = resident.spec.name
        entry.resident = self.ready[name] = resident
        self._asked.pop(name, None)
        self._waiters.hand_over(name, resident)
        self._registry.review(name)
        self._registry.announce("ready", name)

    def failed(self, entry: Entry, error: BaseException, *, cause: BaseException | None = None) -> None:
        """Keep the error, and end all waits for the model and for what depends on it."""
        name = entry.spec.name
        registry = self._registry
        entry.failure_count += 1
        entry.last_error = f"{type(error).__name__}: {error}"
        registry.totals.load_failures += 1
        self._registry.move(entry, ModelState.FAILED, f"its load failed: {entry.last_error}")
        registry.record("models.load_failures", 1.0, "count", model=name)
        logger.error(
            "model %s failed to load: %s",
            name,
            entry.last_error,
            exc_info=cause or error,
            extra={"fields": {"model": name, "failures": entry.failure_count}},
        )
        self._give_up(name, error)
        registry.announce("failed", name)

    def _give_up(self, name: str, error: BaseException) -> None:
        """End all waits for ``name`` and for what depends on it."""
        for other in load_order(self._registry.needed_by, [name]):
            entry = self._registry.entries.get(other)
            self._asked.pop(other, None)
            self._waiters.fail(other, functools.partial(_load_error, other, name, error))
            if entry is not None and entry.state is ModelState.QUEUED:
                self._registry.move(entry, *self._state_without(entry, name, error))

    def _state_without(self, entry: Entry, name: str, error: BaseException) -> tuple[ModelState, str]:
        if self._registry.failed_dependencies(entry.spec.name):
            return ModelState.BLOCKED, f"its dependency {name} failed: {error}"
        return entry.idle_state, f"not loaded: {error}"

    def ended(self) -> None:
        """See what may happen now."""
        self._dispatch()

    def torn_down(self) -> None:
        """Begin nothing more: a task was cancelled from outside."""
        self.is_closing = True
        self._fail_all_waiters()

    # The end

    async def close(self, grace_s: float) -> None:
        """End all waits, cancel or await loads, wait for leases, unload everything; at most about ``grace_s``."""
        self.is_closing = True
        self._fail_all_waiters()
        for job in self._loads.jobs.values():
            if job.task is not None and job.is_cancellable:
                job.task.cancel()
        for name in list(self.ready):
            if name in self.ready:  # a cascade may have taken it meanwhile
                self._residents.start_drain(name, "the pool stops")
        await self._await_end(grace_s)
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
        self._asked.clear()
        for name in self._waiters.names():
            self._waiters.fail(
                name, lambda: AlreadyClosedError("the model pool stopped while the model was waited for")
            )


def _load_error(name: str, failed: str, cause: BaseException) -> ModelError:
    """Make the error one waiter gets: of the same kind when it is one of the pool's own, with the loader's as cause."""
    if failed == name and isinstance(cause, ModelError):
        error: ModelError = (
            type(cause)(str(cause)) if isinstance(cause, ModelBudgetError) else ModelLoadError(str(cause))
        )
    elif failed == name:
        error = ModelLoadError(f"model {name!r} could not be loaded: {type(cause).__name__}: {cause}")
    else:
        error = ModelLoadError(f"model {name!r} could not be loaded: its dependency {failed!r} failed: {cause}")
    error.__cause__ = cause
    return error
