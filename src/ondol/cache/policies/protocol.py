"""decision: what the memory tier asks of a policy: which entry leaves when the cache is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.entry import Entry

__all__ = ["EvictionPolicy"]


class EvictionPolicy(Protocol):
    """Is told what happens to entries and names the one to evict next.

    Thread-safety: none needed; the tier that owns it calls it under its lock.
    """

    def admitted(self, entry: Entry) -> None:
        """Take note of a new entry. ``entry.uses`` is above 0 when it takes the place of one under the same key."""
        ...

    def touched(self, entries: Sequence[Entry]) -> None:
        """Take note of hits of tracked entries (see ``Entry.track``) in their order, some time after they happened.

        ``entry.uses`` counts the hits of every entry already, at once and whether it is tracked or not; a policy that
        can do with this count leaves most entries untracked, which keeps it off the hot path. Entries that have left
        meanwhile (``is_live`` is false) are among them and must be passed over.
        """
        ...

    def removed(self, entry: Entry) -> None:
        """Forget an entry that left for another reason than ``evict``."""
        ...

    def evict(self) -> Entry:
        """Return the entry that leaves now, and forget it.

        Raises:
            KeyError: there is none.
        """
        ...

    def resized(self, max_bytes: int) -> None:
        """Take note of the tier's bound, once at first and then when it is changed."""
        ...

    def get_stats(self) -> dict[str, object]:
        """Return the policy's own figures as plain values; at least its ``policy`` (name)."""
        ...
