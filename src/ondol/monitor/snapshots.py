"""decision: one series as an exporter needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.monitor.names import Kind

__all__ = ["Exemplar", "MetricSnapshot"]


class Exemplar(NamedTuple):
    """One observation that stands for its bucket, and what leads to it, such as a request's id."""

    value: float
    at: float
    """Wall-clock seconds since the Unix epoch."""
    labels: Mapping[str, str]


class MetricSnapshot(NamedTuple):
    """One series: figures of its whole life, its newest value, and the percentiles of the last five minutes."""

    name: str
    unit: str
    labels: Mapping[str, str]
    kind: Kind
    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    sum: float
    last: float
    minimum: float = 0.0
    maximum: float = 0.0
    quantiles: Mapping[float, float] = {}
    """Of the last five minutes, by rank (0 to 1); empty for counters, and when nothing came."""
    bounds: tuple[float, ...] = ()
    """Upper bounds (inclusive, within 1 %) of the buckets but the last, which has none; empty unless a summary."""
    bucket_counts: tuple[int, ...] = ()
    """Values in each bucket (not cumulative), one more than there are bounds."""
    exemplars: tuple[Exemplar | None, ...] = ()
    """The newest exemplar of each bucket; empty where none was ever given."""
    started_at: float = 0.0
    """When the series began, in wall-clock seconds since the Unix epoch."""
