"""decision: which alerts fire and which are resolved: each exactly once an episode."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ondol.monitor.alert_rule import NO_DATA_S, OPERATORS, SEVERITIES, AlertRule
from ondol.monitor.alert_state import AlertState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.monitor.alert_state import Transition
    from ondol.monitor.query import Query, Reading

__all__ = ["MAX_HISTORY", "NO_DATA_S", "OPERATORS", "SEVERITIES", "AlertEvaluator", "AlertEvent", "AlertRule"]

MAX_HISTORY: Final = 1000


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
    labels: Mapping[str, str] = {}
    """The rule's labels, ``alertname``, ``severity`` and ``metric``: what groups and silences go by."""
    starts_at: float = 0.0
    """When it fired, in wall-clock seconds since the Unix epoch; the same in both events of an episode."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self._asdict(), "labels": dict(self.labels)}

    @property
    def sentence(self) -> str:
        """The event in one line, as logs show it."""
        advice = f"; {self.message}" if self.message and self.state == "fired" else ""
        return f"alert {self.name} {self.state}: {self.reason}{advice}"


class AlertEvaluator:
    """Holds the rules and says which alerts change their state. Not thread-safe: its owner locks.

    Monotonic time alone decides; wall-clock time, which may jump, is only noted in the events.
    """

    def __init__(self) -> None:
        """Begin without rules."""
        self._states: dict[str, AlertState] = {}
        self._active: dict[str, AlertEvent] = {}
        self._history: deque[AlertEvent] = deque(maxlen=MAX_HISTORY)
        self.fired_count = 0
        self.resolved_count = 0

    def add(self, rule: AlertRule, *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Watch ``rule``; it takes the place of another rule of its name, whose alert is resolved."""
        known = self._states.get(rule.name)
        if known is not None and known.rule == rule:
            return []
        events = self.remove(rule.name, now_s=now_s, wall_s=wall_s, reason="the rule was replaced") or []
        self._states[rule.name] = AlertState(rule, now_s)
        return events

    def remove(
        self, name: str, *, now_s: float, wall_s: float, reason: str = "the rule was removed"
    ) -> list[AlertEvent] | None:
        """Forget the rule and return its alert's resolution if it was active; ``None`` for an unknown rule."""
        state = self._states.pop(name, None)
        return None if state is None else self._note(state.rule, state.end(None, reason, now_s), wall_s)

    def evaluate(self, read: Callable[[Query], Reading | None], *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Return what fired and what was resolved since the last evaluation.

        Args:
            read: answers a rule's query; ``None`` when there is no value.
            now_s: monotonic seconds.
            wall_s: seconds since the Unix epoch, kept in the events.
        """
        # All is read before anything changes: a reader that fails must not swallow what has just fired.
        readings = [(state, read(state.query)) for state in self._states.values()]
        return [
            event for state, reading in readings for event in self._note(state.rule, state.step(reading, now_s), wall_s)
        ]

    def _note(self, rule: AlertRule, change: Transition | None, wall_s: float) -> list[AlertEvent]:
        if change is None:
            return []
        if change.state == "fired":
            event = self._active[rule.name] = _event(rule, change, wall_s, wall_s)
            self.fired_count += 1
        else:
            event = _event(rule, change, wall_s, self._active.pop(rule.name).starts_at)
            self.resolved_count += 1
        self._history.append(event)
        return [event]

    def reset(self, reason: str, *, now_s: float, wall_s: float) -> list[AlertEvent]:
        """Begin every rule anew, as when evaluation pauses; active alerts are resolved with ``reason``."""
        events: list[AlertEvent] = []
        for state in self._states.values():
            events += self._note(state.rule, state.end(None, reason, now_s), wall_s)
            state.pause()
        return events

    def forget_pending(self) -> None:
        """Let conditions that have not fired yet begin anew: nobody watched them for a while."""
        for state in self._states.values():
            state.pause()

    def rules(self) -> list[AlertRule]:
        """Return the rules in the order they were added."""
        return [state.rule for state in self._states.values()]

    def states(self, now_s: float) -> list[dict[str, Any]]:
        """Return each rule and where its alert is, as plain values, in the order of ``rules``."""
        return [_listed(state, now_s) for state in self._states.values()]

    def active(self) -> list[AlertEvent]:
        """Return the firing event of each active alert, in the order of ``rules``."""
        return [self._active[name] for name in self._states if name in self._active]

    def history(self) -> list[AlertEvent]:
        """Return the last ``MAX_HISTORY`` transitions, newest last."""
        return list(self._history)


def _listed(state: AlertState, now_s: float) -> dict[str, Any]:
    rule = state.rule
    return {
        "name": rule.name,
        "condition": rule.condition,
        "severity": rule.severity,
        "state": state.name,
        "value": state.value,
        "since_seconds": state.since_s(now_s),
        "message": rule.message,
        "labels": rule.alert_labels,
    }


def _event(rule: AlertRule, change: Transition, wall_s: float, starts_at: float) -> AlertEvent:
    return AlertEvent(
        name=rule.name,
        state=change.state,
        severity=rule.severity,
        metric_name=rule.metric_name,
        condition=rule.condition,
        threshold=rule.threshold,
        value=change.value,
        at=wall_s,
        active_seconds=change.active_seconds,
        message=rule.message,
        reason=change.reason,
        labels=rule.alert_labels,
        starts_at=starts_at,
    )
