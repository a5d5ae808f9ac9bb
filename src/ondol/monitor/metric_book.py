"""decision: every metric of one monitor; the number of names and of series is bounded.

What does not fit goes to an overflow series and is counted there: labels with ever new values cost accuracy, never
memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.errors import MonitorError
from ondol.monitor.metric import Metric
from ondol.monitor.names import check_kind, check_labels, check_name, check_unit
from ondol.monitor.series import Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.monitor.query import Query, Reading
    from ondol.monitor.snapshots import MetricSnapshot

__all__ = ["OVERFLOW_NAME", "MetricBook"]

OVERFLOW_NAME: Final = "monitor.overflow"


class MetricBook:
    """Every metric of one monitor. Not thread-safe: its owner locks."""

    def __init__(self, *, max_names: int = 500, max_series: int = 1000, max_series_per_name: int = 100) -> None:
        """Hold at most so many names, series of one name, and series in all (overflow series come on top)."""
        self._max_names = max_names
        self._max_series = max_series
        self._max_series_per_name = max_series_per_name
        self._series_count = 0
        self.metrics: dict[str, Metric] = {}

    def find(self, name: object, unit: object, labels: Mapping[str, object]) -> tuple[Series, bool]:
        """Return the series for these, made when new, and whether it is the one for exactly these labels.

        An empty unit means that the unit is not said: it fits every metric.

        Raises:
            MonitorError: the name, unit or a label is not valid, or the metric has another unit.
        """
        checked, word, key = check_name(name), check_unit(unit), check_labels(labels)
        metric = self.metrics.get(checked)
        if metric is None:
            if len(self.metrics) >= self._max_names:
                return self._overflow(self._make(OVERFLOW_NAME, "")), False
            metric = self._make(checked, word)
        self._check_same_unit(metric, word)
        series = metric.series.get(key)
        if series is not None:
            return series, True
        # The first series of a name always fits: names are bounded already.
        if metric.series and (
            len(metric.series) >= self._max_series_per_name or self._series_count >= self._max_series
        ):
            return self._overflow(metric), False
        series = metric.series[key] = Series()
        self._series_count += 1
        return series, True

    def declare(self, name: object, unit: object, kind: object, text: str) -> None:
        """Say what a metric is, before or after its first value.

        Raises:
            MonitorError: the name, unit or kind is not valid, the metric has another unit, or there is no room for it.
        """
        checked, word = check_name(name), check_unit(unit)
        wanted = None if kind is None else check_kind(kind)
        metric = self.metrics.get(checked)
        if metric is None:
            if len(self.metrics) >= self._max_names:
                raise MonitorError(f"metric {checked!r} cannot be declared: there are {self._max_names} names already")
            metric = self._make(checked, word)
        self._check_same_unit(metric, word)
        metric.declare(wanted, text)

    def _make(self, name: str, unit: str) -> Metric:
        return self.metrics.setdefault(name, Metric(name, unit))

    @staticmethod
    def _overflow(metric: Metric) -> Series:
        if metric.overflow is None:
            metric.overflow = Series()
        return metric.overflow

    @staticmethod
    def _check_same_unit(metric: Metric, unit: str) -> None:
        if not metric.unit:
            if unit:
                metric.set_unit(unit)
        elif unit and unit != metric.unit:
            message = (
                f"metric {metric.name!r} is measured in {metric.unit!r} and cannot take values in {unit!r}: "
                "use the same unit everywhere, or another name"
            )
            raise MonitorError(message)

    @property
    def series_count(self) -> int:
        """How many series there are, overflow series not counted."""
        return self._series_count

    def fold(self, now_s: float) -> dict[str, int]:
        """Count everything that is pending; return by name how many things were no finite numbers and left out."""
        refused: dict[str, int] = {}
        for name, metric in list(self.metrics.items()):  # a value's own code may record others meanwhile
            count = metric.fold(now_s)
            if count:
                refused[name] = count
        return refused

    def reading(self, query: Query, now_s: float) -> Reading | None:
        """Answer ``query``, ``None`` when the metric has no such values."""
        metric = self.metrics.get(query.metric_name)
        return None if metric is None else metric.reading(query, now_s)

    def summaries(self, now_s: float, *, only: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the figures of each metric that has values, by name; ``only`` as in ``Metric.summary``."""
        return {
            name: metric.summary(now_s, only=only) for name, metric in sorted(self.metrics.items()) if metric.has_values
        }

    def collect(self, now_s: float, wall_s: float) -> list[MetricSnapshot]:
        """Return every series that has values, sorted by name and labels."""
        return [snapshot for _, metric in sorted(self.metrics.items()) for snapshot in metric.snapshots(now_s, wall_s)]
