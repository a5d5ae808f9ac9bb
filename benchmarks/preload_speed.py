"""What a decision costs: the time that the keep-warm policy takes for each request, with 10,000 models."""

from __future__ import annotations

import random
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from harness import Figure, pin_to_one_core, run_alone
from preload_replay_ondol import Ondol
from preload_replay_pool import ModelFigures, Pool, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

MODELS: Final = 10_000
HOURS: Final = 2.0
BUDGET: Final = 0.25
TARGET_US: Final = 20.0


class Timed(Ondol):
    """The policy with a stopwatch around each of its answers; reading it is counted in."""

    spent_ns = 0

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Take the models; not timed."""
        super().begin(models, budget_bytes, residents)
        for name in ("requested", "loading", "loaded", "left", "victims", "prefetch", "wake_at_s", "expired"):
            setattr(self, name, self._timed(getattr(self, name)))

    def _timed(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter_ns

        def timed(*arguments: Any, **named: Any) -> Any:
            begun_ns = clock()
            try:
                return answer(*arguments, **named)
            finally:
                self.spent_ns += clock() - begun_ns

        return timed

    def pick(self, queue: Mapping[int, Sequence[float]], now_s: float) -> int:  # noqa: ARG002 - the protocol's
        """Return who has waited longest: the order of the queue is the pool's, and not measured here."""
        return next(iter(queue))


def requests(models: int, hours: float) -> Requests:
    """Return a made-up load: a third timers, a third at random, a third in bursts.

    How often each is used is spread evenly over the logarithms of 1 to 1,440 times a day, which is about how it is on
    a day of Azure functions: there the median is 26 and the mean 266 times (Shahrad et al., ATC 2020, their data).
    """
    draw = random.Random(1)
    events: list[tuple[float, int]] = []
    for model in range(models):
        mean_s = 86_400.0 / 1440.0 ** draw.random()
        events += [(at_s, model) for at_s in _times(draw, model % 3, mean_s, hours * 3600.0)]
    events.sort()
    return Requests([at_s for at_s, _ in events], [model for _, model in events])


def _times(draw: random.Random, kind: int, mean_s: float, end_s: float) -> Iterator[float]:
    at_s = draw.uniform(0.0, mean_s)
    while at_s < end_s:
        yield at_s
        if kind == 0:
            at_s += mean_s * draw.uniform(0.97, 1.03)
        elif kind == 1:
            at_s += draw.expovariate(1.0 / mean_s)
        else:
            at_s += draw.expovariate(1.0 / 10.0) if draw.random() < 0.7 else draw.expovariate(1.0 / (3.0 * mean_s))


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the figure."""
    pin_to_one_core()
    load = requests(MODELS, HOURS / 4 if is_quick else HOURS)
    sizes = [int(random.Random(model).uniform(50e6, 150e6)) for model in range(MODELS)]
    # Loads as fast as the requests of so many models need: else all wait, and there is nothing to decide.
    models = [ModelFigures(f"m{place}", size, 0.02) for place, size in enumerate(sizes)]
    spent_us = []
    for _ in range(1 if is_quick else 3):
        policy = Timed()
        Pool(models, int(BUDGET * sum(sizes)), policy, 0.0).replay(load)
        spent_us.append(policy.spent_ns / 1000.0 / len(load.times_s))
    conditions = f"{MODELS} models, {len(load.times_s)} requests, {BUDGET:.0%} of all bytes"
    yield Figure("decisions for a request", median(spent_us), "us", TARGET_US, conditions=conditions)


if __name__ == "__main__":
    sys.exit(run_alone("What decisions cost", rows))
