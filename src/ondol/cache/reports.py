"""service: what the cache tells the monitor while it runs.

Every five seconds: ``cache.hit_rate`` (percent, of the lookups since the last time, once there were 20),
``cache.used_bytes``, ``cache.max_bytes``, ``cache.entries``, and since the last time ``cache.left`` (by reason),
``cache.saved_time`` (seconds of computing that hits saved), ``cache.tier_hits`` and ``cache.tier_failures`` (by tier).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.sweeper import SWEEP_INTERVAL_S
from ondol.units import Percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.recorder import Recorder

__all__ = ["CacheReports"]

_REPORT_INTERVAL_S: Final = 5.0
_REPORT_LOOKUPS: Final = 20
"""Fewer say nothing about the hit rate; they are counted into the next report."""


class CacheReports:
    """Reports the difference to the last report."""

    def __init__(self, record: Recorder, get_stats: Callable[[], dict[str, Any]]) -> None:
        self._record = record
        self._get_stats = get_stats
        self._sweeps = 0
        self._lookups = (0, 0)
        self._counted: dict[tuple[str, str], float] = {}

    def report(self) -> None:
        """Called after each sweep; reports after every fifth."""
        self._sweeps += 1
        if self._sweeps % round(_REPORT_INTERVAL_S / SWEEP_INTERVAL_S):
            return
        stats = self._get_stats()
        self._report_hit_rate(stats["hits"], stats["hits"] + stats["misses"])
        self._record("cache.used_bytes", stats["used_bytes"], "bytes")
        self._record("cache.max_bytes", stats["max_bytes"], "bytes")
        self._record("cache.entries", stats["entries"], "entries")
        for reason, count in stats["left"].items():
            self._grown("cache.left", count, "count", "reason", reason)
        self._grown("cache.saved_time", stats["saved_seconds"], "seconds", "", "")
        for tier, figures in stats.get("tiers", {}).items():
            self._grown("cache.tier_hits", figures["hits"], "count", "tier", tier)
            self._grown("cache.tier_failures", _total(figures.get("failures", 0)), "count", "tier", tier)

    def _report_hit_rate(self, hits: int, lookups: int) -> None:
        recent_hits, recent_lookups = hits - self._lookups[0], lookups - self._lookups[1]
        if recent_lookups >= _REPORT_LOOKUPS:
            self._lookups = (hits, lookups)
            self._record("cache.hit_rate", float(Percent.of(recent_hits, recent_lookups)), "percent")

    def _grown(self, metric: str, total: float, unit: str, label: str, value: str) -> None:
        before = self._counted.get((metric, value), 0)
        if total > before:
            self._counted[metric, value] = total
            self._record(metric, total - before, unit, **({label: value} if label else {}))


def _total(failures: Any) -> float:
    return sum(failures.values()) if isinstance(failures, dict) else failures
