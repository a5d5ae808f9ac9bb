"""decision: greedy dual by size, frequency and cost (GDSF), and its relatives that keep newcomers on probation."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.cache.policies.ghosts import NOWHERE, Ghosts, figure_of, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.entry import Entry

__all__ = ["GDSF", "GdsfParams", "GdsfPolicy"]

_MAX_KNOWN_USES: Final = 3
"""What an entry brings along from another policy or from the value it replaces counts for no more than this."""
_FORGET_COSTS_AFTER: Final = 10_000
_NOISE_S: Final = 100e-6
"""Added to every cost: differences below it are noise of the measurement."""
_MAX_STEPS: Final = 500
"""Used entries that one eviction ranks anew before it takes one of them."""
_SHARED_RATIO: Final = 3.0
"""Bytes of entries that left and are remembered together with other policies, in parts of the bound."""
_GHOST_SHARE: Final = 0.5
"""What is left of its frequency to an entry that left and comes back."""


class GdsfParams(NamedTuple):
    """How a member of the family ranks. ``worth = frequency × cost^cost_exponent ÷ size^size_exponent``."""

    name: str = "gdsf"
    decay: float = 0.8
    """What is left of the frequency each time the entry's turn comes."""
    cost_exponent: float = 1.0
    size_exponent: float = 1.0
    newcomer: float = 1.0
    """Frequency of an entry that nothing is known of; below 1 it leaves soon unless it is used again."""
    queue_ratio: float = 0.0
    """Share of the bytes for a queue in which newcomers wait for their second use; 0 for none."""
    ghost_ratio: float = 0.0
    """Bytes of entries that left and are remembered, in parts of the bound."""


GDSF: Final = GdsfParams()


