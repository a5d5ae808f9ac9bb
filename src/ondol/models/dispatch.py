"""service: one turn of the pool: which of the waiting loads starts, which waits and why, who leaves for it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ondol.errors import ModelBudgetError
from ondol.models.admission import Admission, Turn, Verdict, too_large
from ondol.models.graph import dependencies
from ondol.models.ledger import choose_victims
from ondol.models.queue import Slots, Want, ordered
from ondol.models.spec import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from ondol.models.entry import Entry
    from ondol.models.graph import Graph
    from ondol.models.loads import Loads
    from ondol.models.measuring import Measuring
    from ondol.models.registry import Registry
    from ondol.models.residents import Residents
    from ondol.models.setbacks import Setbacks
    from ondol.models.wants import Wants

__all__ = ["Dispatcher"]

_HELD = frozenset({ModelState.BACKOFF, ModelState.QUARANTINED})
_NOT_TO_REFUSE = _HELD | {ModelState.DRAINING}
_NOT_TO_QUEUE = _HELD | {ModelState.QUEUED, ModelState.DRAINING}


class Dispatcher:
    """Looks at everything that is wanted, after each event, and does what may be done now."""

    def __init__(
        self,
        registry: Registry,
        residents: Residents,
        loads: Loads,
        wants: Wants,
        setbacks: Setbacks,
        measuring: Measuring,
        make_way: Callable[[str], None],
    ) -> None:
        """Act on the parts of one run; ``make_way`` lets a copy that serves go before a new one comes."""
        self._registry = registry
        self._residents = residents
        self._loads = loads
        self._wants = wants
        self._setbacks = setbacks
        self._measuring = measuring
        self._make_way = make_way
        self._queued: tuple[str, ...] = ()
        self._is_looking = False
        self._is_due = False

    def take_turn(self) -> bool:
        """Start, refuse and evict what may be now; return whether returned leases could let something go on.

        When a listener of what this does wants another look meanwhile, it is taken as soon as this one is over.
        """
        if self._is_looking:
            self._is_due = True
            return True  # what counts is what the look under way returns
        self._is_looking = True
        try:
            turn = self._look()
            while turn is None or self._is_due:
                turn = self._look()  # what has changed may have been in the way of others
        finally:
            self._is_looking = False
        return turn.is_waiting_for_leases or self._registry.ledger.excess_bytes > 0

    def _look(self) -> Turn | None:
        """Look once at all that is wanted, in order; return ``None`` when others have to be looked at again."""
        self._is_due = False
        self._residents.count_leaving()
        self._shrink()
        wants = ordered(self._to_load())
        if self._refuse_too_large(wants):
            return None
        self._mark_queued(tuple(want.name for want in wants if want.name not in self._residents.ready))
        demand_jobs = sum(job.is_demand for job in self._loads.jobs.values())
        options = self._registry.options
        slots = Slots(
            demand=options.max_demand_loads - demand_jobs,
            background=options.max_background_loads - (len(self._loads.jobs) - demand_jobs),
        )
        turn = Turn(
            self._registry.ledger,
            slots,
            is_anything_moving=bool(self._loads.jobs) or self._residents.is_anything_leaving(),
        )
        needed_ahead: set[str] = set()
        jobs_before = len(self._loads.jobs)
        for want, needed in _with_what_they_need(wants, self._registry.graph):
            if turn.is_demand_waiting and not slots.has_free(is_demand=True) and want.is_demand:
                continue  # it cannot start, and that others wait for room is known already
            needed_ahead.update(needed)
            if not self._consider(want, turn, needed_ahead) or self._is_due:
                return None
        has_started = len(self._loads.jobs) > jobs_before  # what a load needed until it began may leave for others now
        return None if has_started and turn.is_room_short else turn

    def _to_load(self) -> list[Want]:
        return self._wants.to_load(self._residents.ready, self._loads.jobs)

    def _refuse_too_large(self, wants: Sequence[Want]) -> bool:
        """Fail one that can never fit, before anything is loaded or evicted for it; return whether there was one."""
        limit_bytes = self._registry.ledger.limit_bytes
        if limit_bytes is None:
            return False
        pinned = self._residents.pinned()
        for want in wants:
            entry = self._registry.entry(want.name)
            has_all = all(other in self._residents.ready for other in entry.spec.depends_on)
            if entry.state in _NOT_TO_REFUSE or (has_all and not entry.expected_bytes):
                continue  # of unknown size; without all it depends on that alone may be too large
            beside_bytes = self._residents.bytes_beside(want.name, pinned)
            reason = too_large(want.name, entry.expected_bytes, beside_bytes, limit_bytes)
            if reason is None:
                continue
            if want.name in self._residents.ready:
                self._give_up_copy(entry, reason)
            else:
                self._setbacks.load_failed(entry, ModelBudgetError(reason), cause=None, is_serving=False)
            return True
        return False

    def _mark_queued(self, names: tuple[str, ...]) -> None:
        entries = self._registry.entries
        for name in {*self._queued}.difference(names):
            if entries[name].state is ModelState.QUEUED:
                self._registry.move(entries[name], entries[name].idle_state, "no longer asked for")
        for name in names:
            if entries[name].state not in _NOT_TO_QUEUE:
                self._registry.move(entries[name], ModelState.QUEUED, "waits for its turn")
        self._queued = names

    def _consider(self, want: Want, turn: Turn, needed_ahead: Collection[str]) -> bool:
        """Do about one model what may be done; return false when it was given up, or something let go for it."""
        entry = self._registry.entry(want.name)
        if entry.state is not ModelState.QUEUED and want.name not in self._residents.ready:
            return True  # it drains or backs off
        if entry.leftover is not None and not entry.leftover.done():
            self._setbacks.still_hangs(entry, is_serving=want.name in self._residents.ready)
            return False
        waits_on = [name for name in entry.spec.depends_on if name not in self._residents.ready]
        if waits_on:
            self._explain(entry, f"waits for {', '.join(waits_on)}, which it depends on")
            return True
        need_bytes = self._measuring.need_bytes(entry)
        is_to_be_alone = self._measuring.is_to_be_alone(entry, need_bytes)
        if self._measuring.keeps_waiting(is_to_be_alone=is_to_be_alone):
            self._explain(entry, "waits while a model whose size is not known is measured")
            return True
        held = {*needed_ahead, want.name}
        candidates = functools.partial(self._residents.candidates, self._loads.jobs, held)
        admission = turn.judge(want, need_bytes, candidates)
        if admission.verdict is Verdict.START:
            self._loads.start(entry, is_demand=want.is_demand, need_bytes=need_bytes, is_to_be_alone=is_to_be_alone)
            return True
        return self._hold_up(want, entry, admission, held)

    def _hold_up(self, want: Want, entry: Entry, admission: Admission, held: Collection[str]) -> bool:
        """Say why a load does not start, let something go for it, or give it up; return false after the latter two."""
        name = want.name
        if admission.verdict is Verdict.WAIT:
            self._explain(entry, admission.reason)
            return not self._residents.evict(admission.victims, f"makes room for {name}")
        if name in self._residents.ready:
            return self._hold_up_copy(want, entry, admission, held)
        if admission.verdict is Verdict.NO_ROOM:
            self._registry.move(entry, entry.idle_state, admission.reason)
            self._setbacks.give_up(name, ModelBudgetError(admission.reason))
            return False
        self._explain(entry, admission.reason)
        return True

    def _hold_up_copy(self, want: Want, entry: Entry, admission: Admission, held: Collection[str]) -> bool:
        """Let the copy that serves go first if that, with others that may leave, makes enough room; else keep it."""
        residents = self._residents
        ledger = self._registry.ledger
        going = residents.leaving_with(want.name)
        freed_bytes = sum(ledger.size(residents.ready[name].account) for name in going) + ledger.leaving_bytes
        short_bytes = ledger.shortage(self._measuring.need_bytes(entry)) - freed_bytes
        candidates = residents.candidates(self._loads.jobs, held)
        victims = choose_victims(candidates, short_bytes, may_go=want.may_displace, gone=going)
        if short_bytes <= 0 or victims:
            self._make_way(want.name)
            residents.evict(victims, f"makes room for {want.name}")
            return False
        if admission.verdict is Verdict.NO_ROOM:
            self._give_up_copy(entry, admission.reason)
            return False
        self._explain(entry, admission.reason)
        return True

    def _give_up_copy(self, entry: Entry, reason: str) -> None:
        self._explain(entry, f"was given up: {reason}")
        self._setbacks.give_up_copy(entry.spec.name, ModelBudgetError(reason))

    def _explain(self, entry: Entry, reason: str) -> None:
        """Say why a wanted model is not loading yet."""
        if entry.state is ModelState.READY:
            self._registry.move(entry, ModelState.READY, f"ready; a new copy {reason}")
        else:
            self._registry.move(entry, ModelState.QUEUED, reason)

    def _shrink(self) -> None:
        """Let models go until a limit that was lowered holds again, as far as leases allow."""
        ledger = self._registry.ledger
        excess_bytes = ledger.excess_bytes - ledger.leaving_bytes
        if excess_bytes > 0:
            self._residents.evict(
                choose_victims(self._residents.candidates(self._loads.jobs), excess_bytes, is_partial=True),
                "the limit was lowered",
            )


def _with_what_they_need(wants: Iterable[Want], graph: Graph) -> Iterator[tuple[Want, list[str]]]:
    """Yield each want after those it depends on, with all that the first for whose sake it is looked at depends on.

    So nobody in between holds on to what is in the way of those ahead, or two of them could wait for each other.
    """
    waiting = {want.name: want for want in wants}
    for first in list(waiting.values()):
        needed = dependencies(graph, first.name)
        for name in (*needed, first.name):
            want = waiting.pop(name, None)
            if want is not None:
                yield want, needed
