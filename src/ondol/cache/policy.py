"""decision: which entry leaves when the cache is full: the protocol of a policy, and least recently used."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

__all__ = ["EvictionPolicy", "LruPolicy"]


class EvictionPolicy(Protocol):
    """Is told what happens to entries and names the one to evict next.

    Thread-safety: none needed; the tier that owns it calls it under its lock.
    """

    def admitted(self, key: str, size_bytes: int, cost_s: float) -> None:
        """Take note of a new entry: its bytes, and the seconds that computing it took (0 when unknown)."""
        ...

    def touched(self, key: str) -> None:
        """Take note of a hit; lies on the hot path."""
        ...

    def removed(self, key: str) -> None:
        """Forget an entry that left, by eviction or otherwise."""
        ...

    def victim(self) -> str:
        """Return the key of the entry to evict next; it stays until ``removed`` is called.

        Raises:
            KeyError: there is none.
        """
        ...


class LruPolicy:
    """Evicts the entry that has not been used for the longest time.

    Cost: O(1) each.
    """

    __slots__ = ("_order",)

    def __init__(self) -> None:
        """Begin without entries."""
        self._order: OrderedDict[str, None] = OrderedDict()

    def admitted(self, key: str, size_bytes: int, cost_s: float) -> None:  # noqa: ARG002  # the protocol's; recency alone decides here
        """Put a new entry at the young end."""
        self._order[key] = None

    def touched(self, key: str) -> None:
        """Move a used entry to the young end."""
        self._order.move_to_end(key)

    def removed(self, key: str) -> None:
        """Forget an entry."""
        del self._order[key]

    def victim(self) -> str:
        """Return the oldest entry.

        Raises:
            KeyError: there is none.
        """
        try:
            return next(iter(self._order))
        except StopIteration:
            raise KeyError("no entry to evict") from None
