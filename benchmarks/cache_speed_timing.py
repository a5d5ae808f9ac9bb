"""How benchmarks/cache_speed_memory.py takes times: contenders in turn on one core, CPU time, ratios within a round."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from models_conditions import one_core

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ROUNDS", "Contender", "Times", "taken_in_turn"]

ROUNDS = 11


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared."""

    label: str
    count: int
    """Operations in each round."""
    prepare: Callable[[int], Callable[[], object]]
    """Gives the work of a round, by its number; preparing it is not timed."""


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds of CPU for one operation, by contender and round."""

    by_label: dict[str, list[float]]

    def of(self, label: str) -> float:
        """Return the median of one contender."""
        return median(self.by_label[label])

    def ratio(self, label: str, other: str) -> float:
        """Return how many times as long ``label`` takes as ``other``: the median of the rounds' ratios."""
        return median(one / two for one, two in zip(self.by_label[label], self.by_label[other], strict=True))


def taken_in_turn(contenders: Sequence[Contender]) -> Times:
    """Return the times of all contenders, each round of which begins with another one; one round before is not counted.

    CPU time is that of the whole process: what a library does in threads of its own counts as well. The garbage
    collector stays on, as it is in a server.
    """
    times: dict[str, list[float]] = {contender.label: [] for contender in contenders}
    with one_core():
        for number in range(ROUNDS + 1):
            first = number % len(contenders)
            for contender in [*contenders[first:], *contenders[:first]]:
                work = contender.prepare(number)
                gc.collect()
                start_ns = time.process_time_ns()
                work()
                took_ns = time.process_time_ns() - start_ns
                if number:
                    times[contender.label].append(took_ns / contender.count)
    return Times(times)
