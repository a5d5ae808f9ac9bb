"""decision: least recently used."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ondol.cache.entry import NEVER_CALM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.entry import Entry
    from ondol.cache.policies.ghosts import Ghosts

__all__ = ["LruPolicy"]

_SHARED_RATIO: Final = 3.0
"""Bytes of entries that left and are remembered for others, in parts of the bound."""


class LruPolicy:
    """Evicts the entry that has not been used for the longest time.

    Cost: O(1) each.
    """

    __slots__ = ("_ghosts", "_order")

    name = "lru"

    def __init__(self, ghosts: Ghosts | None = None) -> None:
        """Begin without entries; ``ghosts``, if there are any, are kept for others, who give entries their marks."""
        self._ghosts = ghosts
        self._order: OrderedDict[Entry, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def admitted(self, entry: Entry) -> None:
        """Put a new entry at the young end."""
        entry.place = order = self._order
        order[entry] = None
        entry.is_tracked = True  # as Entry.track does, without the calls
        entry.calm_until_s = NEVER_CALM

    adopt = admitted

    def owns(self, entry: Entry) -> bool:
        """Return whether a live entry is kept here."""
        return entry.place is self._order

    def remember(self, ghosts: Ghosts | None) -> None:
        """Keep ghosts from now on, or none: they take half of an eviction's time, and nobody may need them."""
        self._ghosts = ghosts

    def hand_over(self) -> None:
        """Have entries that are evicted from now on not remembered: another policy takes them."""
        self._ghosts = None

    def touched(self, entries: Sequence[Entry]) -> None:
        """Move used entries to the young end; those of another policy are passed over."""
        order = self._order
        move_to_end = order.move_to_end
        for entry in entries:
            if entry.is_live and entry.place is order:
                move_to_end(entry)

    def removed(self, entry: Entry) -> None:
        """Forget an entry."""
        del self._order[entry]

    def evict(self) -> Entry:
        """Return the oldest entry and forget it.

        Raises:
            KeyError: there is none.
        """
        entry = self._order.popitem(last=False)[0]
        ghosts = self._ghosts
        if ghosts is not None and ghosts.keep(entry, 1):
            ghosts.turn_over(_SHARED_RATIO * len(self._order))
        return entry

    def resized(self, max_bytes: int) -> None:
        """Do nothing: the order does not depend on the bound."""

    def get_stats(self) -> dict[str, object]:
        """Return the policy's name and the number of its entries."""
        return {"policy": self.name, "entries": len(self._order)}
