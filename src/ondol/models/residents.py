"""service: the models in memory: who may leave, and how they leave.

A model that leaves takes those that depend on it along, first them; its leases are waited for; its bytes count until
they are given back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ondol.models.candidates import Candidates
from ondol.models.graph import dependencies
from ondol.models.ledger import Phase
from ondol.models.loops import own_task
from ondol.models.spec import ModelState
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable

    from ondol.models.entry import Entry, Resident
    from ondol.models.job import LoadJob
    from ondol.models.ledger import Candidate
    from ondol.models.parting import Parting
    from ondol.models.ports import Steering
    from ondol.models.registry import Registry

__all__ = ["Residents"]

logger = logging.getLogger("ondol.models")

_WANTED: Final = frozenset({ModelState.QUEUED, ModelState.BACKOFF})


class Residents:
    """The models that are ready, and those on their way out. Use it in the loop's thread only.

    Attributes:
        ready: what may be leased.
        drains: the unloads under way by account, each waiting for its leases first.
    """

    def __init__(self, registry: Registry, parting: Parting, steering: Steering) -> None:
        """Begin with nothing in memory."""
        self.ready: dict[str, Resident] = {}
        self.drains: dict[str, asyncio.Task[None]] = {}
        self._registry = registry
        self._parting = parting
        self._steering = steering
        self._candidates = Candidates(registry, self.ready, self.drains.keys())
        self._left: list[str] = []
        """Models that are not ready any more, which nobody was told yet."""

    # Who may leave

    def candidates(self, loading: Iterable[str], needed: Collection[str] = ()) -> Generator[Candidate]:
        """Yield who might leave; see ``Candidates.ranked``."""
        return self._candidates.ranked(loading, needed)

    def may_leave(self, name: str) -> bool:
        """Tell whether a model could leave at once; see ``Candidates.may_leave``."""
        return self._candidates.may_leave(name)

    def dependents(self, resident: Resident) -> frozenset[str]:
        """Return the ready models that were built on it, or on an old copy that was and stays for their sake.

        Those that would be built on it now may depend on others yet.
        """
        names: set[str] = set()
        waiting = [resident]
        while waiting:
            for user in waiting.pop().supports:
                if self.ready.get(user.spec.name) is user:
                    names.add(user.spec.name)
                elif user.account in self.drains:
                    waiting.append(self._registry.alive[user.account])
        return frozenset(names)

    def all_dependents(self, name: str) -> list[str]:
        """Return the ready models that depend on ``name``, or were built on any copy of it, directly or not."""
        alive = self._registry.alive
        users: set[Resident | LoadJob] = set()
        waiting = [resident for resident in alive.values() if resident.spec.name == name]
        while waiting:
            found = waiting.pop().supports - users
            users |= found
            waiting.extend(alive[user.account] for user in found if user.account in alive)
        needed_by = self._registry.needed_by.get(name, ())
        return [other for other, resident in self.ready.items() if resident in users or other in needed_by]

    def pinned(self) -> frozenset[Resident]:
        """Return the pinned models that are ready, and what they were built on."""
        entries = self._registry.entries
        return frozenset(_with_bases(resident for name, resident in self.ready.items() if entries[name].is_pinned))

    def bytes_beside(self, name: str, pinned: frozenset[Resident] | None = None) -> int:
        """Return what has to stay while ``name`` is loaded: pinned models, what it depends on, and what those need.

        Args:
            name: of a model.
            pinned: what ``pinned`` returns, for one who asks about many models.
        """
        needed = dependencies(self._registry.graph, name)
        if not needed and not pinned and pinned is not None:
            return 0
        staying = _with_bases(self.ready[other] for other in needed if other in self.ready)
        staying |= self.pinned() if pinned is None else pinned
        staying = staying - {self.ready.get(name)}
        entries = self._registry.entries
        to_come = (entries[other].expected_bytes for other in needed if other in entries and other not in self.ready)
        return sum(self._registry.ledger.size(resident.account) for resident in staying) + sum(to_come)

    # Leaving

    def evict(self, victims: Iterable[str], reason: str) -> list[asyncio.Task[None]]:
        """Let ``victims`` go to make room; return their unloads."""
        drains = []
        for name in (victim for victim in victims if victim in self.ready):  # old copies leave by themselves then
            self._registry.totals.evictions += 1
            self._registry.record("models.evictions", 1.0, "count", model=name)
            drains.append(self.start_drain(name, f"evicted: {reason}"))
        return drains

    def start_drain(self, name: str, reason: str) -> asyncio.Task[None]:
        """Take a ready model out of use and unload it once its leases are back; dependents go with it."""
        drain = self._take_out(name, reason)
        self.announce_leaving()
        return drain

    def _take_out(self, name: str, reason: str) -> asyncio.Task[None]:
        resident = self.ready.pop(name)
        self._left.append(name)
        self._registry.move(self._registry.entry(name), ModelState.DRAINING, reason)
        self._take_out_dependents(resident, f"{name}, which it depends on, goes ({reason})")
        return self.retire(resident, reason)

    def _take_out_dependents(self, resident: Resident, reason: str) -> None:
        for other in self.dependents(resident):
            if other in self.ready:  # a cascade may have taken it meanwhile
                self._take_out(other, reason)

    def crash_out(self, name: str) -> list[str]:
        """Let go at once of a ready model whose process ended, and of what was built on it; return the latter's names.

        ``announce_leaving`` when it is seen to what becomes of them.
        """
        resident = self.ready.pop(name)
        were_ready = list(self.ready)
        self._registry.entry(name).resident = None
        self._take_out_dependents(resident, f"{name}, which it depends on, crashed")
        self._left.append(name)
        self.retire(resident, "it crashed", has_crashed=True)
        return [other for other in were_ready if other not in self.ready]

    def announce_leaving(self) -> None:
        """Tell the listeners who cannot be leased any more; all is in order again whatever they do."""
        left, self._left = self._left, []
        for name in left:
            self._registry.announce("leaving", name)

    def let_go(self, name: str, reason: str) -> list[str]:
        """Let a ready model go, and what was built on it; return the names of all that are no longer ready."""
        were_ready = list(self.ready)
        self.start_drain(name, reason)
        return [other for other in were_ready if other not in self.ready]

    def leaving_with(self, name: str) -> set[str]:
        """Return a ready model and all that would leave with it."""
        leaving: set[Resident] = set()
        waiting = [self.ready[name]]
        while waiting:
            resident = waiting.pop()
            if resident not in leaving:
                leaving.add(resident)
                waiting.extend(self.ready[other] for other in self.dependents(resident))
        return {resident.spec.name for resident in leaving}

    def retire(self, resident: Resident, reason: str, *, has_crashed: bool = False) -> asyncio.Task[None]:
        """Unload a copy that is not to be leased any more, once nobody uses it (a crashed one at once)."""
        resident.stop_watching_idle()
        if has_crashed or self._is_free_to_go(resident):
            self._registry.ledger.leave(resident.account)
        work = self._drain(resident, reason, has_crashed=has_crashed)
        task = own_task(work, name=f"ondol-unload-{resident.account}")
        self.drains[resident.account] = task
        return task

    def count_leaving(self) -> None:
        """Count the bytes of those as leaving that wait for no lease any more, neither directly nor indirectly."""
        ledger = self._registry.ledger
        waiting = [self._registry.alive[account] for account in self.drains if ledger.phase(account) is Phase.RESIDENT]
        while going := [resident for resident in waiting if self._is_free_to_go(resident)]:
            for resident in going:
                ledger.leave(resident.account)
                waiting.remove(resident)

    def is_anything_leaving(self) -> bool:
        """Tell whether an unload is under way that will end by itself, once leases are back."""
        alive = self._registry.alive
        return any(not self._is_kept(alive[account]) for account in self.drains)

    def _is_kept(self, resident: Resident) -> bool:
        """Tell whether an old copy stays because something that is ready was built on it, directly or not."""
        alive = self._registry.alive
        return any(
            self.ready.get(user.spec.name) is user
            or (user.account in self.drains and self._is_kept(alive[user.account]))
            for user in resident.supports
        )

    def _is_free_to_go(self, resident: Resident) -> bool:
        """Tell whether what leaves waits for nothing but unloads that are under way."""
        ledger = self._registry.ledger
        return not resident.leases and all(ledger.phase(user.account) is Phase.LEAVING for user in resident.supports)

    def drains_of(self, name: str) -> list[asyncio.Task[None]]:
        """Return the unloads of all copies of a model."""
        return [task for account, task in self.drains.items() if self._registry.alive[account].spec.name == name]

    async def _drain(self, resident: Resident, reason: str, *, has_crashed: bool) -> None:
        name = resident.spec.name
        ledger = self._registry.ledger
        try:
            if not has_crashed:
                await _unused(resident)
            if ledger.phase(resident.account) is Phase.RESIDENT:
                ledger.leave(resident.account)
                self._steering.ended()
            resident.is_parting = self._registry.has_unloaded = True
            if not await self._parting.part_with(resident.spec, resident, has_crashed=has_crashed):
                self._registry.totals.unload_failures += 1
        except GeneratorExit:
            raise  # its loop was closed: the registry was told, or will be
        except BaseException:
            self._steering.torn_down()  # only a stop out of patience or the end of the loop cancels this
            logger.warning("model %s was let go of without unloading it: %d lease(s) held", name, resident.leases)
            self._gone(resident, reason)
            raise
        self._gone(resident, reason)

    def _gone(self, resident: Resident, reason: str) -> None:
        resident.let_go_of_bases()
        resident.model = None
        self._registry.ledger.release(resident.account)
        del self.drains[resident.account], self._registry.alive[resident.account]
        entry = self._registry.entry(resident.spec.name)
        if entry.resident is resident:  # else another copy has taken its place, or it crashed
            entry.resident = None
            if entry.state is ModelState.DRAINING:  # else a load beside it has failed meanwhile
                self._registry.move(entry, ModelState.UNLOADED, reason)
            if entry.job is not None and entry.state is ModelState.UNLOADED:
                self._registry.move_back_to_loading(entry)
            self._registry.announce("unloaded", entry.spec.name)
        self._steering.ended()

    # Idle models

    def watch_idle(self, resident: Resident) -> None:
        """Watch (anew) how long a ready model is not used, if it is to go after some time."""
        if resident.idle_timer is None:
            resident.idle_since_s = self._registry.clock.monotonic()
        resident.stop_watching_idle()
        entry = self._registry.entry(resident.spec.name)
        ttl_s = self._registry.idle_ttl_s(entry)
        if ttl_s is None or self.ready.get(entry.spec.name) is not resident or self._steering.is_closing:
            return
        now_s = self._registry.clock.monotonic()
        is_needed = resident.is_used or self._is_wanted(entry)
        idle_s = 0.0 if is_needed else now_s - resident.idle_since_s
        if idle_s >= ttl_s and not entry.is_promised(now_s):
            self._registry.totals.idle_unloads += 1
            self.start_drain(entry.spec.name, f"not used for {format_seconds(idle_s)}")
            self._steering.ended()
            return
        wait_s = max(0.001, ttl_s - idle_s, entry.promised_until_s - now_s)
        loop = asyncio.get_running_loop()
        resident.idle_timer = loop.call_later(wait_s, self.watch_idle, resident)

    def _is_wanted(self, entry: Entry) -> bool:
        """Tell whether it serves while another copy loads, or whether what depends on it is about to load."""
        entries = self._registry.entries
        dependents = self._registry.needed_by.get(entry.spec.name, ())
        return entry.load_started_s is not None or any(entries[other].state in _WANTED for other in dependents)


def _with_bases(residents: Iterable[Resident]) -> set[Resident]:
    """Return ``residents`` and all that they were built on."""
    found: set[Resident] = set()
    waiting = list(residents)
    while waiting:
        resident = waiting.pop()
        if resident not in found:
            found.add(resident)
            waiting.extend(resident.built_on)
    return found


async def _unused(resident: Resident) -> None:
    while resident.is_used:
        is_unused = asyncio.Event()
        resident.on_unused = is_unused.set
        await is_unused.wait()
    resident.on_unused = None
