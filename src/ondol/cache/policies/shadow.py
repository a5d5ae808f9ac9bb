"""decision: a shadow cache: a policy run over the metadata of some keys, to see how it would do."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ondol.cache.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.policies.experts import HandoverPolicy

__all__ = ["Access", "LruShadow", "Shadow"]

Access = tuple[int, int, float]
"""An access to a key: its mark, the entry's bytes, and what computing it costs in seconds."""


class _Trace(Entry):
    """What a policy sees of an entry: no value, and its key is the mark."""

    __slots__ = ()

    def __init__(self, mark: int, size_bytes: int, cost_s: float) -> None:
        self.key = mark
        self.mark = mark or 1  # 0 stands for none
        self.size_bytes = size_bytes
        self.cost_s = cost_s
        self.is_live = True
        self.is_tracked = False
        self.uses = 0
        self.rank = 0.0
        self.place = None


class Shadow:
    """Replays accesses through a policy, with entries that have no values.

    Cost: one to three microseconds for each access.
    """

    __slots__ = ("_entries", "_max_bytes", "_used_bytes", "is_full", "policy")

    def __init__(self, policy: HandoverPolicy) -> None:
        """Begin empty, with no room before ``resize``."""
        self.policy = policy
        self._entries: dict[int, Entry] = {}
        self._used_bytes = 0
        self._max_bytes = 0
        self.is_full = False
        """Whether an entry had to leave for another one."""

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, max_bytes: int) -> None:
        """Set the bound and evict what no longer fits."""
        self._max_bytes = max_bytes
        self.policy.resized(max_bytes)
        self._make_room(max_bytes)

    def replay(self, accesses: Sequence[Access]) -> tuple[int, float]:
        """Replay accesses in their order; return the hits, and the seconds that they saved."""
        entries, policy = self._entries, self.policy
        hits, saved_s = 0, 0.0
        for key, size_bytes, cost_s in accesses:
            entry = entries.get(key)
            if entry is not None:
                hits += 1
                saved_s += cost_s
                entry.uses += 1
                if entry.is_tracked:
                    policy.touched((entry,))
            elif size_bytes <= self._max_bytes:
                if self._used_bytes + size_bytes > self._max_bytes:
                    self._make_room(self._max_bytes - size_bytes)
                entries[key] = entry = _Trace(key, size_bytes, cost_s)
                self._used_bytes += size_bytes
                policy.admitted(entry)
        return hits, saved_s

    def thin(self, bound: int) -> None:
        """Drop the entries whose hash is not below ``bound``."""
        for entry in [entry for key, entry in self._entries.items() if key >= bound]:
            self.policy.removed(entry)
            self._forget(entry)

    def _make_room(self, goal_bytes: int) -> None:
        while self._used_bytes > goal_bytes:
            self.is_full = True
            self._forget(self.policy.evict())

    def _forget(self, entry: Entry) -> None:
        entry.is_live = False
        self._used_bytes -= entry.size_bytes
        del self._entries[entry.key]  # type: ignore[arg-type]


class LruShadow:
    """A shadow cache of LRU, for which an order of marks and their bytes is enough.

    Cost: a quarter of what the general one takes.
    """

    __slots__ = ("_max_bytes", "_order", "_used_bytes", "is_full")

    def __init__(self) -> None:
        """Begin empty, with no room before ``resize``."""
        self._order: OrderedDict[int, int] = OrderedDict()
        self._used_bytes = 0
        self._max_bytes = 0
        self.is_full = False
        """Whether an entry had to leave for another one."""

    def __len__(self) -> int:
        return len(self._order)

    def resize(self, max_bytes: int) -> None:
        """Set the bound and evict what no longer fits."""
        self._max_bytes = max_bytes
        self._make_room()

    def replay(self, accesses: Sequence[Access]) -> tuple[int, float]:
        """Replay accesses in their order; return the hits, and the seconds that they saved."""
        order, move_to_end = self._order, self._order.move_to_end
        hits, saved_s = 0, 0.0
        for key, size_bytes, cost_s in accesses:
            if key in order:
                hits += 1
                saved_s += cost_s
                move_to_end(key)
            elif size_bytes <= self._max_bytes:
                order[key] = size_bytes
                self._used_bytes += size_bytes
                if self._used_bytes > self._max_bytes:
                    self._make_room()
        return hits, saved_s

    def thin(self, bound: int) -> None:
        """Drop the entries whose hash is not below ``bound``."""
        for key in [key for key in self._order if key >= bound]:
            self._used_bytes -= self._order.pop(key)

    def _make_room(self) -> None:
        while self._used_bytes > self._max_bytes:
            self.is_full = True
            self._used_bytes -= self._order.popitem(last=False)[1]