class GdsfPolicy:
    """Evicts the entry of the least ``clock + worth``, where the clock is the rank of the last one that left.

    Entries are ranked when they come and again when their turn to leave comes and they were used meanwhile; so hits
    cost nothing, and the frequency decays in passing. Costs are taken in parts of their mean; 0 means unknown and
    counts as the mean.

    Cost: O(log n) amortised; removed entries leave a few words behind, fewer than there are live ones.

    Source: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching", HPL-98-69, 1998.
    Ours ranks at the entry's turn instead of at each hit, lets the frequency decay, and forgives noise in the costs.
    """

    __slots__ = (
        "_clock",
        "_cost_sum_s",
        "_costs",
        "_dead",
        "_ghosts",
        "_heap",
        "_is_sharing",
        "_max_bytes",
        "_params",
        "_queue",
        "_queue_bytes",
        "_queue_goal_bytes",
        "_turn",
    )

    def __init__(self, params: GdsfParams = GDSF, ghosts: Ghosts | None = None) -> None:
        """Begin without entries; ``ghosts`` are shared with others, who bound them."""
        self._params = params
        self._is_sharing = ghosts is not None
        self._heap: list[list[Any]] = []  # [rank, turn, entry or None, its uses when ranked]
        self._dead = 0
        self._queue: OrderedDict[Entry, None] = OrderedDict()
        self._queue_bytes = 0
        self._queue_goal_bytes = 0.0
        self._ghosts = ghosts if ghosts is not None else Ghosts()
        self._turn = 0
        self._clock = 0.0
        self._cost_sum_s = 0.0
        self._costs = 0
        self._max_bytes = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead + len(self._queue)

    @property
    def name(self) -> str:
        """The name of the member of the family that it is."""
        return self._params.name

    @property
    def params(self) -> GdsfParams:
        """How it ranks."""
        return self._params

    def become(self, params: GdsfParams) -> None:
        """Rank like another member of the family from now on. Entries get their new rank when their turn comes."""
        self._params = params
        self.resized(self._max_bytes)

    def admitted(self, entry: Entry) -> None:
        """Rank a new entry, or let it wait for its second use."""
        cost_s = entry.cost_s
        if cost_s > 0.0:
            self._learn_cost(cost_s)
        if entry.uses:
            self.adopt(entry)
            return
        params = self._params
        known = self._ghosts.recall(entry.mark or mark(entry)) if params.ghost_ratio else 0
        if known:
            entry.rank = 1.0 + known * _GHOST_SHARE
        elif params.queue_ratio:
            entry.rank = 1.0
            entry.place = queue = self._queue
            queue[entry] = None
            self._queue_bytes += entry.size_bytes
            return
        else:
            entry.rank = params.newcomer
        self._push(entry)

    def adopt(self, entry: Entry) -> None:
        """Rank an entry of which only its uses are known."""
        entry.rank = 1.0 + min(entry.uses, _MAX_KNOWN_USES)
        self._push(entry)

    def owns(self, entry: Entry) -> bool:
        """Return whether a live entry is kept here or in another one of the family."""
        return type(entry.place) is list or entry.place is self._queue

    def hand_over(self) -> None:
        """Have entries that are evicted from now on not remembered: another policy takes them."""
        self._ghosts = NOWHERE

    def touched(self, entries: Sequence[Entry]) -> None:
        """Do nothing: uses are looked at when an entry's turn comes."""

    def removed(self, entry: Entry) -> None:
        """Forget an entry."""
        place = entry.place
        if place is self._queue:
            del place[entry]
            self._queue_bytes -= entry.size_bytes
            return
        place[2] = None
        self._dead += 1
        if self._dead * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2] is not None]
            heapify(self._heap)
            self._dead = 0

    def evict(self) -> Entry:
        """Return the entry of least rank and forget it; hits since its last ranking give it a new one first.

        Raises:
            KeyError: there is none.
        """
        if self._queue and (found := self._pop_queue()) is not None:
            return found
        heap, decay = self._heap, self._params.decay
        steps = 0
        while heap:
            rank, _, entry, seen = item = heap[0]
            if entry is None:
                heappop(heap)
                self._dead -= 1
                continue
            self._clock = rank
            uses = entry.uses
            if uses <= seen or steps >= _MAX_STEPS:
                heappop(heap)
                entry.place = None  # else the two would hold each other
                self._remember(entry)
                return entry  # type: ignore[no-any-return]
            steps += 1
            entry.rank = entry.rank * decay + (uses - seen)
            self._turn = turn = self._turn + 1
            item[0] = rank + self._worth(entry)
            item[1] = turn
            item[3] = uses
            heapreplace(heap, item)
        if self._queue:
            return self._leave_queue()
        raise KeyError("no entry to evict")

    def resized(self, max_bytes: int) -> None:
        """Give the queue and the ghosts their share of the new bound."""
        self._max_bytes = max_bytes
        self._queue_goal_bytes = max_bytes * self._params.queue_ratio
        if not self._is_sharing:
            self._ghosts.resize(max_bytes * self._params.ghost_ratio)

    def get_stats(self) -> dict[str, object]:
        """Return the policy's name and how many entries it keeps."""
        return {"policy": self.name, "entries": len(self), "waiting": len(self._queue)}

    def _pop_queue(self) -> Entry | None:
        queue = self._queue
        while queue and self._queue_bytes >= self._queue_goal_bytes:
            entry = next(iter(queue))
            if not entry.uses:
                return self._leave_queue()
            del queue[entry]
            self._queue_bytes -= entry.size_bytes
            entry.rank += entry.uses
            self._push(entry)
        return None

    def _leave_queue(self) -> Entry:
        entry = self._queue.popitem(last=False)[0]
        self._queue_bytes -= entry.size_bytes
        self._remember(entry)
        return entry

    def _remember(self, entry: Entry) -> None:
        ratio = _SHARED_RATIO if self._is_sharing else self._params.ghost_ratio
        if ratio:
            if not entry.mark:
                mark(entry)
            if self._ghosts.keep(entry, figure_of(entry.rank)):
                self._ghosts.turn_over(ratio * len(self))

    def _push(self, entry: Entry) -> None:
        self._turn = turn = self._turn + 1
        entry.place = item = [self._clock + self._worth(entry), turn, entry, entry.uses]
        heappush(self._heap, item)

    def _worth(self, entry: Entry) -> float:
        params = self._params
        worth = entry.rank
        size_bytes = entry.size_bytes
        if size_bytes > 1:
            worth /= size_bytes if params.size_exponent == 1.0 else size_bytes**params.size_exponent
        if self._costs and entry.cost_s > 0.0 and params.cost_exponent:
            mean_s = self._cost_sum_s / self._costs
            worth *= ((entry.cost_s + _NOISE_S) / (mean_s + _NOISE_S)) ** params.cost_exponent
        return worth

    def _learn_cost(self, cost_s: float) -> None:
        self._cost_sum_s += cost_s
        self._costs += 1
        if self._costs >= _FORGET_COSTS_AFTER:
            self._cost_sum_s /= 2
            self._costs //= 2
