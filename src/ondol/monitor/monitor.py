"""service: takes measurements from everywhere, samples the host, and evaluates the alert rules."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from ondol.clock import SystemClock
from ondol.errors import MonitorError
from ondol.monitor.alerting import AlertDesk
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.health import HealthSource
from ondol.monitor.host import HostSampler
from ondol.monitor.report import measurement_fields
from ondol.monitor.series import MetricBook
from ondol.monitor.timing import Measurement, make_timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent, AlertRule
    from ondol.monitor.series import MetricSnapshot, Reading, Series

__all__ = ["PerformanceMonitor", "make_monitor_performance"]

logger = logging.getLogger("ondol.monitor")
performance_logger = logging.getLogger("ondol.performance")

P = ParamSpec("P")
T = TypeVar("T")

REPORT_INTERVAL_S: Final = 60.0
LAG_INTERVAL_S: Final = 0.5
_MAX_PENDING: Final = 1024  # folding this many takes about a millisecond
_MAX_QUICK: Final = 4096


class PerformanceMonitor:
    """Live metrics, the machine's health, and alerts.

    Recording appends to a buffer; the buffer is folded into sketches when somebody reads, on each tick, and when it
    is full. With ``is_enabled=False`` nothing is sampled and no alert fires, but metrics that are added can be read.

    Thread-safety: everything but ``start`` and ``stop``, which belong to one event loop at a time.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        is_enabled: bool = True,
        sample_interval_s: float = 5.0,
        host: HostSampler | None = None,
        rules: Iterable[AlertRule] = DEFAULT_RULES,
    ) -> None:
        """Begin without metrics; nothing is sampled before the first ``tick``.

        Raises:
            MonitorError: ``sample_interval_s`` is not a time above 0.
        """
        if not isfinite(sample_interval_s) or sample_interval_s <= 0:
            raise MonitorError(f"sample_interval_s={sample_interval_s!r} is not allowed: it must be a number > 0")
        self._clock = clock if clock is not None else SystemClock()
        self.now: Callable[[], float] = self._clock.monotonic
        self._is_enabled = is_enabled
        self._interval_s = sample_interval_s
        self._health = HealthSource(host if host is not None else HostSampler(), self._clock)
        self._alerts = AlertDesk(self._clock)
        self._lock = threading.RLock()  # held while the book is read or folded into
        self._book = MetricBook()
        # Read without the lock: a key maps to one series for ever.
        self._quick: dict[tuple[object, ...], Series] = {}
        self._pending: deque[tuple[Series, float, float]] = deque()
        self._probes: list[Callable[[], Iterable[tuple[str, float, str]]]] = []
        self._errors = 0
        self._task: asyncio.Task[None] | None = None
        self._started_at_s: float | None = None
        self._reported_at_s = self.now()
        for rule in rules:
            self._alerts.add(rule)

    # --- recording ---

    def add_metric(self, name: str, value: float, unit: str = "", **labels: str) -> None:
        """Record ``value``.

        Args:
            name: words of ASCII letters, digits and ``_``, joined by dots.
            value: a finite number.
            unit: one per name; empty when not said.
            labels: tell series of one metric apart; keep their values few.

        Raises:
            MonitorError: the name, value, unit or a label is not valid, or the metric has another unit.

        Cost: two dictionary look-ups and an append.
        """
        key = (name, unit, *labels.items()) if labels else (name, unit)
        try:
            series = self._quick.get(key)
            is_finite = isfinite(value)
        except (TypeError, OverflowError):
            series, is_finite = None, _is_finite(value)
        if not is_finite:
            raise MonitorError(f"metric {name!r}: value {value!r} is not allowed: it must be a finite number")
        if series is None:
            series = self._find(name, unit, labels, key)
        self._pending.append((series, value, self.now()))
        if len(self._pending) >= _MAX_PENDING:
            self._fold()

    def _find(self, name: str, unit: str, labels: dict[str, str], key: tuple[object, ...]) -> Series:
        with self._lock:
            series, is_exact = self._book.find(name, unit, labels)
            # Overflowing and odd keys are looked up the slow way each time: the quick map must not grow with them.
            if is_exact and len(self._quick) < _MAX_QUICK and all(type(v) is str for v in labels.values()):
                self._quick[key] = series
        return series

    def _fold(self) -> None:
        with self._lock:
            pending = self._pending
            for _ in range(len(pending)):
                series, value, at_s = pending.popleft()
                series.fold(float(value), at_s)

    def measure(self, name: str, unit: str = "seconds", **labels: str) -> Measurement:
        """Return a ``with`` block that records how long it took; a failing block counts as ``name.errors``.

        Raises:
            MonitorError: the name is not valid, or the unit is no unit of time.
        """
        return Measurement(self, name, unit, labels)

    def timed(self, name: str, unit: str = "seconds") -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator that measures a plain function or a coroutine function (then the await is measured).

        Raises:
            MonitorError: the name is not valid, or the unit is no unit of time.
        """
        return make_timed(lambda: self, name, unit)

    def add_probe(self, probe: Callable[[], Iterable[tuple[str, float, str]]]) -> None:
        """Ask ``probe`` on each tick for measurements ``(name, value, unit)``; one that fails is logged and counted."""
        self._probes.append(probe)

    # --- reading ---

    def get_stats(self) -> dict[str, Any]:
        """Return every metric's figures, the alerts and the machine's health, as plain values."""
        now_s = self.now()
        with self._lock:
            self._fold()
            metrics = self._book.summaries(now_s)
            series_count = self._book.series_count
        return {
            "is_enabled": self._is_enabled,
            "metrics": metrics,
            "alerts": self._alerts.get_stats(),
            "system_health": self.get_system_health(),
            "uptime_seconds": 0.0 if self._started_at_s is None else now_s - self._started_at_s,
            "series": series_count,
            "errors": self._errors + self._alerts.listener_errors,
        }

    def get_system_health(self) -> dict[str, Any]:
        """Return how machine and process are doing; sampled anew when the last sample is older than a second."""
        return self._health.read()

    def collect(self) -> list[MetricSnapshot]:
        """Return every series for an exporter, and one gauge a rule that is 1 while its alert is active."""
        with self._lock:
            self._fold()
            series = self._book.collect()
        # Not under the lock: the rules take theirs first and then this one when they read a metric.
        return series + self._alerts.snapshots()

    # --- alerts ---

    def add_alert_rule(self, rule: AlertRule) -> None:
        """Watch ``rule`` from now on; it takes the place of another rule of that name."""
        self._alerts.add(rule)

    def remove_alert_rule(self, name: str) -> bool:
        """Forget a rule, resolving its alert; return whether there was one of that name."""
        return self._alerts.remove(name)

    def alert_rules(self) -> list[AlertRule]:
        """Return the rules in the order they were added."""
        return self._alerts.rules()

    def active_alerts(self) -> list[AlertEvent]:
        """Return the firing event of each active alert."""
        return self._alerts.active()

    def alert_history(self) -> list[AlertEvent]:
        """Return the last 1000 transitions, newest last."""
        return self._alerts.history()

    def add_alert_listener(self, callback: Callable[[AlertEvent], object]) -> None:
        """Call ``callback`` once for each alert that fires or is resolved; one that raises is logged and counted."""
        self._alerts.listen(callback)

    # --- sampling ---

    def tick(self) -> None:
        """Sample the host, ask the probes, evaluate the rules, and log the measurements when a minute has passed."""
        if not self._is_enabled:
            return
        for name, value, unit in self._health.sample_metrics():
            self.add_metric(name, value, unit)
        self._ask_probes()
        with self._lock:
            self._fold()
        self._alerts.evaluate(self._read)
        if self.now() - self._reported_at_s >= REPORT_INTERVAL_S:
            self._report()

    def _read(self, name: str) -> Reading | None:
        with self._lock:
            return self._book.reading(name)

    def _ask_probes(self) -> None:
        for probe in list(self._probes):
            try:
                for name, value, unit in probe():
                    self.add_metric(name, value, unit)
            except Exception:
                self._errors += 1
                logger.exception("a probe failed")

    def _report(self) -> None:
        self._reported_at_s = self.now()
        with self._lock:
            self._fold()
            summaries = self._book.summaries(self._reported_at_s)
        active = [event.name for event in self._alerts.active()]
        fields = measurement_fields(summaries, self.get_system_health(), active)
        performance_logger.info("measurements", extra={"fields": fields})

    def configure(self, *, is_enabled: bool | None = None) -> None:
        """Turn sampling and alerts on or off; turning them off resolves what is active."""
        if is_enabled is None or is_enabled == self._is_enabled:
            return
        self._is_enabled = is_enabled
        if not is_enabled:
            self._alerts.reset("monitoring was turned off")

    @property
    def is_enabled(self) -> bool:
        """Whether it samples and evaluates."""
        return self._is_enabled

    async def start(self) -> None:
        """Tick every ``sample_interval_s`` from now on. Starting a running monitor does nothing."""
        if self._is_running():
            return
        self._alerts.forget_pending()
        self._started_at_s = self._reported_at_s = self.now()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ondol.monitor")

    def _is_running(self) -> bool:
        task = self._task
        # A loop that was closed without a stop() has left a task behind that will never run again.
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    async def stop(self) -> None:
        """Stop ticking and log the measurements a last time. Safe to call twice; metrics stay readable."""
        task, self._task = self._task, None
        if self._started_at_s is None:
            return
        self._started_at_s = None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        if self._is_enabled:
            self._report()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick_s = loop.time()
        while True:
            if loop.time() >= next_tick_s:
                next_tick_s = loop.time() + self._interval_s
                self._tick_safely()
            before_s = loop.time()
            pause_s = max(0.0, min(next_tick_s - before_s, LAG_INTERVAL_S))
            await asyncio.sleep(pause_s)
            self._health.note_lag(loop.time() - before_s - pause_s)

    def _tick_safely(self) -> None:
        try:
            self.tick()
        except Exception:
            self._errors += 1
            logger.exception("a monitoring tick failed; the next one follows in %g s", self._interval_s)


def _is_finite(value: object) -> bool:
    try:
        return isfinite(value)  # type: ignore[arg-type]  # anything may come in; what is no number is refused
    except (TypeError, OverflowError):
        return False


def make_monitor_performance(
    resolve: Callable[[], PerformanceMonitor],
) -> Callable[..., Callable[[Callable[P, T]], Callable[P, T]]]:
    """Return the guide's ``monitor_performance(name, unit)``; ``resolve`` gives the monitor, asked on each call."""

    def monitor_performance(name: str, unit: str = "seconds") -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Measure a plain function or a coroutine function as the metric ``name``; errors count as ``name.errors``."""
        return make_timed(resolve, name, unit)

    return monitor_performance
