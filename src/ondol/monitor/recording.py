"""service: takes measurements from everywhere at almost no cost, and answers what they come to."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from math import isfinite, nextafter
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from ondol.errors import MonitorError
from ondol.monitor.metric_book import MetricBook
from ondol.monitor.names import MAX_LABEL_CHARS, check_exemplar, check_labels, check_name
from ondol.monitor.relief import Relief
from ondol.monitor.snapshots import Exemplar
from ondol.monitor.timing import Measurement, make_timed
from ondol.monitor.windows import SLOT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.clock import Clock
    from ondol.monitor.query import Query, Reading
    from ondol.monitor.series import Series

__all__ = ["MAX_PENDING", "Recording"]

logger = logging.getLogger("ondol.monitor")

P = ParamSpec("P")
T = TypeVar("T")

MAX_PENDING: Final = 4096
"""So many values of a series wait at most before they are counted; those of decorators and of ``bind`` for a second."""

RECENT: Final = "5m"
_MAX_QUICK: Final = 4096
_MAX_KEYS_A_SERIES: Final = 4
_SETTLE_S: Final = 1.0
"""How often the decorators look how much waits: to look on each call would cost as much as the clock."""


class Recording:
    """The metrics of one monitor.

    To record is to append to a list. What was appended is counted all at once: when somebody reads, when a slot of ten
    seconds ends, and when much is waiting. The lists are bounded all the same, also where nothing runs.

    Thread-safety: everything may be called from any thread. A child process begins with what was counted before the
    fork, and with a lock of its own.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin without metrics."""
        self._clock = clock
        self.now: Callable[[], float] = clock.monotonic
        self._lock = threading.RLock()  # held while the book is read or counted into
        self._book = MetricBook()
        # Read without the lock: a key maps to one series for ever.
        self._quick: dict[tuple[object, ...], Series] = {}
        self._slot_ends_s = _end_of_slot(self.now())
        """When the slot of ten seconds ends, so that what came in it has to be counted."""
        self.settles_at_s = 0.0
        """When somebody who records should look again whether anything has to be counted."""
        self._relief = Relief(self._relieve)
        self._watched: list[Series] = []
        """Series whose recorder does not look how much waits."""
        self._errors = 0
        self._told: set[str] = set()
        """Of what was logged once and is only counted from then on."""
        _recordings.add(self)

    def add_metric(self, name: str, value: float, unit: str = "", **labels: str) -> None:
        """Record ``value``.

        Args:
            name: words of ASCII letters, digits and ``_``, joined by dots.
            value: a finite number.
            unit: one per name; empty when not said.
            labels: tell series of one metric apart; keep their values few.

        Raises:
            MonitorError: the name, value, unit or a label is not valid, or the metric has another unit.

        Cost: two dictionary look-ups and an append. Where that is too much, see ``bind``.
        """
        key = (name, unit, *labels.items()) if labels else (name, unit)
        try:
            series = self._quick.get(key)
            is_finite = isfinite(value)
        except (TypeError, OverflowError):
            series, is_finite = None, _is_finite(value)
        if not is_finite:
            raise MonitorError(f"metric {name!r}: value {_shown(value)} is not allowed: it must be a finite number")
        if series is None:
            series = self._find(name, unit, labels, key)
        at_s = self.now()
        if at_s >= self._slot_ends_s or len(series.pending) >= MAX_PENDING:
            self.fold()
        series.at_s = at_s
        series.pending.append(value)

    def _find(self, name: str, unit: str, labels: dict[str, str], key: tuple[object, ...]) -> Series:
        with self._lock:
            series, is_exact = self._book.find(name, unit, labels)
            # What overflows or was cut, and odd keys, are looked up the slow way: the map must not grow with them.
            is_short = all(type(text) is str and len(text) <= MAX_LABEL_CHARS for text in labels.values())
            if is_exact and is_short and len(self._quick) < _MAX_QUICK and series.key_count < _MAX_KEYS_A_SERIES:
                series.key_count += 1
                self._quick[key] = series
        return series

    def describe(self, name: str, help: str = "", *, kind: str | None = None, unit: str = "") -> None:  # noqa: A002  # the word of every exporter
        """Say what a metric is, before or after its first value.

        Args:
            name: of the metric.
            help: a sentence on what it measures, for exporters.
            kind: ``"gauge"`` (a level: its newest value counts), ``"counter"`` (amounts that are added up), or
                ``"summary"`` (observations: their distribution counts). Not said: as its name and unit tell.
            unit: of its values.

        Raises:
            MonitorError: the name, unit or kind is not valid, or the metric has another unit.
        """
        with self._lock:
            self._book.declare(name, unit, kind, " ".join(str(help).split()))

    def bind(self, name: str, unit: str = "", **labels: str) -> Callable[[float], None]:
        """Return the cheapest way to record one value after another of the same series.

        The returned function is the append of a list: it checks nothing. What is no finite number is found when the
        values are counted; it is left out, logged once for each metric, and part of ``get_stats()["errors"]``. Values
        get the time at which they are counted, which is half a second off at most while the monitor runs.

        Raises:
            MonitorError: the name, unit or a label is not valid, or the metric has another unit.

        Thread-safety: of ``list.append``.
        """
        series = self.series(name, unit, **labels)
        series.is_bound = True
        self._relief.start()
        return series.pending.append

    def series(self, name: str, unit: str = "", **labels: str) -> Series:
        """Return the series that values of these go to, for a recorder that does not look how much waits in it.

        Raises:
            MonitorError: the name, unit or a label is not valid, or the metric has another unit.
        """
        with self._lock:
            series = self._book.find(name, unit, labels)[0]
            if not series.is_watched:
                series.is_watched = True
                self._watched.append(series)
        return series

    def add_exemplar(self, name: str, value: float, leads_to: Mapping[str, str], /, **labels: str) -> None:
        """Let exporters show ``leads_to``, such as a request's id, beside the bucket of ``value``.

        The value itself is recorded by ``add_metric``; of each bucket the newest exemplar is kept. Of a series that is
        not there nothing is kept.

        Raises:
            MonitorError: the name or a label is not valid.
        """
        key = check_labels(labels)
        with self._lock:
            metric = self._book.metrics.get(check_name(name))
            series = None if metric is None else metric.series.get(key)
            if metric is not None and series is not None:
                exemplar = Exemplar(value, self._clock.wall(), check_exemplar(leads_to))
                series.add_exemplar(metric.unit, exemplar)

    def measure(self, name: str, unit: str = "seconds", **labels: str) -> Measurement:
        """Return a ``with`` block that records how long it took; a failing block counts as ``name.errors``.

        Raises:
            MonitorError: the name or a label is not valid, the unit is no unit of time, or the metric has another one.
        """
        return Measurement(self, name, unit, labels)

    def timed(self, name: str, unit: str = "seconds") -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator that measures functions, coroutines and generators, see ``monitor_performance``.

        Raises:
            MonitorError: the name is not valid, the unit is no unit of time, or the metric has another one.
        """
        return make_timed(self, name, unit)

    def count_failure(self, name: str, labels: Mapping[str, str]) -> None:
        """Count one under ``name``; what keeps it from that is logged once and counted: nobody's error gets lost."""
        try:
            self.add_metric(name, 1, "count", **labels)
        except Exception:  # noqa: BLE001  # logged and counted there
            self.note_trouble(f"failure {name}", "a failure could not be counted as %r", name)

    def note_trouble(self, what: str, message: str, *args: object) -> None:
        """Count that measuring failed, in an ``except`` block; log it with its traceback the first time."""
        self._errors += 1
        if what not in self._told and len(self._told) < _MAX_QUICK:
            self._told.add(what)
            logger.error("%s; this is said once", message % args, exc_info=True)  # noqa: LOG014  # its callers handle one

    def fold(self) -> None:
        """Count what waits to be counted. Reading does this by itself."""
        now_s = self.now()
        with self._lock:
            refused: dict[str, int] = {}
            if now_s >= self._slot_ends_s:
                # What came in the slot that has ended is counted in it.
                ended_s, self._slot_ends_s = self._slot_ends_s, _end_of_slot(now_s)
                refused = self._book.fold(nextafter(ended_s, 0.0))
            refused = {**refused, **self._book.fold(now_s)}
        # Without the lock: a log handler may want to read.
        self._note_refused(refused)

    def settle(self, at_s: float) -> None:
        """Count what waits when the slot has ended by ``at_s``, or when much waits. Never raises."""
        self.settles_at_s = at_s + _SETTLE_S
        try:
            self._relieve()
        except Exception:  # noqa: BLE001  # logged and counted there
            self.note_trouble("settle", "measurements could not be counted")
        self.settles_at_s = min(self._slot_ends_s, at_s + _SETTLE_S)

    def _relieve(self) -> None:
        """Count what came in a slot that has ended, and the series whose recorder does not look how much waits."""
        if self.now() >= self._slot_ends_s or any(len(series.pending) >= MAX_PENDING for series in self._watched):
            self.fold()

    def _note_refused(self, refused: Mapping[str, int]) -> None:
        for name, count in refused.items():
            self._errors += count
            if f"refused {name}" not in self._told:
                self._told.add(f"refused {name}")
                logger.error(
                    "metric %r was given %d value(s) that are no finite numbers; they are left out, this is said once",
                    *(name, count),
                )

    def read(self, query: Query) -> Reading | None:
        """Answer ``query``, ``None`` when there are no such values."""
        self.fold()
        return self._read_counted(query)

    def _read_counted(self, query: Query) -> Reading | None:
        """Answer ``query`` from what is counted already."""
        with self._lock:
            return self._book.reading(query, self.now())

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Return every metric's figures by name."""
        self.fold()
        with self._lock:
            return self._book.summaries(self.now())

    def recent_summaries(self) -> dict[str, dict[str, Any]]:
        """Return every metric's figures of the last five minutes only, by name: a fraction of the work."""
        self.fold()
        with self._lock:
            return self._book.summaries(self.now(), only=RECENT)

    @property
    def series_count(self) -> int:
        """How many series there are."""
        return self._book.series_count

    def _forked(self) -> None:
        """Begin anew in a child: its lock may be held by a thread that is not there; what waits is the parent's."""
        self._lock = threading.RLock()
        for metric in self._book.metrics.values():
            for _, series in metric.all_series():
                series.pending.clear()
        if any(series.is_bound for series in self._watched):
            self._relief.start()


def _end_of_slot(now_s: float) -> float:
    return (now_s // SLOT_S + 1) * SLOT_S


def _is_finite(value: object) -> bool:
    try:
        return isfinite(value)  # type: ignore[arg-type]  # anything may come in; what is no number is refused
    except (TypeError, OverflowError):
        return False


def _shown(value: object) -> str:
    try:
        return repr(value)[:200]
    except ValueError:  # an integer of more digits than Python writes out
        return f"of type {type(value).__name__}"


_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recording in list(_recordings):
        recording._forked()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
