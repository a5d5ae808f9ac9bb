"""decision: a memory of entries that left, in a few bytes each: how often they were used, by their hashes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from ondol.cache.entry import Entry

__all__ = ["Ghosts", "figure_of", "salt_of"]

_CELLS_PER_GHOST: Final = 8
_MIN_GHOSTS: Final = 64
_MAX_FIGURE: Final = 255


class Ghosts:
    """Remembers a small figure for each of the entries that left lately, in two tables of bytes.

    One table fills, the other is the one that was filled before; when the entries in the first stood for half of
    the bytes to be remembered, it takes the other's place and an empty one begins. A figure lies in two cells of its
    table and the lesser counts, so that of the keys that never were here about 2 % seem to have been.

    Cost: O(1), and 16 to 32 bytes for each entry of half the bytes to be remembered.
    """

    __slots__ = ("_bytes", "_count", "_full", "_goal_bytes", "_goal_count", "_open")

    def __init__(self) -> None:
        """Begin with nothing to remember."""
        self._open = bytearray(_MIN_GHOSTS * _CELLS_PER_GHOST)
        self._full = self._open
        self._bytes = 0
        self._count = 0
        self._goal_bytes = 0.0
        self._goal_count = _MIN_GHOSTS

    def resize(self, remembered_bytes: float) -> None:
        """Set the bytes of the entries to be remembered."""
        self._goal_bytes = remembered_bytes / 2

    def keep(self, entry: Entry, figure: int, expected_count: int) -> None:
        """Remember ``figure``, from 1 to 255, for an entry that leaves.

        ``expected_count`` of such entries, about, make up the bytes to be remembered.
        """
        key = hash((entry.key, salt_of(entry.shelf.name), 0))  # the third part mixes once more
        cells = self._open
        mask = len(cells) - 1
        cells[key & mask] = cells[key >> 32 & mask] = figure
        self._bytes += entry.size_bytes
        self._count += 1
        if self._bytes > self._goal_bytes or self._count > self._goal_count:
            self._turn_over(expected_count // 2)

    def recall(self, entry: Entry) -> int:
        """Return the figure of an entry that comes back, and forget it; 0 for an unknown one."""
        return self.recall_lately(entry) or self._take(self._full, entry)

    def recall_lately(self, entry: Entry) -> int:
        """Do what ``recall`` does for an entry that left not long ago, half as long at most."""
        return self._take(self._open, entry)

    @staticmethod
    def _take(cells: bytearray, entry: Entry) -> int:
        key = hash((entry.key, salt_of(entry.shelf.name), 0))  # the third part mixes once more
        mask = len(cells) - 1
        figure = min(cells[key & mask], cells[key >> 32 & mask])
        if figure:
            cells[key & mask] = 0
        return figure

    @property
    def used_bytes(self) -> int:
        """The bytes of both tables."""
        return len(self._open) + (len(self._full) if self._full is not self._open else 0)

    def _turn_over(self, expected_count: int) -> None:
        self._full = self._open
        self._goal_count = max(expected_count, _MIN_GHOSTS)
        self._open = bytearray(1 << (self._goal_count * _CELLS_PER_GHOST - 1).bit_length())
        self._bytes = self._count = 0


def figure_of(frequency: float) -> int:
    """Return the figure that stands for a frequency."""
    return max(1, min(round(frequency), _MAX_FIGURE))


@lru_cache(maxsize=1024)
def salt_of(name: str) -> int:
    """Return a number that stands for a shelf's name, the same in every process, for hashes of keys with it."""
    return crc32(name.encode("utf-8", "surrogatepass"))
