"""decision: one metric: its unit, its series, and the figures of all of them together."""

from __future__ import annotations

from array import array
from itertools import chain
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
_FIGURES: Final = ("count", "sum", "mean", "min", "max", *RANKS)


class Metric:
    """One name with its unit and its series. Not thread-safe: its owner locks."""

    __slots__ = ("_declared", "_kept", "_kept_of", "_rates", "help", "name", "overflow", "series", "unit")

    def __init__(self, name: str, unit: str) -> None:
        """Begin without series."""
        self.name = name
        self.unit = unit
        self.series: dict[LabelKey, Series] = {}
        self.overflow: Series | None = None
        self._declared: Kind | None = None
        self.help = ""
        """What it measures, in a sentence, if somebody has said so."""
        self._kept: array[float] = array("d")
        self._kept_of: tuple[int, ...] = ()
        self._rates: list[tuple[float, float]] = []
        """Of each window: what its rate is of, and when the window begins."""

    def set_unit(self, unit: str) -> None:
        """Give a metric without a unit one."""
        self.unit = unit
        for _, series in self.all_series():
            series.recount(unit)

    @property
    def kind(self) -> Kind:
        """What it is: as declared, else as far as its name and unit tell."""
        return self._declared or kind_of(self.name, self.unit)

    def declare(self, kind: Kind | None, text: str) -> None:
        """Say what it is and what it measures; what is not said stays as it is."""
        self.help = text or self.help
        if kind is not None and kind != self.kind:
            self._declared = kind
            self._kept_of = ()
            for _, series in self.all_series():
                series.recount(self.unit)

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
        if state != self._kept_of:
            self._kept, self._kept_of = self._new_figures(chosen, now_s), state
        kept, width = self._kept, len(_FIGURES)
        whole, *others = (kept[place : place + width] for place in range(0, len(kept), width))
        labelled = [(labels, series) for labels, series in self.all_series() if labels and series.last_at_s is not None]
        # The rates go on falling while nothing comes.
        windows = {
            name: {**_dictionary(each), "rate_per_s": amount / max(1.0, now_s - begins_s)}
            for name, each, (amount, begins_s) in zip(WINDOWS_S, others, self._rates, strict=False)
        }
        return {
            "unit": self.unit,
            "kind": self.kind,
            **_dictionary(whole),
            "last": max(chosen, key=_last_at_s).last,
            "windows": windows,
            **({"series": _of_series(labelled, others[len(windows) :])} if labelled else {}),
        }

    def _new_figures(self, chosen: Sequence[Series], now_s: float) -> array[float]:
        """Return the figures of the whole life, of each window, and of each series that has labels, in a row.

        They are kept as bare numbers: dictionaries of them would take more room than all that was counted.
        """
        every = [series.windows.windows(now_s, series.first_at_s or 0.0) for series in chosen]
        windows = {name: _joined([windows[name] for windows in every]) for name in (*WINDOWS_S, WHOLE)}
        whole = _exact(windows.pop(WHOLE).sketch, chosen)
        self._rates = [(self._amount(window), now_s - window.span_s) for window in windows.values()]
        rows = [_numbers(whole), *(_numbers(window.sketch) for window in windows.values())]
        labelled = {id(series) for labels, series in self.all_series() if labels}
        for series, own in zip(chosen, every, strict=True):
            if id(series) in labelled:
                rows.append(_numbers(_exact(own[WHOLE].sketch, [series])))
        return array("d", chain.from_iterable(rows))

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
                help=self.help,
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
    return _dictionary(_numbers(sketch))


def _numbers(sketch: Sketch) -> list[float]:
    """Return the ``_FIGURES`` of ``sketch``."""
    minimum, maximum = (sketch.minimum, sketch.maximum) if sketch.count else (0.0, 0.0)
    return [sketch.count, sketch.sum, sketch.mean, minimum, maximum, *sketch.quantiles(RANKS.values())]


def _dictionary(numbers: Sequence[float]) -> dict[str, Any]:
    figures: dict[str, Any] = dict(zip(_FIGURES, numbers, strict=True))
    figures["count"] = int(figures["count"])
    return figures


def _of_series(labelled: Sequence[tuple[LabelKey, Series]], rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [
        {"labels": dict(labels), "last": series.last, **_dictionary(row)}
        for (labels, series), row in zip(labelled, rows, strict=True)
    ]


def _exact(sketch: Sketch, several: Sequence[Series]) -> Sketch:
    """Return ``sketch`` with the count, sum and extremes of the whole life, which no rounding has touched."""
    sketch.count = sum(series.count for series in several)
    sketch.total = sum(series.total for series in several)
    sketch.minimum = min(series.minimum for series in several)
    sketch.maximum = max(series.maximum for series in several)
    return sketch
