"""service: takes measurements from everywhere, samples the host, and evaluates the alert rules."""

from __future__ import annotations

import asyncio
import logging
import time
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from ondol.clock import SystemClock
from ondol.errors import MonitorError
from ondol.monitor.alert_controls import AlertControls
from ondol.monitor.alerting import AlertDesk
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.gc_pauses import GcPauses
from ondol.monitor.health import HealthSource
from ondol.monitor.host import HostSampler
from ondol.monitor.loops import cancel_elsewhere
from ondol.monitor.recording import Recording
from ondol.monitor.report import measurement_fields
from ondol.monitor.timing import make_timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertRule
    from ondol.monitor.notices import Notices
    from ondol.monitor.snapshots import MetricSnapshot

__all__ = ["PerformanceMonitor", "make_monitor_performance"]

logger = logging.getLogger("ondol.monitor")
performance_logger = logging.getLogger("ondol.performance")

P = ParamSpec("P")
T = TypeVar("T")

REPORT_INTERVAL_S: Final = 60.0
LAG_INTERVAL_S: Final = 0.5


class PerformanceMonitor(Recording, AlertControls):
    """Live metrics, the machine's health, and alerts.

    With ``is_enabled=False`` nothing is sampled and no alert fires, but metrics that are added can be read.

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
        super().__init__(clock if clock is not None else SystemClock())
        self._is_enabled = is_enabled
        self._interval_s = sample_interval_s
        self._health = HealthSource(
            host if host is not None else HostSampler(), self._clock, GcPauses(time.perf_counter)
        )
        self._alerts = AlertDesk(self._clock)
        self._notices: Notices | None = None
        self._told_by: Notices | None = None
        """What was started to tell of alerts; others may have been given since."""
        self._probes: list[Callable[[], Iterable[tuple[str, float, str]]]] = []
        self._task: asyncio.Task[None] | None = None
        self._started_at_s: float | None = None
        self._reported_at_s = self.now()
        for rule in rules:
            self._alerts.add(rule)

    def add_probe(self, probe: Callable[[], Iterable[tuple[str, float, str]]]) -> None:
        """Ask ``probe`` on each tick for measurements ``(name, value, unit)``; one that fails is logged and counted."""
        self._probes.append(probe)

    # --- reading ---

    def get_stats(self) -> dict[str, Any]:
        """Return every metric's figures, the alerts and the machine's health, as plain values."""
        return {
            "is_enabled": self._is_enabled,
            "metrics": self.summaries(),
            "alerts": self.alert_stats(),
            "system_health": self.get_system_health(),
            "uptime_seconds": 0.0 if self._started_at_s is None else self.now() - self._started_at_s,
            "series": self.series_count,
            "errors": self._errors + self._alerts.listener_errors,
        }

    def get_system_health(self) -> dict[str, Any]:
        """Return how machine and process are doing; sampled anew when the last sample is older than a second."""
        return self._health.read()

    def collect(self) -> list[MetricSnapshot]:
        """Return every series for an exporter, and one gauge a rule that is 1 while its alert is active."""
        self.fold()
        with self._lock:
            series = self._book.collect(self.now(), self._clock.wall())
        # Not under the lock: the rules take theirs first and then this one when they read a metric.
        return series + self._alerts.snapshots()

    # --- sampling ---

    def tick(self) -> None:
        """Sample the host, ask the probes, evaluate the rules, and log the measurements when a minute has passed."""
        if not self._is_enabled:
            return
        for name, value, unit in self._health.sample_metrics():
            self.add_metric(name, value, unit)
        self._ask_probes()
        self.fold()  # once for all rules
        self._alerts.evaluate(self._read_counted)
        if self.now() - self._reported_at_s >= REPORT_INTERVAL_S:
            self._report()

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
        active = [event.name for event in self._alerts.active()]
        fields = measurement_fields(self.recent_summaries(), self.get_system_health(), active)
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
        """Tick every ``sample_interval_s`` from now on; a monitor that runs in another loop runs there no more.

        Where it is running already, only the notices are followed that were given or changed since.
        """
        if self._is_running():
            await self._follow_notices()
            return
        cancel_elsewhere(self._task)
        self._alerts.forget_pending()
        self._started_at_s = self._reported_at_s = self.now()
        try:
            self._health.start()
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ondol.monitor")
            await self._follow_notices()
        except BaseException:
            await self._end_at_once()
            raise

    async def _follow_notices(self) -> None:
        """Let those tell of alerts that are asked to, and no others."""
        before, self._told_by = self._told_by, self._notices
        try:
            if self._told_by is not None:
                await self._told_by.start()
        finally:
            if before is not None and before is not self._told_by:
                await before.stop()

    def _is_running(self) -> bool:
        task = self._task
        # A loop that was closed without a stop() has left a task behind that will never run again.
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    async def stop(self) -> None:
        """Stop ticking and log the measurements a last time. Safe to call twice; metrics stay readable.

        Cancellation: all ends at once, and nothing is left running.
        """
        if self._started_at_s is None:
            return
        self._started_at_s = None
        try:
            await self._end_ticking()
            notices, self._told_by = self._told_by, None
            if notices is not None:
                await notices.stop()
            if self._is_enabled:
                self._report()
        finally:
            await self._end_at_once()

    async def _end_at_once(self) -> None:
        """End what has not been ended yet, without waiting for news that were not told."""
        self._started_at_s = None
        try:
            await self._end_ticking()
        finally:
            notices, self._told_by = self._told_by, None
            try:
                if notices is not None:
                    await notices.stop(grace_s=0.0)
            finally:
                self._health.stop()

    async def _end_ticking(self) -> None:
        task, self._task = self._task, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            cancel_elsewhere(task)
            return
        task.cancel()
        await asyncio.wait([task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick_s = loop.time()
        while True:
            if loop.time() >= next_tick_s:
                next_tick_s = loop.time() + self._interval_s
                self._tick_safely()
            self._relieve()
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


def make_monitor_performance(
    resolve: Callable[[], PerformanceMonitor],
) -> Callable[..., Callable[[Callable[P, T]], Callable[P, T]]]:
    """Return the guide's ``monitor_performance(name, unit)``; ``resolve`` gives the monitor, asked on each call."""

    def monitor_performance(name: str, unit: str = "seconds") -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Measure a plain function or a coroutine function as the metric ``name``; errors count as ``name.errors``."""
        return make_timed(resolve, name, unit)

    return monitor_performance
