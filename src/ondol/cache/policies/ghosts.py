"""decision: a memory of entries that left, in a few bytes each: how often they were used, by their marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from ondol.cache.entry import Entry

__all__ = ["NOWHERE", "SALTS", "Ghosts", "figure_of", "mark"]

_CELLS_PER_GHOST: Final = 8
_MIN_GHOSTS: Final = 64
_MAX_FIGURE: Final = 15
_MAX_SALTS: Final = 1024


class _Salts(dict[str, int]):
    """A number for each name, the same in every process; a bounded number of them is kept."""

    def __missing__(self, name: str) -> int:
        if len(self) >= _MAX_SALTS:
            self.clear()
        salt = self[name] = crc32(name.encode("utf-8", "surrogatepass"))
        return salt


SALTS: Final = _Salts()
"""By a shelf's name; what is in it is a matter of time only."""


def mark(entry: Entry) -> int:
    """Hash an entry's key and name, keep the result as the entry's mark, and return it.

    The third part mixes once more: places in tables of bytes are taken from the lower bits.
    """
    entry.mark = hashed = hash((entry.key, SALTS[entry.shelf.name], 0))
    return hashed


class Ghosts:
    """Remembers a small figure for each of the entries that left lately, in two tables of bytes.

    One table fills, the other is the one that was filled before; when the entries in the first stood for half of
    the bytes to be remembered, it takes the other's place and an empty one begins. A figure lies in one cell beside
    four bits of the mark, so that of the keys that never were here less than 1 % seem to have been.

    Cost: O(1), and 16 to 32 bytes for each entry of half the bytes to be remembered.
    """

    __slots__ = ("_bytes", "_count", "_full", "_goal_bytes", "_goal_count", "_mask", "_open")

    def __init__(self) -> None:
        """Begin with nothing to remember."""
        self._open = bytearray(_MIN_GHOSTS * _CELLS_PER_GHOST)
        self._mask = len(self._open) - 1
        self._full = self._open
        self._bytes = 0
        self._count = 0
        self._goal_bytes = 0.0
        self._goal_count = _MIN_GHOSTS

    def resize(self, remembered_bytes: float) -> None:
        """Set the bytes of the entries to be remembered."""
        self._goal_bytes = remembered_bytes / 2

    def keep(self, entry: Entry, figure: int) -> bool:
        """Remember ``figure``, from 1 to 15, for an entry that leaves and has its mark.

        Returns:
            Whether the table is full: then ``turn_over`` is to be called.
        """
        hashed = entry.mark
        self._open[hashed & self._mask] = (hashed >> 36 & 0xF0) | figure
        self._bytes += entry.size_bytes
        self._count += 1
        return self._bytes > self._goal_bytes or self._count > self._goal_count

    def recall(self, hashed: int) -> int:
        """Return the figure of an entry that comes back, by its mark, and forget it; 0 for an unknown one."""
        cells, place = self._open, hashed & self._mask
        cell = cells[place]
        if not cell or (cell ^ hashed >> 36) & 0xF0:
            cells = self._full
            place = hashed & len(cells) - 1
            cell = cells[place]
            if not cell or (cell ^ hashed >> 36) & 0xF0:
                return 0
        cells[place] = 0
        return cell & _MAX_FIGURE

    def recall_lately(self, hashed: int) -> int:
        """Do what ``recall`` does for an entry that left not long ago, half as long at most."""
        place = hashed & self._mask
        cell = self._open[place]
        if not cell or (cell ^ hashed >> 36) & 0xF0:
            return 0
        self._open[place] = 0
        return cell & _MAX_FIGURE

    @property
    def used_bytes(self) -> int:
        """The bytes of both tables."""
        return len(self._open) + (len(self._full) if self._full is not self._open else 0)

    def turn_over(self, expected_count: float) -> None:
        """Begin a new table, when about ``expected_count`` entries make up the bytes to be remembered."""
        self._full = self._open
        self._goal_count = max(int(expected_count / 2), _MIN_GHOSTS)
        self._open = bytearray(1 << (self._goal_count * _CELLS_PER_GHOST - 1).bit_length())
        self._mask = len(self._open) - 1
        self._bytes = self._count = 0


class _Nowhere(Ghosts):
    """Forgets at once what it is given."""

    __slots__ = ()

    def keep(self, entry: Entry, figure: int) -> bool:  # noqa: ARG002  # as in the class above
        return False


NOWHERE: Final = _Nowhere()
"""For a policy whose entries go to another one, and are no ghosts."""


def figure_of(frequency: float) -> int:
    """Return the figure that stands for a frequency."""
    return max(1, min(round(frequency), _MAX_FIGURE))
