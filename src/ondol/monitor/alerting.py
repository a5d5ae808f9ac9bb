"""service: owns the alert rules of a monitor and tells logs and listeners of every transition, once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.monitor.alerts import AlertEvaluator
from ondol.monitor.series import MetricSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent, AlertRule
    from ondol.monitor.series import Reading

__all__ = ["AlertDesk"]

logger = logging.getLogger("ondol.monitor")
performance_logger = logging.getLogger("ondol.performance")

_LEVELS: Final[Mapping[str, int]] = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_RECENT_EVENTS: Final = 20


class AlertDesk:
    """Evaluates the rules and announces what changed. Thread-safe; listeners are called without a lock held."""

    def __init__(self, clock: Clock) -> None:
        """Begin without rules."""
        self._clock = clock
        self._lock = threading.Lock()
        self._evaluator = AlertEvaluator()
        self._listeners: list[Callable[[AlertEvent], object]] = []
        self.listener_errors = 0

    def add(self, rule: AlertRule) -> None:
        """Watch ``rule``."""
        with self._lock:
            events = self._evaluator.add(rule, **self._times())
        self._announce(events)

    def remove(self, name: str) -> bool:
        """Forget the rule of that name; return whether there was one."""
        with self._lock:
            events = self._evaluator.remove(name, now_s=self._clock.monotonic(), wall_s=self._clock.wall())
        self._announce(events or [])
        return events is not None

    def evaluate(self, read: Callable[[str], Reading | None]) -> None:
        """Compare each rule with the newest value that ``read`` gives for its metric."""
        with self._lock:
            events = self._evaluator.evaluate(read, **self._times())
        self._announce(events)

    def reset(self, reason: str) -> None:
        """Resolve every active alert with ``reason``."""
        with self._lock:
            events = self._evaluator.reset(reason, **self._times())
        self._announce(events)

    def forget_pending(self) -> None:
        """Let the durations of conditions that have not fired begin anew."""
        with self._lock:
            self._evaluator.forget_pending()

    def listen(self, callback: Callable[[AlertEvent], object]) -> None:
        """Call ``callback`` on each transition."""
        self._listeners.append(callback)

    def rules(self) -> list[AlertRule]:
        """Return the rules."""
        with self._lock:
            return self._evaluator.rules()

    def active(self) -> list[AlertEvent]:
        """Return the firing event of each active alert."""
        with self._lock:
            return self._evaluator.active()

    def history(self) -> list[AlertEvent]:
        """Return the last transitions, newest last."""
        with self._lock:
            return self._evaluator.history()

    def get_stats(self) -> dict[str, Any]:
        """Return what is active, the last transitions and the counts, as plain values."""
        with self._lock:
            return {
                "active": [event.as_dict() for event in self._evaluator.active()],
                "recent": [event.as_dict() for event in self._evaluator.history()[-_RECENT_EVENTS:]],
                "rules": len(self._evaluator.rules()),
                "fired": self._evaluator.fired_count,
                "resolved": self._evaluator.resolved_count,
            }

    def snapshots(self) -> list[MetricSnapshot]:
        """Return one gauge a rule: 1 while its alert is active, else 0."""
        with self._lock:
            active = {event.name for event in self._evaluator.active()}
            return [_snapshot(rule, is_active=rule.name in active) for rule in self._evaluator.rules()]

    def _times(self) -> dict[str, float]:
        return {"now_s": self._clock.monotonic(), "wall_s": self._clock.wall()}

    def _announce(self, events: list[AlertEvent]) -> None:
        for event in events:
            level = _LEVELS[event.severity] if event.state == "fired" else logging.INFO
            performance_logger.log(level, event.sentence, extra={"fields": _log_fields(event)})
            for listener in list(self._listeners):
                self._tell(listener, event)

    def _tell(self, listener: Callable[[AlertEvent], object], event: AlertEvent) -> None:
        try:
            listener(event)
        except Exception:
            self.listener_errors += 1
            logger.exception("an alert listener failed on %s (%s)", event.name, event.state)


def _log_fields(event: AlertEvent) -> dict[str, Any]:
    fields = event.as_dict()
    return {"event": "alert", "alert": fields.pop("name"), "advice": fields.pop("message"), **fields}


def _snapshot(rule: AlertRule, *, is_active: bool) -> MetricSnapshot:
    value = float(is_active)
    labels = {"rule": rule.name, "severity": rule.severity}
    return MetricSnapshot("alerts.active", "", labels, "gauge", 1, value, value, {})
