"""The part of benchmarks/monitor.py about notices: how many come of a noisy day, and is every true episode told once?

    python benchmarks/monitor_notices.py [--json] [--quick]

The series is a queue's depth every five seconds for 24 hours, the same in every run (``noisy_day``). A naive
threshold sends a notice at each crossing upwards. Ours is a real monitor with a real rule on a clock that is moved by
hand, ticking once a value; fired and resolved count as a notice each, while the naive threshold is not even charged
for its resolutions.
"""

from __future__ import annotations

import logging
import math
import random
import sys
from typing import TYPE_CHECKING, NamedTuple

from harness import Figure, run_alone

from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.host import HostSample, HostSampler
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ondol.monitor import AlertEvent

__all__ = ["Day", "Episode", "Notice", "Verdict", "judge", "naive_notices", "noisy_day", "rows"]

SEED = 6
EVERY_S, DAY_S, QUICK_S = 5.0, 86_400.0, 7200.0
THRESHOLD = 80.0
LEVEL, DRIFT, NOISE = 70.0, 3.0, 12.0
"""Calm: the level sways by the drift over the day; noise of this standard deviation crosses the threshold."""
SPIKES, SPIKE, SPIKE_S = 60, 60.0, 15.0
"""So many short spikes on top, of so much, for so long: nothing to call anybody for."""
EPISODE_STARTS_H = (1.2, 3.5, 5.1, 8.0, 9.7, 12.4, 15.0, 17.3, 20.6, 22.5)
EPISODE_MINUTES = (5, 12, 30, 8, 45, 6, 20, 15, 60, 10)
EPISODE, DIP_SHARE = 130.0, 0.03
"""The level in a true episode, and how many of its values fall to the calm level, as a queue does now and then."""
GRACE_S = 600.0
"""An alert of an episode may come so long after its end at most, and its resolution so long after it."""
METRIC = "bench.queue_depth"

RULES = (
    AlertRule(
        "ondol",
        METRIC,
        THRESHOLD,
        ">",
        duration_seconds=120.0,
        clear_threshold=78.0,
        keep_firing_seconds=120.0,
        aggregate="avg",
        window_seconds=60.0,
    ),
    AlertRule("for alone", METRIC, THRESHOLD, ">", duration_seconds=60.0),
    AlertRule("no duration", METRIC, THRESHOLD, ">"),
)
"""The first is judged, the others are told beside it."""


class Episode(NamedTuple):
    """A true problem, in seconds since the start."""

    start_s: float
    end_s: float


class Day(NamedTuple):
    """A value every ``EVERY_S`` seconds, the first after one such step, and what was truly wrong."""

    values: Sequence[float]
    episodes: Sequence[Episode]


class Notice(NamedTuple):
    """What somebody was told, and when."""

    at_s: float
    is_firing: bool


class Verdict(NamedTuple):
    """How notices and true episodes go together."""

    missed: int
    """Episodes without an alert."""
    repeated: int
    """Alerts of an episode beyond its first."""
    unresolved: int
    """Told episodes without exactly one resolution, or with one before their end."""
    false: int
    """Alerts that belong to no episode."""


class StillHost(HostSampler):
    """A machine on which nothing changes: one look at the real one serves the whole day."""

    def __init__(self) -> None:
        """Look once."""
        super().__init__()
        self._seen = super().sample()

    def sample(self) -> HostSample:
        """Return what was seen at first."""
        return self._seen


def noisy_day(seed: int = SEED) -> Day:
    """Return the noisy day."""
    chance = random.Random(seed)
    episodes = [
        Episode(hour * 3600.0, hour * 3600.0 + minutes * 60.0)
        for hour, minutes in zip(EPISODE_STARTS_H, EPISODE_MINUTES, strict=True)
    ]
    spikes = [chance.uniform(0.0, DAY_S) for _ in range(SPIKES)]

    def value(at_s: float) -> float:
        depth = LEVEL + DRIFT * math.sin(2 * math.pi * at_s / DAY_S) + chance.gauss(0.0, NOISE)
        is_dip = chance.random() < DIP_SHARE
        if any(start <= at_s < end for start, end in episodes):
            depth += 0.0 if is_dip else EPISODE - LEVEL
        elif any(start <= at_s < start + SPIKE_S for start in spikes):
            depth += SPIKE
        return max(0.0, depth)

    return Day([value(step * EVERY_S) for step in range(1, int(DAY_S / EVERY_S) + 1)], episodes)


