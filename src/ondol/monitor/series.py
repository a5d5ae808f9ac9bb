"""decision: metrics, their series by labels, and their windows: the whole life and the last five minutes.

The number of names and of series is bounded. What does not fit goes to an overflow series and is counted there:
labels with ever new values cost accuracy, never memory.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import MonitorError
from ondol.monitor.names import check_labels, check_name, check_unit, kind_of
from ondol.monitor.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ondol.monitor.names import Kind, LabelKey

__all__ = ["OVERFLOW_NAME", "RECENT_S", "Metric", "MetricBook", "MetricSnapshot", "Reading", "Series"]

SLOT_S: Final = 30.0
RECENT_SLOTS: Final = 10
RECENT_S: Final = SLOT_S * RECENT_SLOTS
"""Length of the recent window in seconds. A slot leaves it as a whole: it covers the last 4.5 to 5 minutes."""

RANKS: Final = (0.5, 0.9, 0.99)
OVERFLOW_NAME: Final = "monitor.overflow"
OVERFLOW_LABELS: Final[LabelKey] = (("overflow", "true"),)


class Reading(NamedTuple):
    """The newest value of a metric and when it came, in monotonic seconds."""

    value: float
    at_s: float


class MetricSnapshot(NamedTuple):
    """One series as an exporter needs it: figures of its whole life, and its newest value."""

    name: str
    unit: str
    labels: Mapping[str, str]
    kind: Kind
    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    sum: float
    last: float
    quantiles: Mapping[float, float]


class Series:
    """The values of one metric with one set of labels."""

    __slots__ = ("_closed", "_recent", "first_at_s", "last", "last_at_s")

    def __init__(self) -> None:
        """Begin empty."""
        self.last = 0.0
        self.last_at_s: float | None = None
        self.first_at_s: float | None = None
        self._closed = Sketch()  # everything older than the recent slots
        self._recent: deque[tuple[int, Sketch]] = deque()

    def fold(self, value: float, at_s: float) -> None:
        """Take ``value`` of the time ``at_s`` in; values come in the order of time, or nearly."""
        slot = int(at_s // SLOT_S)
        if not self._recent or slot > self._recent[-1][0]:
            self._open(slot)
        self._recent[-1][1].add(value)
        self.last = value
        self.last_at_s = at_s
        if self.first_at_s is None:
            self.first_at_s = at_s

    def _open(self, slot: int) -> None:
        while self._recent and self._recent[0][0] <= slot - RECENT_SLOTS:
            self._closed.merge(self._recent.popleft()[1])
        self._recent.append((slot, Sketch()))

    def add_whole(self, sketch: Sketch) -> None:
        """Merge the whole life into ``sketch``."""
        sketch.merge(self._closed)
        for _, recent in self._recent:
            sketch.merge(recent)

    def add_recent(self, sketch: Sketch, now_s: float) -> None:
        """Merge the last ``RECENT_S`` seconds into ``sketch``."""
        oldest = int(now_s // SLOT_S) - RECENT_SLOTS
        for slot, recent in self._recent:
            if slot > oldest:
                sketch.merge(recent)


class Metric:
    """One name with its unit and its series."""

    __slots__ = ("name", "overflow", "series", "unit")

    def __init__(self, name: str, unit: str) -> None:
        """Begin without series."""
        self.name = name
        self.unit = unit
        self.series: dict[LabelKey, Series] = {}
        self.overflow: Series | None = None

    def all_series(self) -> Iterator[tuple[LabelKey, Series]]:
        """Yield labels and series, the overflow series last."""
        yield from self.series.items()
        if self.overflow is not None:
            yield OVERFLOW_LABELS, self.overflow

    def reading(self) -> Reading | None:
        """Return the newest value of any of its series."""
        newest: Reading | None = None
        for _, series in self.all_series():
            at_s = series.last_at_s
            if at_s is not None and (newest is None or at_s >= newest.at_s):
                newest = Reading(series.last, at_s)
        return newest

    def summary(self, now_s: float) -> dict[str, Any]:
        """Return its figures over all series: whole life, last five minutes, and each series where there are labels."""
        whole, recent = Sketch(), Sketch()
        for _, series in self.all_series():
            series.add_whole(whole)
            series.add_recent(recent, now_s)
        reading = self.reading()
        summary = {"unit": self.unit, "kind": kind_of(self.name, self.unit), **_figures(whole)}
        summary["last"] = None if reading is None else reading.value
        summary["last_5_minutes"] = {**_figures(recent), "rate_per_s": recent.count / self._recent_span_s(now_s)}
        labelled = [(labels, series) for labels, series in self.all_series() if labels]
        if labelled:
            summary["series"] = [_series_summary(labels, series) for labels, series in labelled]
        return summary

    def _recent_span_s(self, now_s: float) -> float:
        """Return how many seconds the recent window covers: less while the metric is young; at least one."""
        window_start_s = (int(now_s // SLOT_S) - RECENT_SLOTS + 1) * SLOT_S
        first_s = min((s.first_at_s for _, s in self.all_series() if s.first_at_s is not None), default=now_s)
        return max(1.0, now_s - max(window_start_s, first_s))


def _figures(sketch: Sketch) -> dict[str, Any]:
    has_any = sketch.count > 0
    p50, p90, p99 = sketch.quantiles(RANKS)
    return {
        "count": sketch.count,
        "sum": sketch.sum,
        "mean": sketch.mean,
        "min": sketch.minimum if has_any else 0.0,
        "max": sketch.maximum if has_any else 0.0,
        "p50": p50,
        "p90": p90,
        "p99": p99,
    }


def _series_summary(labels: LabelKey, series: Series) -> dict[str, Any]:
    whole = Sketch()
    series.add_whole(whole)
    return {"labels": dict(labels), "last": series.last, **_figures(whole)}


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
            metric.unit = unit
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

    def reading(self, name: str) -> Reading | None:
        """Return the newest value of the metric ``name``, ``None`` when it has none."""
        metric = self.metrics.get(name)
        return None if metric is None else metric.reading()

    def summaries(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Return each metric's figures by name."""
        return {name: self.metrics[name].summary(now_s) for name in sorted(self.metrics)}

    def collect(self) -> list[MetricSnapshot]:
        """Return every series, sorted by name and labels."""
        return [
            _snapshot(metric, labels, series)
            for _, metric in sorted(self.metrics.items())
            for labels, series in sorted(metric.all_series(), key=lambda item: item[0])
            if series.last_at_s is not None
        ]


def _snapshot(metric: Metric, labels: LabelKey, series: Series) -> MetricSnapshot:
    whole = Sketch()
    series.add_whole(whole)
    return MetricSnapshot(
        name=metric.name,
        unit=metric.unit,
        labels=dict(labels),
        kind=kind_of(metric.name, metric.unit),
        count=whole.count,
        sum=whole.sum,
        last=series.last,
        quantiles=dict(zip(RANKS, whole.quantiles(RANKS), strict=True)),
    )
