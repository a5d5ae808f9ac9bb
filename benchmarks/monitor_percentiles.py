"""The part of benchmarks/monitor.py about percentiles: how far are they off, up to p99.9, on data of all shapes?

    python benchmarks/monitor_percentiles.py [--json] [--quick]

Each data set goes through ``bind`` into a monitor and comes back from ``get_stats()``; the truth is numpy's nearest
rank (``inverted_cdf``) of the same values. The peer is what Prometheus tells of prometheus_client's default buckets:
its ``histogram_quantile`` is linear within a bucket, and gives the highest bound for what lies beyond it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Figure, package, run_alone
from monitor_recording import FOLD_EVERY
from prometheus_client import Histogram

from ondol.monitor import PerformanceMonitor
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

__all__ = ["DATA", "RANKS", "bucket_counts", "histogram_quantile", "nearest_ranks", "worst_error_percent"]

RANKS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
SEED = 6
TARGET_PERCENT = 1.0


def bimodal(chance: np.random.Generator, count: int) -> Values:
    """Return hits of about 4 ms and, one in twenty, misses of about 1.4 s."""
    is_slow = chance.random(count) < 0.05
    return np.where(is_slow, chance.lognormal(0.35, 0.15, count), chance.lognormal(-5.5, 0.25, count))


DATA: dict[str, Callable[[np.random.Generator, int], Values]] = {
    "log-normal σ 1": lambda chance, count: chance.lognormal(-4.0, 1.0, count),
    "log-normal σ 2": lambda chance, count: chance.lognormal(-4.0, 2.0, count),
    "bimodal": bimodal,
    "constant": lambda _chance, count: np.full(count, 0.0314),
    "heavy tail (Pareto α 1.1)": lambda chance, count: (chance.pareto(1.1, count) + 1) * 0.005,
}
"""Makers of values in seconds, by name."""


def nearest_ranks(values: Values) -> list[float]:
    """Return the exact percentiles: each is one of the values."""
    found: list[float] = np.quantile(values, list(RANKS.values()), method="inverted_cdf").tolist()
    return found


def worst_error_percent(found: Sequence[float], exact: Sequence[float]) -> float:
    """Return the largest relative error in percent."""
    return max(abs(one - true) / abs(true) * 100 for one, true in zip(found, exact, strict=True))


def ours(values: Values) -> list[float]:
    """Return the percentiles of the last minute that a monitor tells."""
    monitor = PerformanceMonitor(clock=FakeClock(), rules=())
    observe = monitor.bind("bench.latency", "seconds")
    for start in range(0, len(values), FOLD_EVERY):
        for value in values[start : start + FOLD_EVERY].tolist():
            observe(value)
        monitor.fold()
    window: dict[str, Any] = monitor.get_stats()["metrics"]["bench.latency"]["windows"]["1m"]
    if window["count"] != len(values):
        message = f"{window['count']} of {len(values)} values are in the window"
        raise RuntimeError(message)
    return [window[name] for name in RANKS]


def bucket_counts(values: Values, bounds: Sequence[float]) -> list[int]:
    """Return the cumulative count of each bucket; an upper bound belongs to its bucket, the last one is infinite."""
    ordered = np.sort(values)
    return [int(np.searchsorted(ordered, bound, side="right")) for bound in bounds]


def histogram_quantile(rank: float, bounds: Sequence[float], counts: Sequence[int]) -> float:
    """Return what Prometheus' function of this name tells of a classic histogram.

    Source: its documentation and ``bucketQuantile`` in ``promql/quantile.go``: linear from the bound below, which is 0
    for the first bucket; a quantile beyond the highest finite bound is that bound.
    """
    wanted = rank * counts[-1]
    place = next(place for place, count in enumerate(counts) if count >= wanted)
    if place == len(bounds) - 1:
        return bounds[-2]
    start, before = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0)
    return start + (bounds[place] - start) * (wanted - before) / (counts[place] - before)


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the worst error of each data set."""
    count = 200_000 if is_quick else 1_000_000
    conditions = f"{count} values, seed {SEED}; p50, p90, p99, p99.9 against numpy's inverted_cdf; window 1m"
    bounds = [*(bound for bound in Histogram.DEFAULT_BUCKETS if np.isfinite(bound)), float("inf")]
    peer = package("prometheus_client")
    for name, make in DATA.items():
        values = make(np.random.default_rng(SEED), count)
        exact = nearest_ranks(values)
        error = worst_error_percent(ours(values), exact)
        yield Figure(f"percentiles, {name}: worst error", error, "%", TARGET_PERCENT, conditions=conditions)
        counts = bucket_counts(values, bounds)
        told = [histogram_quantile(rank, bounds, counts) for rank in RANKS.values()]
        yield Figure(
            f"percentiles, {name}: worst error of default buckets",
            worst_error_percent(told, exact),
            "%",
            peer=peer,
            conditions=f"{conditions}; histogram_quantile, linear within a bucket",
        )


if __name__ == "__main__":
    sys.exit(run_alone("percentiles beside Prometheus' default buckets", rows))
