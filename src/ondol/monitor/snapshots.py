"""decision: one series as an exporter needs it, and series that look alike put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ondol.monitor.names import Kind

__all__ = ["Exemplar", "MetricSnapshot", "without_doubles"]


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
    help: str = ""
    """What the metric measures, in a sentence; empty when nobody has said so."""


def without_doubles(snapshots: Iterable[MetricSnapshot]) -> list[MetricSnapshot]:
    """Return the snapshots, which are of one name, unit and kind, with those of equal labels put together.

    A caller's own label ``overflow="true"`` looks like that of the overflow series; no exporter may show both.
    """
    by_labels: dict[frozenset[tuple[str, str]], MetricSnapshot] = {}
    for snapshot in snapshots:
        key = frozenset(snapshot.labels.items())
        known = by_labels.get(key)
        by_labels[key] = snapshot if known is None else _joined(known, snapshot)
    return list(by_labels.values())


def _joined(one: MetricSnapshot, other: MetricSnapshot) -> MetricSnapshot:
    """Return both as one series: what was counted is added up; percentiles cannot be, so there are none."""
    return other._replace(
        count=one.count + other.count,
        sum=one.sum + other.sum,
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        quantiles={},
        bucket_counts=tuple(a + b for a, b in zip(one.bucket_counts, other.bucket_counts, strict=True)),
        exemplars=_newest(one.exemplars, other.exemplars),
        started_at=min(one.started_at, other.started_at),
    )


def _newest(one: tuple[Exemplar | None, ...], other: tuple[Exemplar | None, ...]) -> tuple[Exemplar | None, ...]:
    if not one or not other:
        return one or other
    pairs = ([exemplar for exemplar in pair if exemplar is not None] for pair in zip(one, other, strict=True))
    return tuple(max(known, key=lambda exemplar: exemplar.at, default=None) for known in pairs)
