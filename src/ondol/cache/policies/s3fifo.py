"""decision: S3-FIFO: a small queue keeps what is used only once away from the main one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ondol.cache.policies.ghosts import NOWHERE, Ghosts, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.entry import Entry

__all__ = ["S3FifoPolicy"]

_SMALL_RATIO: Final = 0.1
_GHOST_RATIO: Final = 1.5
"""Remembered bytes, in parts of the bound; as the memory forgets by halves, between half of it and all of it."""
_SHARED_RATIO: Final = 3.0
"""The same of a memory that is shared with others; the younger half of it is looked at here."""
_MAX_ROUNDS: Final = 3
_MAX_STEPS: Final = 1000
"""Used entries that one eviction queues again before it takes the next in turn."""


class S3FifoPolicy:
    """Evicts from a small queue what was not used again while it was in it, else from the main one.

    New entries go through the small queue, a tenth of the bytes; used again, they go on to the main queue, else they
    leave and only their hashes are remembered. Who comes back while remembered goes to the main queue at once. There
    an entry gets another round for each of its hits, three at most. The queues are bounded in bytes.

    Cost: O(1) amortised; hits cost nothing.

    Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. One hit in the small queue is
    enough here (there two by default), which suits byte-bounded caches of few entries better.
    """

    __slots__ = ("_ghost_ratio", "_ghosts", "_main", "_recall", "_small", "_small_bytes", "_small_goal_bytes")

    name = "s3fifo"

    def __init__(self, ghosts: Ghosts | None = None) -> None:
        """Begin without entries; ``ghosts`` are shared with others, who bound them at twice of what is needed here."""
        self._small: OrderedDict[Entry, None] = OrderedDict()
        self._main: OrderedDict[Entry, None] = OrderedDict()
        self._ghost_ratio = _GHOST_RATIO if ghosts is None else _SHARED_RATIO
        self._ghosts = Ghosts() if ghosts is None else ghosts
        self._recall = self._ghosts.recall if ghosts is None else self._ghosts.recall_lately
        self._small_bytes = 0
        self._small_goal_bytes = 0.0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def admitted(self, entry: Entry) -> None:
        """Put a new entry into the small queue, or into the main one when its key is known."""
        hashed = entry.mark or mark(entry)
        if entry.uses or self._recall(hashed):
            self.adopt(entry)
            return
        entry.place = small = self._small
        small[entry] = None
        self._small_bytes += entry.size_bytes

    def adopt(self, entry: Entry) -> None:
        """Put an entry into the main queue."""
        entry.rank = entry.uses  # as it was when queued
        entry.place = main = self._main
        main[entry] = None

    def owns(self, entry: Entry) -> bool:
        """Return whether a live entry is in one of the queues."""
        return entry.place is self._main or entry.place is self._small

    def hand_over(self) -> None:
        """Have entries that are evicted from now on not remembered: another policy takes them."""
        self._ghosts = NOWHERE

    def touched(self, entries: Sequence[Entry]) -> None:
        """Do nothing: uses are looked at when an entry's turn comes."""

    def removed(self, entry: Entry) -> None:
        """Forget an entry."""
        del entry.place[entry]
        if entry.place is self._small:
            self._small_bytes -= entry.size_bytes

    def evict(self) -> Entry:
        """Return the entry whose turn it is and that was not used since it was queued, and forget it.

        Raises:
            KeyError: there is none.
        """
        small, main = self._small, self._main
        for _ in range(_MAX_STEPS):
            if small and (self._small_bytes >= self._small_goal_bytes or not main):
                entry = small.popitem(last=False)[0]
                self._small_bytes -= entry.size_bytes
                if not entry.uses:
                    if self._ghosts.keep(entry, 1):
                        self._ghosts.turn_over(self._ghost_ratio * len(self))
                    return entry
                self.adopt(entry)
            else:
                entry = main.popitem(last=False)[0]
                uses = entry.uses
                rounds = uses - entry.rank
                if rounds <= 0:
                    break
                entry.rank = uses + 1 - min(rounds, _MAX_ROUNDS)
                main[entry] = None
        else:
            entry = main.popitem(last=False)[0]
        return entry

    def resized(self, max_bytes: int) -> None:
        """Give the small queue and the ghosts their share of the new bound."""
        self._small_goal_bytes = max_bytes * _SMALL_RATIO
        if self._ghost_ratio == _GHOST_RATIO:
            self._ghosts.resize(max_bytes * _GHOST_RATIO)

    def get_stats(self) -> dict[str, object]:
        """Return the policy's name and how many entries it keeps."""
        return {"policy": self.name, "entries": len(self), "waiting": len(self._small)}
