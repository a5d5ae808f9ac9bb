"""decision: the values of one metric with one set of labels: what waits to be counted, life figures, windows."""

from __future__ import annotations

import functools
import math
import operator
from array import array
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ondol.monitor.buckets import bounds_for, bucket_of
from ondol.monitor.counting import count_batch, number_of
from ondol.monitor.sketch import Sketch
from ondol.monitor.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.monitor.counting import Batch
    from ondol.monitor.snapshots import Exemplar

__all__ = ["Series", "buckets_within"]


class Series:
    """One series. Values are put into ``pending``, by whoever measures, and counted later, all at once.

    Appending to ``pending`` needs no lock; everything else belongs to who owns the series, under a lock.
    """

    __slots__ = (
        *(
            "at_s",
            "count",
            "first_at_s",
            "is_bound",
            "is_watched",
            "key_count",
            "last",
            "last_at_s",
            "maximum",
            "minimum",
            "pending",
            "total",
        ),
        *("_counts", "_exemplars", "version", "windows"),
    )

    def __init__(self) -> None:
        """Begin empty."""
        self.pending: list[float] = []
        self.at_s = 0.0
        """When the newest pending value came, as far as its recorder said so."""
        self.is_bound = False
        """Whether somebody holds ``pending.append`` itself, and so says no times."""
        self.is_watched = False
        """Whether whoever looks after its monitor looks how much waits."""
        self.key_count = 0
        """How many ways to find it are remembered."""
        self.last = 0.0
        self.last_at_s: float | None = None
        self.first_at_s: float | None = None
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.version = 0
        """Another number after each change."""
        self.windows = Windows()
        self._counts: array[int] = array("Q")
        self._exemplars: dict[int, Exemplar] = {}

    def fold(self, unit: str | None, now_s: float) -> int:
        """Count what is pending; return how many things in it were no finite numbers and left out.

        Args:
            unit: of the metric; tells the buckets that exporters show. ``None``: they show none.
            now_s: the time of values whose recorder said none.
        """
        pending = self.pending
        values = pending[:]
        if not values:
            return 0
        # Only what was copied: another thread may have appended meanwhile.
        del pending[: len(values)]
        batch = count_batch(values)
        if batch.count:
            at_s = now_s if self.is_bound else min(self.at_s, now_s)
            self._count(batch.count, batch.total, batch.minimum, batch.maximum)
            self.windows.add(batch, at_s)
            if unit is not None:
                self._add_counts(batch, unit)
            self._note_last(values, at_s)
        return batch.refused

    def _count(self, count: int, total: float, minimum: float, maximum: float) -> None:
        self.version += 1
        self.count += count
        self.total += total
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)

    def _note_last(self, values: list[Any], at_s: float) -> None:
        for value in reversed(values):
            number = number_of(value)
            if math.isfinite(number):
                self.last = number
                break
        self.last_at_s = at_s
        if self.first_at_s is None:
            self.first_at_s = at_s

    def _add_counts(self, batch: Batch, unit: str) -> None:
        # Of the batch, not of a sketch of many: there the smallest may have been put together with larger ones.
        sketch = Sketch()
        sketch.add(batch)
        self._counts = _sums(self._counts, sketch.counts_within(buckets_within(unit)))

    def bucket_counts(self, unit: str) -> tuple[int, ...]:
        """Return how many values of its whole life lie in each bucket that exporters show; the last is open."""
        edges = [0, *(self._counts or [0] * len(buckets_within(unit))), self.count]
        return tuple(upper - lower for lower, upper in pairwise(edges))

    def recount(self, unit: str) -> None:
        """Count anew into the buckets of ``unit``, which was not known before."""
        self._counts = array("Q", self.windows.whole().counts_within(buckets_within(unit)))
        self._exemplars.clear()

    def add_exemplar(self, unit: str, exemplar: Exemplar) -> None:
        """Keep ``exemplar`` as the newest of its bucket."""
        self._exemplars[bisect_left(bounds_for(unit), exemplar.value)] = exemplar

    def exemplars(self, unit: str) -> tuple[Exemplar | None, ...]:
        """Return the newest exemplar of each bucket; empty when none was given."""
        if not self._exemplars:
            return ()
        return tuple(self._exemplars.get(number) for number in range(len(bounds_for(unit)) + 1))


@functools.cache
def buckets_within(unit: str) -> tuple[int, ...]:
    """Return, by bound that exporters show for ``unit``, the last of our buckets that counts as being within it."""
    return tuple(bucket_of(bound) for bound in bounds_for(unit))


def _sums(one: array[int], other: Sequence[int]) -> array[int]:
    return array("Q", map(operator.add, one, other) if one else other)
