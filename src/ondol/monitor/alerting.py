"""service: owns the alert rules and silences of a monitor, tells logs and listeners of every transition, once."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import MonitorError
from ondol.monitor.alert_rule import AlertRule, shown
from ondol.monitor.alerts import AlertEvaluator
from ondol.monitor.silences import SilenceBook
from ondol.monitor.snapshots import MetricSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent
    from ondol.monitor.query import Query, Reading
    from ondol.monitor.silences import PlannedSilence, Silence

__all__ = ["AlertDesk"]

logger = logging.getLogger("ondol.monitor")
performance_logger = logging.getLogger("ondol.performance")

_LEVELS: Final[Mapping[str, int]] = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_RECENT_EVENTS: Final = 20


class AlertDesk:
    """Evaluates the rules and announces what changed. Thread-safe; listeners are called without a lock held.

    A silence changes nothing of that: whoever sends notices asks ``is_silenced``.
    """

    def __init__(self, clock: Clock, *, make_id: Callable[[], str] | None = None) -> None:
        """Begin without rules and silences; ``make_id`` gives the ids of silences, random ones by default."""
        self._clock = clock
        # Taken again where something interrupts its holder and asks: a signal handler, the collector's finalizers.
        self._lock = threading.RLock()
        self._evaluating = threading.RLock()  # one evaluation after the other: figures must not be older than the last
        self._evaluator = AlertEvaluator()
        self._silences = SilenceBook(make_id if make_id is not None else _random_id)
        self._listeners: list[Callable[[AlertEvent], object]] = []
        self._untold: deque[AlertEvent] = deque()
        self._is_telling = False
        self.listener_errors = 0

    def add(self, rule: AlertRule) -> None:
        """Watch ``rule``.

        Raises:
            MonitorError: it is no :class:`AlertRule`.
        """
        if not isinstance(rule, AlertRule):
            raise MonitorError(
                f"{shown(rule)} is not allowed as a rule: it must be an ondol.monitor.AlertRule, such as "
                'AlertRule("memory_high", "system.memory_percent", 90.0, ">=")'
            )
        with self._lock:
            self._untold += self._evaluator.add(rule, **self._times())
        self._announce()

    def remove(self, name: str) -> bool:
        """Forget the rule of that name; return whether there was one."""
        with self._lock:
            events = self._evaluator.remove(name, now_s=self._clock.monotonic(), wall_s=self._clock.wall())
            self._untold += events or []
        self._announce()
        return events is not None

    def evaluate(self, read: Callable[[Query], Reading | None]) -> None:
        """Compare each rule with what ``read`` answers to its query; it is called without the lock that others need.

        Reading may log, and whoever takes the line may ask for the alerts.
        """
        readings: dict[Query, Reading | None] = {}
        with self._evaluating:
            while unread := self._evaluate_if_read(readings):
                readings.update((query, read(query)) for query in unread)
        self._announce()

    def _evaluate_if_read(self, readings: Mapping[Query, Reading | None]) -> set[Query]:
        """Evaluate the rules if all their queries are answered in ``readings``; return those that are not."""
        with self._lock:
            unread = {rule.query for rule in self._evaluator.rules()} - readings.keys()
            if not unread:
                self._untold += self._evaluator.evaluate(readings.__getitem__, **self._times())
            return unread

    def reset(self, reason: str) -> None:
        """Resolve every active alert with ``reason``."""
        with self._lock:
            self._untold += self._evaluator.reset(reason, **self._times())
        self._announce()

    def forget_pending(self) -> None:
        """Let the durations of conditions that have not fired begin anew."""
        with self._lock:
            self._evaluator.forget_pending()

    def listen(self, callback: Callable[[AlertEvent], object]) -> None:
        """Call ``callback`` on each transition."""
        self._listeners.append(callback)

    def unlisten(self, callback: Callable[[AlertEvent], object]) -> None:
        """Call ``callback`` no more; does nothing when it was not called."""
        if callback in self._listeners:
            self._listeners.remove(callback)

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

    def rules_state(self) -> list[dict[str, Any]]:
        """Return each rule and whether its alert is ``inactive``, ``pending`` or ``firing``, as plain values."""
        with self._lock:
            return self._evaluator.states(self._clock.monotonic())

    def get_stats(self) -> dict[str, Any]:
        """Return what is active or pending, the last transitions, the silences and the counts, as plain values."""
        with self._lock:
            now_s = self._clock.monotonic()
            states = self._evaluator.states(now_s)
            by_name = {state["name"]: state for state in states}
            return {
                "active": [self._shown(event, by_name[event.name], now_s) for event in self._evaluator.active()],
                "pending": [state for state in states if state["state"] == "pending"],
                "recent": [event.as_dict() for event in self._evaluator.history()[-_RECENT_EVENTS:]],
                "silences": self._silences.states(now_s),
                "rules": len(self._evaluator.rules()),
                "fired": self._evaluator.fired_count,
                "resolved": self._evaluator.resolved_count,
            }

    def _shown(self, event: AlertEvent, state: Mapping[str, Any], now_s: float) -> dict[str, Any]:
        silence = self._silences.find(event.labels, now_s)
        return {
            **event.as_dict(),
            "value": state["value"],
            "fired_value": event.value,
            "since_seconds": state["since_seconds"],
            "silenced_by": None if silence is None else silence.id,
        }

    # --- silences ---

    def silence(
        self,
        matchers: Mapping[str, str],
        duration_s: float,
        comment: str = "",
        created_by: str = "",
        *,
        starts_in_s: float = 0.0,
    ) -> Silence:
        """Hold back the notices of alerts whose labels fit ``matchers``, for ``duration_s``.

        Args:
            matchers: a glob for each label that an alert must have, such as ``{"alertname": "disk_*"}``.
            duration_s: more than 0, at most 365 days.
            comment: why, for those who wonder.
            created_by: who to ask.
            starts_in_s: when it begins; at once by default.

        Raises:
            MonitorError: an argument is not valid, or there are as many silences as there may be.
        """
        with self._lock:
            return self._silences.add(
                matchers,
                duration_s,
                **self._times(),
                starts_in_s=starts_in_s,
                comment=comment,
                created_by=created_by,
            )

    def plan(self, planned: PlannedSilence) -> Silence | None:
        """Add a silence whose ends are on the calendar; ``None`` when its end has passed.

        Raises:
            MonitorError: it is not valid, or there are as many silences as there may be.
        """
        wall_s = self._clock.wall()
        starts_at = wall_s if planned.starts_at is None else max(wall_s, planned.starts_at)
        if planned.ends_at <= starts_at:
            return None
        return self.silence(
            planned.matchers,
            planned.ends_at - starts_at,
            planned.comment,
            planned.created_by,
            starts_in_s=starts_at - wall_s,
        )

    def unsilence(self, silence_id: str) -> bool:
        """End a silence; return whether there was one of that id."""
        with self._lock:
            return self._silences.remove(silence_id, self._clock.monotonic())

    def silences(self) -> list[Silence]:
        """Return the silences that are or will be, in the order they were made."""
        with self._lock:
            return self._silences.current(self._clock.monotonic())

    def is_silenced(self, labels: Mapping[str, str]) -> Silence | None:
        """Return the silence that holds back the notices of an alert with ``labels`` now."""
        with self._lock:
            return self._silences.find(labels, self._clock.monotonic())

    # --- telling ---

    def snapshots(self) -> list[MetricSnapshot]:
        """Return one gauge a rule: 1 while its alert is active, else 0."""
        with self._lock:
            active = {event.name for event in self._evaluator.active()}
            return [_snapshot(rule, is_active=rule.name in active) for rule in self._evaluator.rules()]

    def _times(self) -> dict[str, float]:
        return {"now_s": self._clock.monotonic(), "wall_s": self._clock.wall()}

    def _announce(self) -> None:
        """Tell what has not been told, in the order in which it happened.

        One caller tells at a time, and tells what others add meanwhile (a listener that changes the rules among
        them): nobody may hear that an alert was resolved before hearing that it fired.
        """
        with self._lock:
            if self._is_telling:
                return
            self._is_telling = True
        try:
            while (event := self._next_untold()) is not None:
                self._tell_all(event)
        except BaseException:
            with self._lock:
                self._is_telling = False
            raise

    def _next_untold(self) -> AlertEvent | None:
        with self._lock:
            self._is_telling = bool(self._untold)
            return self._untold.popleft() if self._untold else None

    def _tell_all(self, event: AlertEvent) -> None:
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


def _random_id() -> str:
    return secrets.token_hex(4)


def _snapshot(rule: AlertRule, *, is_active: bool) -> MetricSnapshot:
    value = float(is_active)
    return MetricSnapshot(
        name="alerts.active",
        unit="",
        labels={"rule": rule.name, "severity": rule.severity},
        kind="gauge",
        count=1,
        sum=value,
        last=value,
        minimum=value,
        maximum=value,
    )
