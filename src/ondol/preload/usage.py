"""decision: how often each model is used, lately more than long ago."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Usage", "UsageBook"]

HALF_LIFE_S: Final = 3600.0
MAX_NAMES: Final = 10_000


class Usage:
    """What is kept of one model. ``weight`` is its number of uses as of ``noted_at_s``, each halved every hour."""

    __slots__ = ("count", "last_used_wall_s", "noted_at_s", "weight")

    def __init__(self) -> None:
        """Begin unused."""
        self.count = 0
        self.weight = 0.0
        self.noted_at_s = -math.inf
        self.last_used_wall_s = 0.0

    def weight_at(self, now_s: float, half_life_s: float) -> float:
        """Return the weight decayed until ``now_s``; a clock that began anew decays nothing."""
        age_s = max(0.0, now_s - self.noted_at_s)
        return self.weight * 0.5 ** (age_s / half_life_s) if self.weight else 0.0


class UsageBook:
    """Counts and decayed rates by model name; bounded, the name not used for longest is forgotten first.

    >>> book = UsageBook(half_life_s=10.0)
    >>> for now_s in (0.0, 0.0, 10.0):
    ...     book.record("m", now_s, wall_s=1.75e9)
    >>> book.count("m"), book.rate("m", 10.0), book.rate("m", 20.0)
    (3, 2.0, 1.0)
    """

    __slots__ = ("_by_name", "_half_life_s", "_max_names")

    def __init__(self, *, half_life_s: float = HALF_LIFE_S, max_names: int = MAX_NAMES) -> None:
        """Begin with no knowledge."""
        self._by_name: dict[str, Usage] = {}
        self._half_life_s = half_life_s
        self._max_names = max_names

    def record(self, name: str, now_s: float, wall_s: float) -> None:
        """Count one use. Cost: constant."""
        usage = self._by_name.pop(name, None)
        if usage is None:
            usage = Usage()
            if len(self._by_name) >= self._max_names:
                del self._by_name[next(iter(self._by_name))]
        usage.weight = usage.weight_at(now_s, self._half_life_s) + 1.0
        usage.count += 1
        usage.noted_at_s = now_s
        usage.last_used_wall_s = wall_s
        self._by_name[name] = usage  # re-inserted at the end: the dictionary's order is the order of last use

    def count(self, name: str) -> int:
        """Return all uses counted."""
        usage = self._by_name.get(name)
        return usage.count if usage else 0

    def rate(self, name: str, now_s: float) -> float:
        """Return the decayed number of uses; 0 for a model never used."""
        usage = self._by_name.get(name)
        return usage.weight_at(now_s, self._half_life_s) if usage else 0.0

    def rows(self) -> dict[str, dict[str, float]]:
        """Return count and wall-clock time of the last use, by model."""
        return {
            name: {"count": usage.count, "last_used_at": usage.last_used_wall_s}
            for name, usage in self._by_name.items()
        }
