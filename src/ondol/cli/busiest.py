"""decision: the metrics with most values, as the rows of a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ondol.units import format_bytes, format_seconds

__all__ = ["MAX_METRICS", "busiest_metrics"]

MAX_METRICS: Final = 10
"""Most metrics in the table."""

_MISSING: Final = "-"
_RANKS: Final = ("p50", "p99", "p99.9", "max")


def busiest_metrics(stats: Mapping[str, Any], most: int = MAX_METRICS) -> list[list[str]]:
    """Return of each of the metrics with most values in the last minute: name, values a second, p50, p99, p99.9, max.

    Levels that are read again and again are left out: they are no work of anybody.

    Args:
        stats: what ``/v1/stats`` answers.
        most: how many at most.
    """
    metrics = _mapping(_mapping(stats.get("monitor")).get("metrics"))
    recent = {name: _mapping(_mapping(_mapping(metric).get("windows")).get("1m")) for name, metric in metrics.items()}
    counts = {
        name: figures["count"]
        for name, figures in recent.items()
        if _is_number(figures.get("count")) and figures["count"] > 0 and metrics[name].get("kind") != "gauge"
    }
    busiest = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return [_metric_row(name, metrics[name], recent[name]) for name in busiest]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _metric_row(name: str, metric: Mapping[str, Any], recent: Mapping[str, Any]) -> list[str]:
    rate = recent.get("rate_per_s")
    rate_text = f"{rate:,.2f}" if _is_number(rate) else _MISSING
    # Of what is counted one by one, all values are alike.
    values = [_MISSING if metric.get("kind") == "counter" else _measured(recent.get(rank), metric) for rank in _RANKS]
    return [name, rate_text, *values]


def _measured(value: object, metric: Mapping[str, Any]) -> str:
    """Return a value in the unit of its metric."""
    if not isinstance(value, (int, float)):
        return _MISSING
    unit = str(metric.get("unit") or "")
    if unit == "seconds":
        return format_seconds(value)
    if unit == "bytes":
        return format_bytes(value)
    short = {"percent": "%", "milliseconds": " ms", "microseconds": " µs", "count": ""}.get(unit, f" {unit}".rstrip())
    return f"{value:.4g}{short}"
