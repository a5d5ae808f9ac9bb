"""decision: a quantile sketch: counts in narrow buckets, each quantile within 1 % of a value that was added.

Source: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees"
(VLDB 2019), for the guarantee and the merging of the buckets nearest to zero. Ours takes the buckets of
``ondol.monitor.buckets``, adds whole batches at once, and keeps exact extremes, zeros and a negative side.
"""

from __future__ import annotations

import math
import struct
import zlib
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from ondol.monitor.buckets import estimate
from ondol.monitor.lanes import EMPTY_LANES, Lanes, counts_of, pack_counts, together, unpack_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from ondol.monitor.counting import Batch

__all__ = ["MAX_BUCKETS", "Sketch"]

MAX_BUCKETS: Final = 1360
"""Most buckets of one sign: values of one sign may spread over nine decades before the finest are merged."""

_FLOAT_MAX: Final = 1.7976931348623157e308
_HEADER: Final = struct.Struct("<QQdddIIIBB?")
_MIN_COMPRESSED: Final = 64
"""Fewer bytes than this only become more when they are compressed."""

_MOST_PLAIN: Final = 1500
"""One that is still added to is compressed only from so many bytes on, for it is read and written often."""


class Sketch:
    """The figures of finite values: their count, sum, extremes and quantiles.

    When the values of one sign need more than ``MAX_BUCKETS`` buckets, those nearest to zero are merged: then only
    quantiles that fall among these lose their accuracy.

    Cost: a batch is added, or another sketch, in a few operations on long integers. Not thread-safe: its owner locks.
    """

    __slots__ = ("count", "maximum", "minimum", "negative", "positive", "total", "zeros")

    def __init__(self) -> None:
        """Begin empty."""
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.zeros = 0
        self.positive: Lanes = EMPTY_LANES
        self.negative: Lanes = EMPTY_LANES

    def add(self, batch: Batch | Sketch) -> None:
        """Count everything that ``batch`` has counted, too."""
        self.add_all((batch,))

    def add_all(self, several: Sequence[Batch | Sketch]) -> None:
        """Count everything that ``several`` have counted, too."""
        for other in several:
            self.count += other.count
            self.total += other.total
            self.zeros += other.zeros
            self.minimum = min(self.minimum, other.minimum)
            self.maximum = max(self.maximum, other.maximum)
        self.positive = together([self.positive, *(other.positive for other in several)], MAX_BUCKETS)
        self.negative = together([self.negative, *(other.negative for other in several)], MAX_BUCKETS)

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
        """How many buckets it has room for."""
        return self.positive.span + self.negative.span + (self.zeros > 0)

    def quantiles(self, ranks: Iterable[float]) -> list[float]:
        """Return the nearest-rank quantile for each of ``ranks`` (0 to 1); 0 of nothing.

        Each is within 1 % of the value of that rank: the smallest that is not below a share ``rank`` of all values.
        """
        if not self.count:
            return [0.0 for _ in ranks]
        below = list(accumulate(reversed(counts_of(self.negative)))) if self.negative.bits else [0]
        above = list(accumulate(counts_of(self.positive))) if self.positive.bits else [0]
        found = []
        for rank in ranks:
            # The margin keeps 0.07 * 100 = 7.000000000000001 at rank 7.
            wanted = max(1, math.ceil(rank * self.count - 1e-9))
            found.append(min(self.maximum, max(self.minimum, self._at(wanted, below, above))))
        return found

    def _at(self, wanted: int, below: list[int], above: list[int]) -> float:
        """Return the estimate of the value that comes as number ``wanted`` in ascending order."""
        if wanted <= below[-1]:
            return -estimate(self.negative.low + len(below) - 1 - bisect_left(below, wanted))
        if wanted <= below[-1] + self.zeros:
            return 0.0
        return estimate(self.positive.low + bisect_left(above, wanted - below[-1] - self.zeros))

    def counts_within(self, buckets: Sequence[int]) -> list[int]:
        """Return how many values there are up to and with each of ``buckets`` (ascending): cumulative counts.

        Values of zero and below count for each of them.
        """
        above = list(accumulate(counts_of(self.positive)))
        if not above:
            return [self.count] * len(buckets)
        base, low, last = self.count - above[-1], self.positive.low, len(above) - 1
        return [base + above[min(bucket - low, last)] if bucket >= low else base for bucket in buckets]

    def pack(self, *, is_final: bool) -> bytes:
        """Return it as bytes; one that is final, or large, is compressed."""
        width, positive = pack_counts(self.positive)
        negative_width, negative = pack_counts(self.negative)
        body, is_compressed = positive + negative, False
        if len(body) >= (_MIN_COMPRESSED if is_final else _MOST_PLAIN):
            shorter = zlib.compress(body, 6)
            if len(shorter) < len(body):
                body, is_compressed = shorter, True
        figures = (self.count, self.zeros, self.total, self.minimum, self.maximum)
        sides = (self.positive.low, self.negative.low, len(positive), width, negative_width, is_compressed)
        return _HEADER.pack(*figures, *sides) + body

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return the sketch that ``pack`` packed."""
        sketch = cls()
        *figures, low, negative_low, length, width, negative_width, is_compressed = _HEADER.unpack_from(packed)
        sketch.count, sketch.zeros, sketch.total, sketch.minimum, sketch.maximum = figures
        body = packed[_HEADER.size :]
        if is_compressed:
            body = zlib.decompress(body)
        if length:
            sketch.positive = unpack_counts(low, width, body[:length])
        if length < len(body):
            sketch.negative = unpack_counts(negative_low, negative_width, body[length:])
        return sketch
