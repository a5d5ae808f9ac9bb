"""decision: a quantile sketch: log-spaced buckets, each quantile within 1 % of a value that was added.

Source: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees"
(VLDB 2019). Ours keeps exact minimum and maximum, and a zero and a negative side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_BUCKETS", "RELATIVE_ERROR", "Sketch"]

RELATIVE_ERROR: Final = 0.0099
"""Just under 1 %, so that rounding in the logarithm keeps within it."""

MAX_BUCKETS: Final = 1024
"""Most buckets of one sign: values of one sign may spread over nearly nine decades before the finest are merged."""

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)
_PER_LOG: Final = 1 / _LOG_GAMMA
_LOG_MIDDLE: Final = math.log(2 / (_GAMMA + 1))
_LOG_MAX: Final = 709.78  # exp() of more overflows
_FLOAT_MAX: Final = 1.7976931348623157e308


class Sketch:
    """Counts finite values; tells their count, sum, extremes and quantiles.

    When the values of one sign need more than ``MAX_BUCKETS`` buckets, those nearest to zero are merged: then only
    quantiles that fall among these lose their accuracy.

    Cost: O(1) to add, O(buckets log buckets) to read. Not thread-safe: its owner locks.
    """

    __slots__ = ("_negative", "_positive", "_zeros", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        """Begin empty."""
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self._zeros = 0
        self._positive: dict[int, int] = {}
        self._negative: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Count ``value``, which must be finite."""
        self.count += 1
        self.total += value
        if value < self.minimum:  # noqa: PLR1730  # min() costs three times as much here
            self.minimum = value
        if value > self.maximum:  # noqa: PLR1730  # the same
            self.maximum = value
        if value > 0.0:
            side = self._positive
        elif value < 0.0:
            side = self._negative
            value = -value
        else:
            self._zeros += 1
            return
        key = math.ceil(math.log(value) * _PER_LOG)
        if key in side:
            side[key] += 1
        else:
            side[key] = 1
            if len(side) > MAX_BUCKETS:
                _merge_smallest(side)

    def merge(self, other: Sketch) -> None:
        """Count everything that ``other`` has counted, too."""
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self._zeros += other._zeros
        for side, theirs in ((self._positive, other._positive), (self._negative, other._negative)):
            for key, count in theirs.items():
                side[key] = side.get(key, 0) + count
            if len(side) > MAX_BUCKETS:
                _merge_smallest(side)

    @property
    def sum(self) -> float:
        """The sum, at most the largest float."""
        return max(-_FLOAT_MAX, min(_FLOAT_MAX, self.total))

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self.sum / self.count if self.count else 0.0

    @property
    def bucket_count(self) -> int:
        """How many buckets it holds."""
        return len(self._positive) + len(self._negative) + (self._zeros > 0)

    def quantiles(self, ranks: Sequence[float]) -> list[float]:
        """Return the nearest-rank quantile for each of ``ranks`` (0 to 1, ascending); 0 of nothing.

        Each is within 1 % of the value of that rank: the smallest that is not below a share ``rank`` of all values.
        """
        if not self.count:
            return [0.0] * len(ranks)
        # The margin keeps 0.07 * 100 = 7.000000000000001 at rank 7.
        wanted = [max(1, math.ceil(rank * self.count - 1e-9)) for rank in ranks]
        found: list[float] = []
        seen = 0
        for estimate, count in self._ascending():
            seen += count
            while len(found) < len(wanted) and wanted[len(found)] <= seen:
                found.append(min(self.maximum, max(self.minimum, estimate)))
        return found

    def _ascending(self) -> Iterator[tuple[float, int]]:
        for key in sorted(self._negative, reverse=True):
            yield -_estimate(key), self._negative[key]
        if self._zeros:
            yield 0.0, self._zeros
        for key in sorted(self._positive):
            yield _estimate(key), self._positive[key]


def _estimate(key: int) -> float:
    return math.exp(min(_LOG_MAX, key * _LOG_GAMMA + _LOG_MIDDLE))


def _merge_smallest(side: dict[int, int]) -> None:
    """Make room for a while: an eighth of the buckets, those of the smallest magnitudes, go into the next one."""
    keys = sorted(side)
    surplus = len(keys) - MAX_BUCKETS + MAX_BUCKETS // 8
    side[keys[surplus]] += sum(side.pop(key) for key in keys[:surplus])
