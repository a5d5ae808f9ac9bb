"""decision: the entries of each name, and what is counted for it; bounded in how many names are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.keys import tail_text
from ondol.units import Percent

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from ondol.cache.entry import Entry
    from ondol.cache.partition import Partition

__all__ = ["MAX_NAMES", "OTHER_NAMES", "Figures", "Shelf", "Shelves"]

MAX_NAMES: Final = 256
"""Names that have figures of their own; the others share one account."""

OTHER_NAMES: Final = "(other names)"


class Figures:
    """What is counted for a name. Whole numbers, but for the seconds."""

    __slots__ = ("hits", "lower_hits", "misses", "saved_s")

    def __init__(self) -> None:
        self.hits = 0
        """Answered from memory."""
        self.lower_hits = 0
        """Answered by a tier below the memory."""
        self.misses = 0
        self.saved_s = 0.0

    def add(self, other: Figures) -> None:
        """Add another's."""
        self.hits += other.hits
        self.lower_hits += other.lower_hits
        self.misses += other.misses
        self.saved_s += other.saved_s

    def as_plain(self) -> dict[str, Any]:
        """Return them as plain values; ``hits`` are those of all tiers."""
        hits = self.hits + self.lower_hits
        return {
            "hits": hits,
            "misses": self.misses,
            "hit_rate": Percent.of(hits, hits + self.misses),
            "saved_seconds": self.saved_s,
        }


class Shelf(Figures):
    """The entries of one name by their keys, which :func:`ondol.cache.keys.shelf_key` makes."""

    __slots__ = (
        "entries",
        "has_warned",
        "is_indexed",
        "is_named",
        "is_simple",
        "name",
        "partition",
        "segments",
        "used_bytes",
    )

    def __init__(self, name: str, partition: Partition, *, is_named: bool) -> None:
        super().__init__()
        self.name = name
        self.partition = partition
        self.entries: dict[Hashable, Entry] = {}
        self.used_bytes = 0
        self.is_named = is_named
        """Whether its figures are shown under its own name."""
        self.is_simple = False
        """Whether entries come and go with nothing to do for the shelf: no quota, no index, no end of its own."""
        self.has_warned = False
        self.is_indexed = False
        """Whether ``segments`` holds all entries; while the index is made it holds some."""
        self.segments: dict[str, set[Entry]] | None = None
        """The entries by the first word of their readable key after the name, once a pattern asked for that."""
        self.settle()

    def settle(self) -> None:
        """Work out ``is_simple`` after ``partition`` or ``segments`` was changed."""
        self.is_simple = self.is_named and self.partition.is_shared and self.segments is None

    def index(self, entry: Entry) -> None:
        """Add an entry to the index by first words, where there is one."""
        if self.segments is not None:
            self.segments.setdefault(_first_segment(entry), set()).add(entry)

    def unindex(self, entry: Entry) -> None:
        """Take an entry out of it; while the index is made it need not be there."""
        if self.segments is not None:
            segment = _first_segment(entry)
            held = self.segments.get(segment)
            if held is not None:
                held.discard(entry)
                if not held:
                    del self.segments[segment]


class Shelves:
    """The shelves of all names that are in use, and the figures of those that were."""

    __slots__ = ("_named", "_partition_of", "by_name", "gone")

    def __init__(self, partition_of: dict[str, Partition], shared: Partition) -> None:
        """Begin empty; entries of a name are evicted by its own partition, or by ``shared``."""
        self._partition_of = (partition_of, shared)
        self._named = 0
        self.by_name: dict[str, Shelf] = {}
        self.gone = Figures()
        """Of names beyond the first ``MAX_NAMES`` that have no entries any more."""

    def open(self, name: str) -> Shelf:
        """Return the shelf of ``name``, made when there is none."""
        shelf = self.by_name.get(name)
        if shelf is None:
            own, shared = self._partition_of
            is_named = self._named < MAX_NAMES
            self._named += is_named
            shelf = self.by_name[name] = Shelf(name, own.get(name, shared), is_named=is_named)
        return shelf

    def figures(self, name: str) -> Figures:
        """Return where lookups of ``name`` are counted."""
        shelf = self.by_name.get(name)
        if shelf is not None:
            return shelf
        return self.open(name) if self._named < MAX_NAMES else self.gone

    def close_if_empty(self, shelf: Shelf) -> bool:
        """Forget a shelf without entries whose figures are not shown by name; return whether it went."""
        if shelf.is_named or shelf.entries or self.by_name.get(shelf.name) is not shelf:
            return False
        del self.by_name[shelf.name]
        self.gone.add(shelf)
        return True

    def __iter__(self) -> Iterator[Shelf]:
        """Iterate over all shelves."""
        return iter(self.by_name.values())

    def totals(self) -> Figures:
        """Return the figures of all names together."""
        total = Figures()
        total.add(self.gone)
        for shelf in self.by_name.values():
            total.add(shelf)
        return total

    def as_plain(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each name, and of the others together where there are any."""
        figures: dict[str, dict[str, Any]] = {}
        other, entries, used_bytes = Figures(), 0, 0
        other.add(self.gone)
        for shelf in self.by_name.values():
            if shelf.is_named:
                held = {"entries": len(shelf.entries), "used_bytes": shelf.used_bytes}
                figures[shelf.name] = shelf.as_plain() | held
            else:
                other.add(shelf)
                entries += len(shelf.entries)
                used_bytes += shelf.used_bytes
        if other.hits or other.lower_hits or other.misses or entries:
            figures[OTHER_NAMES] = other.as_plain() | {"entries": entries, "used_bytes": used_bytes}
        return figures


def _first_segment(entry: Entry) -> str:
    """Return the first word of an entry's readable key after the name."""
    return tail_text(entry.key)[1:].split(":", 1)[0]
