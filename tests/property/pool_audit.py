"""What must hold of a pool, whatever happens to it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, Final

from ondol.models import ModelState
from ondol.models.graph import dependencies, missing
from ondol.models.ledger import Phase
from ondol.models.queue import ordered
from ondol.models.wants import AGEING_S
from tests.property.pool_fakes import copy_of
from tests.property.pool_workshop import EMPTY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models import ModelPool
    from ondol.models.entry import Entry, Resident
    from ondol.models.registry import Registry
    from ondol.models.run import PoolRun
    from tests.property.pool_workshop import Workshop

__all__ = ["SLACK_S", "Audit"]

SLACK_S: Final = 1e-3
_AT_REST: Final = frozenset(
    {
        ModelState.REGISTERED,
        ModelState.UNLOADED,
        ModelState.FAILED,
        ModelState.QUARANTINED,
        ModelState.BLOCKED,
    }
)


class Audit:
    """What must hold, whatever happens."""

    def __init__(self, pool: ModelPool, workshop: Workshop, fault: Callable[[str], None]) -> None:
        """Look at ``pool``, whose models come from ``workshop``; ``fault`` is told what does not hold."""
        self._pool = pool
        self._workshop = workshop
        self._fault = fault
        self._counts: dict[str, float] = {}
        self._most_jobs = {True: 0, False: 0}
        self._looked_at_s = 0.0
        self._ready: set[str] = set()
        """What may be leased, by the events."""
        self._loading: set[str] = set()
        """What has begun to load since it was ready last, by the events."""

    def _expect(self, is_true: object, text: str) -> None:
        if not is_true:
            self._fault(text)

    @property
    def _registry(self) -> Registry:
        return self._pool._registry

    def event(self, event: str, name: str) -> None:
        """Look at what an event says."""
        run = self._pool._run
        ledger = self._registry.ledger
        self._expect(ledger.used_bytes >= 0, f"{ledger.used_bytes} bytes are booked")
        if event in {"leased", "ready"}:
            self._expect(run is not None and self._registry.alive, f"{event} {name}, but nothing is in memory")
        if event == "ready":
            self._expect(run is not None and name in run.ready, f"{name} was said to be ready and is not")
            self._expect(name in self._loading, f"{name} is ready, but nobody said that it loads")
            self._loading.discard(name)
            self._ready.add(name)
        elif event == "asked":
            self._expect(run is not None and name not in run.ready, f"somebody waits for {name}, which is ready")
            self._expect(
                self._pool.load_state().is_demand_waiting or self._is_loading(name), f"nobody waits for {name}"
            )
        elif event == "leased":
            self._expect(name in self._ready, f"{name} is leased and was not said to be ready")
        elif event == "loading":
            self._loading.add(name)
        elif event == "leaving":
            self._expect(name in self._ready, f"{name} leaves, but was not said to be ready, or to leave twice")
            may_be_leased = run is not None and not run.loop.is_closed() and name in run.ready
            self._expect(not may_be_leased, f"{name} leaves, but may be leased")
            self._ready.discard(name)

    def _is_loading(self, name: str) -> bool:
        run = self._pool._run
        return run is not None and (run.is_closing or name in run._loads.jobs)

    def rest(self, seconds: float) -> None:
        """Look at everything while nothing can run; it stays like this for ``seconds``."""
        run = self._pool._run
        self._ledger()
        self._counters()
        self._copies()
        if run is not None and not run.is_closing:
            self._leaving(run)
            self._states(run)
            self._waits(run)
            self._load_state(run)
            self.slots(run)
            self._idle(run, seconds)
            self._nothing_to_do(run)
        self._looked_at_s = self._workshop.loop.time()

    def _ledger(self) -> None:
        ledger, alive = self._registry.ledger, self._registry.alive
        accounts = ledger._accounts
        runs = self._workshop.runs()
        used = sum(size for size, _ in accounts.values())
        self._expect(used == ledger.used_bytes, f"{used} bytes are in the accounts, {ledger.used_bytes} in the totals")
        self._expect(all(size >= 0 for size, _ in accounts.values()), f"less than nothing is booked: {accounts}")
        jobs = {job.account for run in runs for job in run._loads.jobs.values()}
        drains = {account for run in runs for account in run._residents.drains}
        ready = {resident.account for run in runs for resident in run.ready.values()}
        left = {account for run in runs for account in run._loads.leftovers}
        owners = alive.keys() | jobs | left
        self._expect(accounts.keys() == owners, f"{[*accounts]} are booked for {[*alive]}, {jobs} and {left}")
        self._expect(alive.keys() == ready | drains, f"{[*alive]} are in memory, {ready} ready, {drains} leave")
        self._expect(not ready & drains, f"{ready & drains} are ready and leave")
        for account, resident in alive.items():
            phase = ledger.phase(account)
            is_right = phase is Phase.RESIDENT if account in ready or resident.leases else phase is not Phase.RESERVED
            self._expect(is_right or self._has_crashed(resident), f"the bytes of {account} are {phase}")
        for account in jobs:
            self._expect(ledger.phase(account) is Phase.RESERVED, f"{account} loads and is {ledger.phase(account)}")

    @staticmethod
    def _has_crashed(resident: Resident) -> bool:
        copy = copy_of(resident)
        return copy is None or copy.has_crashed

    def _counters(self) -> None:
        totals = self._registry.totals
        counts = {name: getattr(totals, name) for name in totals.__slots__}
        for entry in self._registry.entries.values():
            counts[f"{entry.spec.name} loads"] = entry.load_count
            counts[f"{entry.spec.name} failures"] = entry.failure_count
        for name, count in counts.items():
            self._expect(count >= self._counts.get(name, 0), f"{name} went down to {count}")
        self._counts = counts
        self._expect(not totals.listener_failures, "a listener failed")

    def _copies(self) -> None:
        kept = set()
        for account, resident in self._registry.alive.items():
            copy = copy_of(resident)
            if copy is not None:
                kept.add(copy)
                self._expect(
                    resident.leases == copy.held, f"{account}: {resident.leases} leases, but {copy.held} holders"
                )
        for copy in self._workshop.copies:
            is_lost = copy.held and copy not in kept and not copy.has_crashed and not copy.is_excused
            self._expect(not is_lost, f"{copy} is held by {copy.held}, but the pool does not know it any more")

    def _leaving(self, run: PoolRun) -> None:
        for account in run._residents.drains:
            resident = self._registry.alive[account]
            entry = self._registry.entries[resident.spec.name]
            is_own_reason = entry.resident is resident and entry.state is ModelState.DRAINING
            if is_own_reason and resident.leases:
                is_at_will = entry.reason.startswith(("evicted", "not used"))
                self._expect(not is_at_will, f"{account} was let go of ({entry.reason}), but is leased")

    def _states(self, run: PoolRun) -> None:
        wanted = {want.name for want in run._dispatcher._to_load()}
        for name, entry in self._registry.entries.items():
            is_right = self._is_right(run, entry, name, wanted)
            where = [
                word
                for word, things in (("ready", run.ready), ("loading", run._loads.jobs), ("wanted", wanted))
                if name in things
            ]
            self._expect(is_right, f"{name} is {entry.state} ({entry.reason}), but {where}")
            is_loading = name in run._loads.jobs
            self._expect((entry.load_started_s is not None) == is_loading, f"{name}: {entry.load_started_s=}, {where}")
            is_timed = name in run._setbacks._timers
            self._expect(is_timed == (entry.state is ModelState.BACKOFF), f"{name} is {entry.state}: {is_timed=}")
            self._expect((entry.retry_at_s is not None) == is_timed, f"{name}: {entry.retry_at_s=}, {is_timed=}")

    def _is_right(self, run: PoolRun, entry: Entry, name: str, wanted: set[str]) -> bool:
        state = entry.state
        if name in run.ready:
            return state is ModelState.READY and entry.resident is run.ready[name]
        is_leaving = entry.resident is not None and entry.resident.account in run._residents.drains
        if state is ModelState.DRAINING or (entry.resident is not None and not is_leaving):
            return is_leaving
        if name in run._loads.jobs:
            return state in {ModelState.LOADING, ModelState.WARMING}
        if name in wanted:
            return state in {ModelState.QUEUED, ModelState.BACKOFF}
        return state not in {ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING, ModelState.READY}

    def _waits(self, run: PoolRun) -> None:
        wants, registry = run._wants, self._registry
        for name, waiters in run._waiters._by_name.items():
            is_pending = waiters and not any(waiter.future.done() for waiter in waiters)
            self._expect(is_pending, f"waits for {name} have ended and are not forgotten")
            self._expect(name in wants, f"{len(waiters)} wait for {name}, which the pool does not want")
            demand = sum(waiter.is_demand for waiter in waiters)
            self._expect(
                run._waiters.count_demand(name) == demand, f"{demand} requests wait for {name}, not as counted"
            )
        for name in run._waiters.demanded():
            self._expect(name in run._waiters, f"requests are counted for {name}, which nobody waits for")
        for name in wants._displacing:
            self._expect(name in wants, f"{name} is not wanted, but may displace {wants._displacing[name]}")
        for name in wants._asked:
            self._expect(name not in run.ready or wants.is_anew(name), f"{name} is ready and still wanted")
            if missing(registry.graph, name):
                self._fault(f"{name} is wanted, but can never be loaded")
                continue
            for member in (*dependencies(registry.graph, name), name):
                state = registry.entries[member].state
                hopeless = {ModelState.QUARANTINED, ModelState.FAILED, ModelState.BLOCKED}
                self._expect(state not in hopeless, f"{name} is wanted, but {member} is {state}")

    def _load_state(self, run: PoolRun) -> None:
        """Compare what the pool says it is busy with, and what was announced, with what is."""
        self._expect(self._ready == {*run.ready}, f"{self._ready} were said to be ready, {[*run.ready]} are")
        self._expect({*run._loads.jobs} <= self._loading, f"{[*run._loads.jobs]} load, {self._loading} were said to")
        ledger, jobs = self._registry.ledger, run._loads.jobs
        self._loading &= jobs.keys()
        state = self._pool.load_state()
        demand = sum(job.is_demand for job in jobs.values())
        self._expect(
            (state.demand_loads, state.background_loads) == (demand, len(jobs) - demand),
            f"{state} are loaded, but {[*jobs]}",
        )
        free_bytes = None if ledger.limit_bytes is None else max(0, ledger.limit_bytes - ledger.used_bytes)
        self._expect(state.free_bytes == free_bytes, f"{free_bytes} bytes are free, not as in {state}")
        waiting = [name for name in run._waiters._by_name if run._waiters.has_demand(name) and name not in jobs]
        self._expect(state.is_demand_waiting == bool(waiting), f"{waiting} wait, not as in {state}")

    def slots(self, run: PoolRun) -> None:
        """Look whether more load at once than may."""
        options = self._registry.options
        for is_demand, most in ((True, options.max_demand_loads), (False, options.max_background_loads)):
            jobs = sum(job.is_demand is is_demand for job in run._loads.jobs.values())
            allowed = max(most, self._most_jobs[is_demand])
            self._expect(jobs <= allowed, f"{jobs} loads at once ({is_demand=}), {allowed} are allowed")
            self._most_jobs[is_demand] = jobs

    def _idle(self, run: PoolRun, seconds: float) -> None:
        now_s = self._workshop.loop.time()
        for name, resident in run.ready.items():
            entry, copy = self._registry.entries[name], copy_of(resident)
            assert copy is not None
            ttl_s = self._registry.idle_ttl_s(entry)
            dependents = self._registry.needed_by.get(name, ())
            states = {self._registry.entries[other].state for other in dependents}
            is_needed = bool(states & {ModelState.QUEUED, ModelState.BACKOFF})
            is_needed |= resident.is_used or name in run._loads.jobs or entry.is_promised(now_s - SLACK_S)
            if ttl_s is None or is_needed or copy.unused_since_s is None:
                copy.unused_since_s = now_s + seconds
            elif now_s - copy.unused_since_s > ttl_s + SLACK_S:
                self._fault(f"{copy} was not used for {now_s - copy.unused_since_s} s, its time is {ttl_s} s")

    def _nothing_to_do(self, run: PoolRun) -> None:
        """See that nothing is forgotten: another look at what is wanted begins nothing."""
        now_s = self._workshop.loop.time()
        aged = [
            name
            for name, asked_s in run._wants._asked.items()
            if (now_s - asked_s) // AGEING_S != (self._looked_at_s - asked_s) // AGEING_S
        ]
        order = [want.name for want in ordered(run._dispatcher._to_load()) if want.name not in run.ready]
        then = [name for name in run._dispatcher._queued if name in order]
        is_reordered = order != then  # waiting requests came or went, or age has changed the order: no event of its own
        before = self._under_way(run)
        run._dispatch()
        after = self._under_way(run)
        changed = {name: (was, after[name]) for name, was in before.items() if was != after[name]}
        self._expect(aged or is_reordered or not changed, f"the pool forgot to do something: {changed}")
        self._in_order(run)
        alive, entries = self._registry.alive, self._registry.entries.values()
        is_hanging = any(entry.leftover is not None and not entry.leftover.done() for entry in entries)
        is_leaving = any(self._registry.ledger.phase(account) is Phase.LEAVING for account in alive)
        is_still = not (run._loads.jobs or is_leaving or run._setbacks._timers or is_hanging)
        is_free = not any(resident.leases for resident in alive.values())
        self._expect(not (is_still and is_free and run._wants._asked), f"{[*run._wants._asked]} are wanted for ever")

    def _in_order(self, run: PoolRun) -> None:
        """See that what waits was looked at in the order of the rule: each as urgent as the most urgent behind it."""
        now_s = self._workshop.loop.time()
        urgencies: dict[str, list[tuple[bool, int, float]]] = {}
        for name, asked_s in run._wants._asked.items():
            entry = self._registry.entries[name]
            demand = sum(waiter.is_demand for waiter in run._waiters._by_name.get(name, ()))
            seconds = 1.0 if entry.expected_seconds is None else max(entry.expected_seconds, 0.001)
            urgency = (demand > 0, entry.spec.priority + int((now_s - asked_s) / AGEING_S), demand / seconds)
            for member in (name, *dependencies(self._registry.graph, name)):
                urgencies.setdefault(member, []).append(urgency)
        keys = []
        for name in run._dispatcher._queued:
            if name in urgencies and name not in run._loads.jobs:
                is_demand, priority, _ = max(urgencies[name])
                relief_per_s = float(f"{max(urgency[2] for urgency in urgencies[name]):.2g}")
                keys.append((not is_demand, -priority, -relief_per_s, self._registry.entries[name].index))
        self._expect(keys == sorted(keys), f"{run._dispatcher._queued} are not in their order: {keys}")

    def _under_way(self, run: PoolRun) -> dict[str, Any]:
        things: dict[str, Any] = {name: entry.state.value for name, entry in self._registry.entries.items()}
        things |= {"loads": sorted(run._loads.jobs), "unloads": sorted(run._residents.drains)}
        return things | {"wants": sorted(run._wants._asked)}

    def statuses(self) -> None:
        """Look at what the pool shows of itself."""
        now = self._registry.clock.wall()
        for status in self._pool.statuses():
            shown = status.as_dict()
            is_right = (
                (status.progress is None or 0.0 <= status.progress <= 1.0)
                and (status.eta_s is None or status.eta_s >= 0.0)
                and (status.retry_in_s is None or status.retry_in_s >= 0.0)
                and status.since_s >= 0.0
                and status.leases >= 0
                and status.failures_in_a_row >= 0
                and (status.size_bytes is None or status.size_bytes >= 0)
                and (status.load_seconds is None or status.load_seconds >= 0.0)
                and status.is_warm == (status.state is ModelState.READY)
                and all(at is None or at <= now + SLACK_S for at in (status.changed_at, status.loaded_at))
                and all(at is None or at <= now + SLACK_S for at in (status.last_used_at, status.last_error_at))
            )
            self._expect(is_right, f"this cannot be: {shown}")

    def stopped(self, run: PoolRun) -> None:
        """Look at what a run left behind; only tasks that ignore being cancelled may."""
        stuck = {*run._loads.jobs} | {self._registry.alive[account].spec.name for account in run._residents.drains}
        self._expect(not run.ready, f"{[*run.ready]} are ready after the stop")
        self._expect(not run._waiters._by_name, f"somebody waits for {[*run._waiters._by_name]} after the stop")
        self._expect(not run._wants._asked, f"{[*run._wants._asked]} are wanted after the stop")
        self._expect(not run._setbacks._timers, f"{[*run._setbacks._timers]} would be tried again after the stop")
        for entry in self._registry.entries.values():
            is_right = entry.spec.name in stuck or entry.state in _AT_REST
            self._expect(is_right, f"{entry.spec.name} is {entry.state} after the stop")

    def leftovers(self) -> None:
        """Look for anything at all that is left when everything has ended."""
        workshop, registry = self._workshop, self._registry
        left = [str(copy) for copy in workshop.copies if not copy.is_excused]
        self._expect(not left, f"never unloaded: {left}")
        excused_bytes = sum(copy.size_bytes for copy in workshop.copies if copy.plan.kind != "process")
        self._expect(workshop.rss_bytes == EMPTY_BYTES + excused_bytes, f"{workshop.rss_bytes} bytes are in memory")
        self._expect(not registry.alive and not registry.ledger._accounts, f"booked: {registry.ledger._accounts}")
        self._expect(not registry.ledger.used_bytes, f"{registry.ledger.used_bytes} bytes are booked")
        self._expect(all(not s.leases for s in self._pool.statuses()), "there are leases left")
        self._expect(not self._pool._meter._running, f"{self._pool._meter._running} measurements never ended")
        self._expect(not workshop.buildings and not workshop.processes, f"{workshop.buildings} {workshop.processes}")
        tasks = asyncio.all_tasks(workshop.loop)
        self._expect(not tasks, f"tasks are left: {tasks}")
        timers = [timer for timer in workshop.loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        self._expect(not timers, f"timers are left: {timers}")
        if workshop.models:
            gc.collect()
        kept = [str(model.copy) for model in workshop.models if not model.copy.is_excused]
        self._expect(not kept, f"in memory for ever: {kept}")
