"""decision: what keeping a model is worth: how often it is wanted, what loading it again costs, and its bytes."""

from __future__ import annotations

from typing import Final

__all__ = ["HALF_LIFE_S", "Use", "believed_load_s", "worth"]

HALF_LIFE_S: Final = 600.0
"""Uses count half after that long."""
_UNKNOWN_LOAD_S: Final = 1.0
_LEAST_LOAD_S: Final = 0.001


class Use:
    """How often a model is used, lately more than long ago. ``weight`` is as of ``noted_at_s``."""

    __slots__ = ("noted_at_s", "weight")

    def __init__(self) -> None:
        """Begin unused."""
        self.weight = 0.0
        self.noted_at_s: float | None = None
        """Of the last use; ``None`` before the first."""

    def note(self, now_s: float) -> None:
        """Count one use. Cost: constant; this is on the path of every lease."""
        then_s = self.noted_at_s
        if then_s is None:
            self.weight += 1.0
        else:
            self.weight = self.weight * 2.0 ** ((then_s - now_s) / HALF_LIFE_S) + 1.0
        self.noted_at_s = now_s

    def weight_at(self, now_s: float) -> float:
        """Return the number of uses as of ``now_s``, each halved every ten minutes."""
        if self.noted_at_s is None:
            return self.weight
        decayed: float = self.weight * 2.0 ** (min(0.0, self.noted_at_s - now_s) / HALF_LIFE_S)
        return decayed


def worth(rate: float, load_seconds: float | None, size_bytes: int) -> float:
    """Return the waiting that a byte of the model saves: rate of use x seconds to load it again / bytes.

    A model whose bytes are not known frees nothing that could be counted on, so it is worth keeping whatever it is.

    Source: the value of Greedy-Dual-Size-Frequency (L. Cherkasova, HPL-98-69), with a decayed rate in place of its
    running count and no inflation term: the decay ages what is not used any more.

    >>> worth(2.0, 3.0, 100) > worth(1.0, 3.0, 100) > worth(1.0, 3.0, 200)
    True
    """
    if size_bytes <= 0:
        return float("inf")
    return rate * believed_load_s(load_seconds) / size_bytes


def believed_load_s(load_seconds: float | None) -> float:
    """Return how long a load is taken to last: a second when nobody knows, and never nothing."""
    return _UNKNOWN_LOAD_S if load_seconds is None else max(load_seconds, _LEAST_LOAD_S)
