"""decision: one metric: its unit, its series, and the figures of all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.monitor.buckets import bounds_for
from ondol.monitor.names import kind_of
from ondol.monitor.query import RANKS, WINDOWS_S, Reading
from ondol.monitor.sketch import Sketch
from ondol.monitor.snapshots import MetricSnapshot
from ondol.monitor.windows import SLOT_S, WHOLE, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ondol.monitor.names import Kind, LabelKey
    from ondol.monitor.query import Query
    from ondol.monitor.series import Series

__all__ = ["OVERFLOW_LABELS", "Metric"]

OVERFLOW_LABELS: Final[LabelKey] = (("overflow", "true"),)
_WINDOW_NAMES: Final = {length_s: name for name, length_s in WINDOWS_S.items()}
_RECENT: Final = "5m"


class Metric:
    """One name with its unit and its series. Not thread-safe: its owner locks."""

    __slots__ = ("_amounts", "_begins_s", "_summary", "_summary_of", "name", "overflow", "series", "unit")

    def __init__(self, name: str, unit: str) -> None:
        """Begin without series."""
        self.name = name
        self.unit = unit
        self.series: dict[LabelKey, Series] = {}
        self.overflow: Series | None = None
        self._summary: dict[str, Any] = {}
        self._summary_of: tuple[int, ...] = ()
        self._amounts: dict[str, float] = {}
        self._begins_s: dict[str, float] = {}

    def set_unit(self, unit: str) -> None:
        """Give a metric without a unit one."""
        self.unit = unit
        for _, series in self.all_series():
            series.recount(unit)

    @property
    def kind(self) -> Kind:
        """What it is, as far as its name and unit tell."""
        return kind_of(self.name, self.unit)

    @property
    def has_values(self) -> bool:
        """Whether any value was counted."""
        return any(series.last_at_s is not None for _, series in self.all_series())

    def all_series(self) -> Iterator[tuple[LabelKey, Series]]:
        """Yield labels and series, the overflow series last."""
        yield from list(self.series.items())
        if self.overflow is not None:
            yield OVERFLOW_LABELS, self.overflow

    def fold(self, now_s: float) -> int:
        """Count what is pending; return how many things were no finite numbers and left out."""
        refused = 0
        for _, series in self.all_series():
            if series.pending:
                refused += series.fold(self.unit if self.kind == "summary" else None, now_s)
        return refused

    def _used_series(self, where: LabelKey = ()) -> list[Series]:
        return [
            series
            for labels, series in self.all_series()
            if series.last_at_s is not None and (not where or set(where) <= set(labels))
        ]

    def reading(self, query: Query, now_s: float) -> Reading | None:
        """Answer ``query``, which is of this metric; ``None`` when nothing came, in the window where there is one."""
        chosen = self._used_series(query.where)
        if not chosen:
            return None
        newest = max(chosen, key=_last_at_s)
        if query.aggregate == "last":
            return Reading(newest.last, _last_at_s(newest))
        window = _joined([_window(series, _WINDOW_NAMES[query.window_s], now_s) for series in chosen])
        if not window.sketch.count and query.aggregate not in {"count", "sum", "rate"}:
            return None
        return Reading(self._aggregate(query.aggregate, window), _last_at_s(newest) if window.sketch.count else now_s)

    def _aggregate(self, aggregate: str, window: Window) -> float:
        sketch = window.sketch
        if aggregate in RANKS:
            return sketch.quantiles([RANKS[aggregate]])[0]
        if aggregate == "rate":
            return self._rate(window)
        plain = {"avg": sketch.mean, "min": sketch.minimum, "max": sketch.maximum, "sum": sketch.sum}
        return plain.get(aggregate, float(sketch.count))

    def _rate(self, window: Window) -> float:
        """Return values a second; of a counter, what it counted."""
        return self._amount(window) / window.span_s

    def _amount(self, window: Window) -> float:
        return window.sketch.sum if self.kind == "counter" else window.sketch.count

    def summary(self, now_s: float, *, only: str | None = None) -> dict[str, Any]:
        """Return its figures over all series: whole life, each window, and each series where there are labels.

        Args:
            now_s: monotonic seconds.
            only: the name of the only window that is wanted; neither percentiles of the whole life nor series then.
        """
        chosen = self._used_series()
        if only is not None:
            window = _joined([_window(series, only, now_s) for series in chosen])
            counts = {"count": sum(series.count for series in chosen), "last": max(chosen, key=_last_at_s).last}
            return {"unit": self.unit, "kind": self.kind, **counts, "windows": {only: self._shown(window)}}
        state = (int(now_s // SLOT_S), len(self.unit), *(series.version for series in chosen))
        if state != self._summary_of:
            self._summary, self._summary_of = self._new_summary(chosen, now_s), state
        # Copies: what a reader does to his figures stays his. The rates go on falling while nothing comes.
        figures = {
            **self._summary,
            "windows": {
                name: {**each, "rate_per_s": self._amounts[name] / max(1.0, now_s - self._begins_s[name])}
                for name, each in self._summary["windows"].items()
            },
        }
        if "series" in figures:
            figures["series"] = [{**each, "labels": dict(each["labels"])} for each in figures["series"]]
        return figures

    def _new_summary(self, chosen: Sequence[Series], now_s: float) -> dict[str, Any]:
        every = [series.windows.windows(now_s, series.first_at_s or 0.0) for series in chosen]
        windows = {name: _joined([windows[name] for windows in every]) for name in (*WINDOWS_S, WHOLE)}
        whole = _exact(windows.pop(WHOLE).sketch, chosen)
        self._amounts = {name: self._amount(window) for name, window in windows.items()}
        self._begins_s = {name: now_s - window.span_s for name, window in windows.items()}
        of_series = {id(series): windows[WHOLE].sketch for series, windows in zip(chosen, every, strict=True)}
        labelled = [
            {"labels": dict(labels), "last": series.last, **_figures(_exact(of_series[id(series)], [series]))}
            for labels, series in self.all_series()
            if labels and id(series) in of_series
        ]
        return {
            "unit": self.unit,
            "kind": self.kind,
            **_figures(whole),
            "last": max(chosen, key=_last_at_s).last,
            "windows": {name: self._shown(window) for name, window in windows.items()},
            **({"series": labelled} if labelled else {}),
        }

    def _shown(self, window: Window) -> dict[str, Any]:
        return {**_figures(window.sketch), "rate_per_s": self._rate(window)}

    def snapshots(self, now_s: float, wall_s: float) -> Iterator[MetricSnapshot]:
        """Yield each series as exporters need it, sorted by labels."""
        is_summary = self.kind == "summary"
        for labels, series in sorted(self.all_series(), key=lambda item: item[0]):
            if series.last_at_s is None or series.first_at_s is None:
                continue
            recent = series.windows.window(_RECENT, now_s, series.first_at_s).sketch if is_summary else Sketch()
            yield MetricSnapshot(
                name=self.name,
                unit=self.unit,
                labels=dict(labels),
                kind=self.kind,
                count=series.count,
                sum=series.total,
                last=series.last,
                minimum=series.minimum,
                maximum=series.maximum,
                quantiles=dict(zip(RANKS.values(), recent.quantiles(RANKS.values()), strict=True))
                if recent.count
                else {},
                bounds=bounds_for(self.unit) if is_summary else (),
                bucket_counts=series.bucket_counts(self.unit) if is_summary else (),
                exemplars=series.exemplars(self.unit) if is_summary else (),
                started_at=wall_s - (now_s - series.first_at_s),
            )


def _last_at_s(series: Series) -> float:
    return 0.0 if series.last_at_s is None else series.last_at_s


def _window(series: Series, name: str, now_s: float) -> Window:
    return series.windows.window(name, now_s, series.first_at_s or 0.0)


def _joined(windows: Sequence[Window]) -> Window:
    if len(windows) == 1:
        return windows[0]
    sketch = Sketch()
    sketch.add_all([window.sketch for window in windows])
    return Window(sketch, max(window.span_s for window in windows))


def _figures(sketch: Sketch) -> dict[str, Any]:
    has_any = sketch.count > 0
    return {
        "count": sketch.count,
        "sum": sketch.sum,
        "mean": sketch.mean,
        "min": sketch.minimum if has_any else 0.0,
        "max": sketch.maximum if has_any else 0.0,
        **dict(zip(RANKS, sketch.quantiles(RANKS.values()), strict=True)),
    }


def _exact(sketch: Sketch, several: Sequence[Series]) -> Sketch:
    """Return ``sketch`` with the count, sum and extremes of the whole life, which no rounding has touched."""
    sketch.count = sum(series.count for series in several)
    sketch.total = sum(series.total for series in several)
    sketch.minimum = min(series.minimum for series in several)
    sketch.maximum = max(series.maximum for series in several)
    return sketch
