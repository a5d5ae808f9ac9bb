"""decision: alert rules, and when an alert fires and is resolved: each exactly once an episode."""

from __future__ import annotations

import math
import operator
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ondol.errors import MonitorError
from ondol.monitor.names import check_name
from ondol.monitor.series import RECENT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.monitor.series import Reading

__all__ = ["OPERATORS", "SEVERITIES", "AlertEvaluator", "AlertEvent", "AlertRule"]

SEVERITIES: Final = ("info", "warning", "critical")
OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
NO_DATA_S: Final = RECENT_S
"""A metric without a value for so long breaks no rule any more."""

MAX_HISTORY: Final = 1000


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Fires when the newest value of a metric has been beyond the threshold for ``duration_seconds``.

    The last of these values must have come so long after the first: one value and then none does not fire.

    Raises:
        MonitorError: a field is not valid; the message names it and what it may be.
    """

    name: str
    metric_name: str
    threshold: float
    operator: str
    duration_seconds: float = 0.0
    severity: str = "warning"
    message: str = ""

    def __post_init__(self) -> None:
        """Check every field."""
        if not _is_text(self.name) or not self.name.strip() or len(self.name) > 200:
            raise self._refusal("name", self.name, "a text of 1 to 200 characters")
        check_name(self.metric_name)
        if not _is_finite(self.threshold):
            raise self._refusal("threshold", self.threshold, "a finite number")
        if self.operator not in OPERATORS:
            raise self._refusal("operator", self.operator, f"one of: {' '.join(OPERATORS)}")
        if not _is_finite(self.duration_seconds) or self.duration_seconds < 0:
            raise self._refusal("duration_seconds", self.duration_seconds, "a finite number of seconds ≥ 0")
        if self.severity not in SEVERITIES:
            raise self._refusal("severity", self.severity, f"one of: {', '.join(SEVERITIES)}")
        if not _is_text(self.message):
            raise self._refusal("message", self.message, "a text")

    def _refusal(self, field: str, value: object, allowed: str) -> MonitorError:
        return MonitorError(f"alert rule {self.name!r}: {field}={value!r} is not allowed: it must be {allowed}")

    @property
    def condition(self) -> str:
        """The rule in words, such as ``api.response_time > 2 for 60 s``."""
        duration = f" for {self.duration_seconds:g} s" if self.duration_seconds else ""
        return f"{self.metric_name} {self.operator} {self.threshold:g}{duration}"

    def is_broken_by(self, value: float) -> bool:
        """Return whether ``value`` is beyond the threshold."""
        return OPERATORS[self.operator](value, self.threshold)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class AlertEvent(NamedTuple):
    """One transition of an alert: it fired, or it was resolved."""

    name: str
    state: Literal["fired", "resolved"]
    severity: str
    metric_name: str
    condition: str
    threshold: float
    value: float | None
    at: float
    """Wall-clock seconds since the Unix epoch."""
    active_seconds: float
    """How long the condition has held; for a resolved alert, how long ago it had fired."""
    message: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self._asdict()

    @property
    def sentence(self) -> str:
        """The event in one line, as logs show it."""
        advice = f"; {self.message}" if self.message and self.state == "fired" else ""
        return f"alert {self.name} {self.state}: {self.reason}{advice}"


class _Watch:
    """What the evaluator remembers of one rule."""

    __slots__ = ("beyond_since_s", "fired", "fired_at_s", "first_value_at_s", "rule")

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.beyond_since_s: float | None = None
        self.first_value_at_s = 0.0
        self.fired: AlertEvent | None = None
        self.fired_at_s = 0.0


class AlertEvaluator:
    """Holds the rules and says which alerts change their state. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._watches: dict[str, _Watch] = {}
        self._history: deque[AlertEvent] = deque(maxlen=MAX_HISTORY)
        self.fired_count = 0
        self.resolved_count = 0

    def add(self, rule: AlertRule, *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Watch ``rule``; it takes the place of another rule of its name, whose alert is resolved."""
        known = self._watches.get(rule.name)
        if known is not None and known.rule == rule:
            return []
        events = self.remove(rule.name, now_s=now_s, wall_s=wall_s, reason="the rule was replaced") or []
        self._watches[rule.name] = _Watch(rule)
        return events

    def remove(
        self, name: str, *, now_s: float, wall_s: float, reason: str = "the rule was removed"
    ) -> list[AlertEvent] | None:
        """Forget the rule and return its alert's resolution if it was active; ``None`` for an unknown rule."""
        watch = self._watches.pop(name, None)
        return None if watch is None else self._resolve(watch, None, reason, now_s, wall_s)

    def evaluate(self, read: Callable[[str], Reading | None], *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Return what fired and what was resolved since the last evaluation.

        Args:
            read: gives the newest value of a metric by name.
            now_s: monotonic seconds.
            wall_s: seconds since the Unix epoch, kept in the events.
        """
        events: list[AlertEvent] = []
        for watch in self._watches.values():
            reading = read(watch.rule.metric_name)
            if reading is None or now_s - reading.at_s > NO_DATA_S:
                events += self._calm(watch, None, f"no value of {watch.rule.metric_name} came any more", now_s, wall_s)
            elif watch.rule.is_broken_by(reading.value):
                events += self._beyond(watch, reading, now_s, wall_s)
            else:
                text = f"{watch.rule.metric_name} is {reading.value:g} (rule: {watch.rule.condition})"
                events += self._calm(watch, reading.value, text, now_s, wall_s)
        return events

    def _beyond(self, watch: _Watch, reading: Reading, now_s: float, wall_s: float) -> list[AlertEvent]:
        if watch.beyond_since_s is None:
            watch.beyond_since_s = now_s
            watch.first_value_at_s = reading.at_s
        held_s = now_s - watch.beyond_since_s
        # One value with nothing after it has not held for long: it has only not been followed.
        proven_s = min(held_s, reading.at_s - watch.first_value_at_s)
        if watch.fired is not None or proven_s < watch.rule.duration_seconds:
            return []
        reason = f"{watch.rule.metric_name} is {reading.value:g} (rule: {watch.rule.condition})"
        watch.fired = _event(watch.rule, "fired", reading.value, wall_s, held_s, reason)
        watch.fired_at_s = now_s
        self._history.append(watch.fired)
        self.fired_count += 1
        return [watch.fired]

    def _calm(self, watch: _Watch, value: float | None, reason: str, now_s: float, wall_s: float) -> list[AlertEvent]:
        watch.beyond_since_s = None
        return self._resolve(watch, value, reason, now_s, wall_s)

    def _resolve(
        self, watch: _Watch, value: float | None, reason: str, now_s: float, wall_s: float
    ) -> list[AlertEvent]:
        if watch.fired is None:
            return []
        watch.fired = None
        event = _event(watch.rule, "resolved", value, wall_s, now_s - watch.fired_at_s, reason)
        self._history.append(event)
        self.resolved_count += 1
        return [event]

    def reset(self, reason: str, *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Begin every rule anew, as when evaluation pauses; active alerts are resolved with ``reason``."""
        return [event for watch in self._watches.values() for event in self._calm(watch, None, reason, now_s, wall_s)]

    def forget_pending(self) -> None:
        """Let conditions that have not fired yet begin anew: nobody watched them for a while."""
        for watch in self._watches.values():
            if watch.fired is None:
                watch.beyond_since_s = None

    def rules(self) -> list[AlertRule]:
        """Return the rules in the order they were added."""
        return [watch.rule for watch in self._watches.values()]

    def active(self) -> list[AlertEvent]:
        """Return the firing event of each active alert."""
        return [watch.fired for watch in self._watches.values() if watch.fired is not None]

    def history(self) -> list[AlertEvent]:
        """Return the last ``MAX_HISTORY`` transitions, newest last."""
        return list(self._history)


def _event(
    rule: AlertRule,
    state: Literal["fired", "resolved"],
    value: float | None,
    wall_s: float,
    active_seconds: float,
    reason: str,
) -> AlertEvent:
    return AlertEvent(
        name=rule.name,
        state=state,
        severity=rule.severity,
        metric_name=rule.metric_name,
        condition=rule.condition,
        threshold=rule.threshold,
        value=value,
        at=wall_s,
        active_seconds=active_seconds,
        message=rule.message,
        reason=reason,
    )
