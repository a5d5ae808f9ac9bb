"""decision: a shadow cache: a policy run over the metadata of some keys, to see how it would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.policies.experts import HandoverPolicy

__all__ = ["Access", "Shadow"]

Access = tuple[int, int, float]
"""An access to a key: its hash, the entry's bytes, and what computing it costs in seconds."""


class _Shelf:
    """Stands for the shelf of all shadow entries; their keys are hashes already."""

    name = ""


_SHELF: Final[Any] = _Shelf()


class Shadow:
    """Replays accesses through a policy, with entries that have no values.

    Cost: one to three microseconds for each access.
    """

    __slots__ = ("_entries", "_max_bytes", "_used_bytes", "policy")

    def __init__(self, policy: HandoverPolicy) -> None:
        """Begin empty, with no room before ``resize``."""
        self.policy = policy
        self._entries: dict[int, Entry] = {}
        self._used_bytes = 0
        self._max_bytes = 0

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
        tracked: list[Entry] = []
        for key, size_bytes, cost_s in accesses:
            entry = entries.get(key)
            if entry is not None:
                hits += 1
                saved_s += cost_s
                entry.uses += 1
                if entry.is_tracked:
                    tracked.append(entry)
            elif size_bytes <= self._max_bytes:
                if tracked:
                    policy.touched(tracked)
                    tracked = []
                self._make_room(self._max_bytes - size_bytes)
                entries[key] = entry = Entry(key, _SHELF, None, size_bytes, cost_s)
                self._used_bytes += size_bytes
                policy.admitted(entry)
        if tracked:
            policy.touched(tracked)
        return hits, saved_s

    def thin(self, bound: int) -> None:
        """Drop the entries whose hash is not below ``bound``."""
        for entry in [entry for key, entry in self._entries.items() if key >= bound]:
            self.policy.removed(entry)
            self._forget(entry)

    def _make_room(self, goal_bytes: int) -> None:
        while self._used_bytes > goal_bytes:
            self._forget(self.policy.evict())

    def _forget(self, entry: Entry) -> None:
        entry.is_live = False
        self._used_bytes -= entry.size_bytes
        del self._entries[entry.key]  # type: ignore[arg-type]
