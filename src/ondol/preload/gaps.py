"""decision: how long a model rests between two uses: a decayed histogram, and what it says of the next use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EDGES_S", "LAST_BIN", "STEPS", "GapHistogram", "GapPrior", "bin_of", "is_figure", "octave_of"]

STEPS: Final = 8
"""Bins of an octave: each is 9 % wide, so that a timer of 15 minutes is known to 80 seconds."""
OCTAVES: Final = 21
"""Up to 24 days; what is longer counts as that."""
LAST_BIN: Final = STEPS * OCTAVES
EDGES_S: Final = (0.0, *(2.0 ** (step / STEPS) for step in range(LAST_BIN + 2)))
"""Bin ``b`` holds gaps from ``EDGES_S[b]`` up to ``EDGES_S[b + 1]`` seconds; the first all below one second."""

KEPT_SHARE: Final = 0.95
"""Of the weight of a gap when the next one is noted: the last 20 or so decide."""
MOST_BINS: Final = 24
_RENORMALISE_AT: Final = 1e9
_LARGEST_FIGURE: Final = 1e12


def bin_of(gap_s: float) -> int:
    """Return the bin of a gap.

    >>> bin_of(0.5), bin_of(1.0), bin_of(60.0), bin_of(1e12) == LAST_BIN
    (0, 1, 48, True)
    """
    return 0 if gap_s < 1.0 else min(LAST_BIN, int(STEPS * math.log2(gap_s)) + 1)


def is_figure(number: object) -> bool:
    """Tell whether something read is a number that figures here can be: from 0 to 1e12."""
    return isinstance(number, int | float) and not isinstance(number, bool) and 0.0 <= number <= _LARGEST_FIGURE


class GapHistogram:
    """The gaps of one model, older ones counting less. At most ``MOST_BINS`` bins are kept, the heaviest.

    Instead of decaying every bin with each gap, the unit that the next gap counts grows. Cost: constant.
    """

    __slots__ = ("_unit", "_weights")

    def __init__(self) -> None:
        """Begin without any."""
        self._weights: dict[int, float] = {}
        self._unit = 1.0

    def note(self, gap_bin: int) -> None:
        """Count a gap."""
        weights = self._weights
        self._unit /= KEPT_SHARE
        weights[gap_bin] = weights.get(gap_bin, 0.0) + self._unit
        if len(weights) > MOST_BINS:
            del weights[min(weights, key=weights.__getitem__)]
        if self._unit > _RENORMALISE_AT:
            self._renormalise()

    def _renormalise(self) -> None:
        self._weights = {gap_bin: weight / self._unit for gap_bin, weight in self._weights.items()}
        self._unit = 1.0

    def bins(self) -> list[tuple[int, float]]:
        """Return the bins in their order, each with how many gaps of late it stands for."""
        unit = self._unit
        return [(gap_bin, weight / unit) for gap_bin, weight in sorted(self._weights.items())]

    def to_plain(self) -> list[Any]:
        """Return it as numbers: bin and weight by turns."""
        return [number for gap_bin, weight in self.bins() for number in (gap_bin, round(weight, 2))]

    @classmethod
    def from_plain(cls, plain: Any) -> GapHistogram:
        """Return the histogram that ``to_plain`` was called on.

        Raises:
            ValueError: it is damaged.
        """
        message = f"a histogram of gaps is damaged: {str(plain)[:80]}"
        if not isinstance(plain, list) or len(plain) % 2 or len(plain) > 2 * MOST_BINS:
            raise ValueError(message)
        found = cls()
        for gap_bin, weight in zip(plain[::2], plain[1::2], strict=True):
            is_bin = type(gap_bin) is int and 0 <= gap_bin <= LAST_BIN
            if not is_bin or not is_figure(weight) or weight >= _RENORMALISE_AT:
                raise ValueError(message)
            found._weights[gap_bin] = float(weight)
        return found


class GapPrior:
    """What is known of gaps before a model has shown its own: those of all models, by how often each had been used.

    A model's first gap is unlike its tenth: many models are used once and never again. So there is one histogram (in
    whole octaves) for the first gap, the second, and all later ones; a gap that has not ended weighs in its class as
    one that may be endless.
    """

    CLASSES: Final = 3
    _REFRESH_EVERY: Final = 256

    __slots__ = ("_begun", "_cumulative", "_ended", "_notes")

    def __init__(self) -> None:
        """Begin with next to no opinion."""
        self._ended = [[0.01] * (OCTAVES + 1) for _ in range(self.CLASSES)]
        self._begun = [1.0] * self.CLASSES
        self._notes = 0
        self._cumulative: list[list[float] | None] = [None] * self.CLASSES

    def begin(self, use_count: int) -> None:
        """Count a gap that begins with a model's ``use_count``-th use."""
        self._begun[min(use_count, self.CLASSES) - 1] += 1.0

    def end(self, use_count: int, gap_bin: int) -> None:
        """Count the end of a gap that began with the ``use_count``-th use."""
        self._ended[min(use_count, self.CLASSES) - 1][octave_of(gap_bin)] += 1.0
        self._notes += 1
        if self._notes % self._REFRESH_EVERY == 0 or self._notes < self._REFRESH_EVERY:
            self._cumulative = [None] * self.CLASSES

    def masses(self, use_count: int) -> list[float]:
        """Return the probability of each octave for the gap after the ``use_count``-th use; the rest is "never"."""
        index = min(use_count, self.CLASSES) - 1
        known = self._cumulative[index]
        if known is None:
            begun = max(self._begun[index], sum(self._ended[index]))
            known = self._cumulative[index] = [ended / begun for ended in self._ended[index]]
        return known

    def to_plain(self) -> list[Any]:
        """Return it as numbers."""
        return [[round(begun, 2), *(round(number, 2) for number in ended)] for begun, ended in self._pairs()]

    def _pairs(self) -> Iterable[tuple[float, list[float]]]:
        return zip(self._begun, self._ended, strict=True)

    @classmethod
    def from_plain(cls, plain: Any) -> GapPrior:
        """Return the prior that ``to_plain`` was called on.

        Raises:
            ValueError: it is damaged.
        """
        found = cls()
        message = f"the common gaps are damaged: {str(plain)[:80]}"
        if not isinstance(plain, list) or len(plain) != cls.CLASSES:
            raise ValueError(message)
        for index, row in enumerate(plain):
            if not isinstance(row, list) or len(row) != OCTAVES + 2:
                raise ValueError(message)
            if not all(map(is_figure, row)) or not any(row):
                raise ValueError(message)
            found._begun[index], found._ended[index] = float(row[0]), [float(number) for number in row[1:]]
        return found


def octave_of(gap_bin: int) -> int:
    """Return the octave of a bin: 0 is below one second, 1 from there to two seconds, and so on."""
    return 0 if gap_bin == 0 else min(OCTAVES, (gap_bin - 1) // STEPS + 1)