def start_of(day: Day, length_s: float) -> Day:
    """Return the first part of the day."""
    episodes = [episode for episode in day.episodes if episode.end_s + GRACE_S < length_s]
    return Day(day.values[: int(length_s / EVERY_S)], episodes)


def naive_notices(values: Sequence[float], threshold: float) -> int:
    """Return how often the values cross ``threshold`` upwards."""
    return sum(now > threshold >= before for before, now in zip([threshold, *values], values, strict=False))


def told(day: Day, rules: Sequence[AlertRule]) -> dict[str, list[Notice]]:
    """Return what a monitor with ``rules`` tells of the day, by rule."""
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=rules, host=StillHost(), sample_interval_s=EVERY_S)
    found: dict[str, list[Notice]] = {rule.name: [] for rule in rules}

    def note(event: AlertEvent) -> None:
        found[event.name].append(Notice(clock.monotonic(), event.state == "fired"))

    monitor.add_alert_listener(note)
    for value in day.values:
        clock.advance(EVERY_S)
        monitor.add_metric(METRIC, value, "count")
        monitor.tick()
    return found


def judge(notices: Sequence[Notice], episodes: Sequence[Episode]) -> Verdict:
    """Return whether every episode was told once and resolved once, and how many alerts were false."""
    missed = repeated = unresolved = false = 0
    owners = [owner(notice, episodes) for notice in notices]
    for place, episode in enumerate(episodes):
        own = [notice for notice, found in zip(notices, owners, strict=True) if found == place]
        fired = [notice.at_s for notice in own if notice.is_firing]
        resolved = [notice.at_s for notice in own if not notice.is_firing]
        missed += not fired
        repeated += max(0, len(fired) - 1)
        is_right = len(resolved) == 1 and resolved[0] >= episode.end_s
        unresolved += bool(fired) and not is_right
    false = sum(notice.is_firing and found is None for notice, found in zip(notices, owners, strict=True))
    return Verdict(missed, repeated, unresolved, false)


def owner(notice: Notice, episodes: Sequence[Episode]) -> int | None:
    """Return the number of the episode that ``notice`` is about: under way, or over since ``GRACE_S`` at most."""
    for place, (start_s, end_s) in enumerate(episodes):
        if start_s <= notice.at_s <= end_s + GRACE_S:
            return place
    return None


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield how many notices come of the day, and what is wrong with ours."""
    day = start_of(noisy_day(), QUICK_S) if is_quick else noisy_day()
    logging.disable()  # the log tells of each alert, too
    try:
        found = told(day, RULES)
    finally:
        logging.disable(logging.NOTSET)
    mine, naive = found["ondol"], naive_notices(day.values, THRESHOLD)
    conditions = (
        f"{len(day.values)} values, one every {EVERY_S:g} s, seed {SEED}, {len(day.episodes)} true episodes of "
        f"{min(EPISODE_MINUTES)} to {max(EPISODE_MINUTES)} min, {SPIKES} spikes of {SPIKE_S:g} s"
    )
    rule = RULES[0]
    told_by = (
        f"{conditions}; rule: {rule.aggregate} of {rule.window_seconds:g} s > {THRESHOLD:g} for "
        f"{rule.duration_seconds:g} s, clear at {rule.clear_threshold:g}, keep firing {rule.keep_firing_seconds:g} s"
    )
    yield Figure("notices, naive threshold: crossings upwards", naive, "a day", conditions=conditions)
    for name in ("no duration", "for alone"):
        fired = sum(notice.is_firing for notice in found[name])
        yield Figure(f"notices, a rule with {name}: fired", fired, "a day", conditions=conditions)
    yield Figure("notices, ours: fired and resolved", len(mine), "a day", conditions=told_by)
    ratio = naive / len(mine) if mine else 0.0
    yield Figure("notices, naive / ours", ratio, "x", None if is_quick else 100.0, "higher", "naive threshold", told_by)
    verdict = judge(mine, day.episodes)
    yield Figure("notices, true episodes missed", verdict.missed, "episodes", 0.0, conditions=told_by)
    yield Figure("notices, true episodes told again", verdict.repeated, "notices", 0.0, conditions=told_by)
    yield Figure(
        "notices, not resolved exactly once after the end", verdict.unresolved, "episodes", 0.0, conditions=told_by
    )
    yield Figure("notices, false alerts", verdict.false, "a day", conditions=told_by)


if __name__ == "__main__":
    sys.exit(run_alone("notices of a noisy day", rows))
