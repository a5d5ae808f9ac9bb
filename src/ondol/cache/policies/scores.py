"""decision: who does better than whom, and how sure that is: decaying sums of paired differences."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Span"]


class Span:
    """Hits and worth of each expert over some time, and how much their differences vary.

    All experts saw the same accesses, so what counts is the differences between two of them, block by block: most of
    the noise is common to both. Blocks count half after ``half_life`` accesses.

    Cost: for each block O(experts²).
    """

    __slots__ = ("_squares", "_worth", "accesses", "half_life", "hits", "saved_s")

    def __init__(self, names: Sequence[str], half_life: float) -> None:
        """Begin with nothing seen of ``names``."""
        self.half_life = half_life
        self.accesses = 0.0
        self.hits = dict.fromkeys(names, 0.0)
        self.saved_s = dict.fromkeys(names, 0.0)
        self._worth = dict.fromkeys(names, 0.0)
        self._squares = dict.fromkeys(combinations(names, 2), 0.0)

    def add(self, count: int, hits: dict[str, int], saved_s: dict[str, float], worth: dict[str, float]) -> None:
        """Add a block of ``count`` accesses: what each expert made of it."""
        decay = 0.5 ** (count / self.half_life)
        self.accesses = self.accesses * decay + count
        for name, value in worth.items():
            self.hits[name] = self.hits[name] * decay + hits[name]
            self.saved_s[name] = self.saved_s[name] * decay + saved_s[name]
            self._worth[name] = self._worth[name] * decay + value
        squares, decay = self._squares, decay * decay
        for pair, square in squares.items():
            lead = worth[pair[0]] - worth[pair[1]]
            squares[pair] = square * decay + lead * lead

    def lead(self, one: str, other: str) -> tuple[float, float]:
        """Return by how much ``one`` is worth more for each access than ``other``, and the standard error of that."""
        count = max(self.accesses, 1.0)
        square = self._squares.get((one, other)) or self._squares.get((other, one), 0.0)
        return (self._worth[one] - self._worth[other]) / count, float(square**0.5) / count
