"""decision: what may be asked of a metric: an aggregate over a window, of all its series or some of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AGGREGATES", "RANKS", "WINDOWS_S", "Query", "Reading"]

RANKS: Final[Mapping[str, float]] = MappingProxyType({"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999})
"""Percentiles by the name they have everywhere."""

AGGREGATES: Final = ("last", "avg", "min", "max", "sum", "count", "rate", *RANKS)
"""``last`` is the newest value; ``rate`` is values a second; all others are over the window."""

WINDOWS_S: Final[Mapping[str, float]] = MappingProxyType({"1m": 60.0, "5m": 300.0, "1h": 3600.0, "24h": 86400.0})
"""Lengths of the windows in seconds, by name."""


class Query(NamedTuple):
    """One figure of one metric."""

    metric_name: str
    aggregate: str = "last"
    """One of ``AGGREGATES``."""
    window_s: float = 60.0
    """One of the values of ``WINDOWS_S``; without meaning for ``last``."""
    where: tuple[tuple[str, str], ...] = ()
    """Labels that a series must have to count, sorted; none: all series count together."""


class Reading(NamedTuple):
    """The answer to a query, and when the newest value in it came, in monotonic seconds."""

    value: float
    at_s: float
