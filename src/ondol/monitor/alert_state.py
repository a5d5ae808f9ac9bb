"""decision: the way of one rule's alert from inactive over pending to firing and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ondol.monitor.alert_rule import NO_DATA_S

if TYPE_CHECKING:
    from ondol.monitor.alert_rule import AlertRule
    from ondol.monitor.query import Reading

__all__ = ["AlertState", "StateName", "Transition"]

StateName = Literal["inactive", "pending", "firing"]


class Transition(NamedTuple):
    """The alert fired or was resolved."""

    state: Literal["fired", "resolved"]
    value: float | None
    active_seconds: float
    """How long the condition has held; for a resolved alert, how long ago it had fired."""
    reason: str


class AlertState:
    """What is remembered of one rule. All times are monotonic seconds.

    An active alert whose condition is over but not yet for ``keep_firing_seconds`` is still firing: a break within
    that time belongs to the same episode and fires nothing.
    """

    __slots__ = (
        "_broken_since_s",
        "_clear_since_s",
        "_condition",
        "_fired_at_s",
        "_first_value_at_s",
        "_inactive_since_s",
        "_subject",
        "_value_at_s",
        "_watched_since_s",
        "query",
        "rule",
        "value",
    )

    def __init__(self, rule: AlertRule, now_s: float) -> None:
        """Begin inactive."""
        self.rule = rule
        self.query = rule.query
        self.value: float | None = None
        """The newest figure; ``None`` while there is none."""
        self._subject = rule.subject
        self._condition = rule.condition
        self._value_at_s: float | None = None  # when the newest value came
        self._watched_since_s: float | None = now_s  # None: from the next step on
        self._inactive_since_s = now_s
        self._broken_since_s: float | None = None
        self._first_value_at_s = 0.0  # of the values that broke the rule
        self._clear_since_s: float | None = None  # of an active alert
        self._fired_at_s: float | None = None

    @property
    def name(self) -> StateName:
        """Where it is now."""
        if self._fired_at_s is not None:
            return "firing"
        return "inactive" if self._broken_since_s is None else "pending"

    def since_s(self, now_s: float) -> float:
        """Return for how long it has been there."""
        if self._fired_at_s is not None:
            return now_s - self._fired_at_s
        return now_s - (self._inactive_since_s if self._broken_since_s is None else self._broken_since_s)

    def step(self, reading: Reading | None, now_s: float) -> Transition | None:
        """Take in what was read now; return what changed by it."""
        if self._watched_since_s is None:
            self._watched_since_s = self._inactive_since_s = now_s
        self.value = None if reading is None else reading.value
        if reading is not None:
            self._value_at_s = reading.at_s
        if reading is not None and self._counts(reading, now_s):
            return self._judge(reading, now_s)
        return self._miss(now_s)

    def _counts(self, reading: Reading, now_s: float) -> bool:
        # A figure over a window leaves with its window; the newest value would stand for ever.
        return self.rule.aggregate != "last" or now_s - reading.at_s <= NO_DATA_S

    def _judge(self, reading: Reading, now_s: float) -> Transition | None:
        is_broken = self.rule.is_broken_by if self._fired_at_s is None else self.rule.is_still_broken_by
        reason = f"{self._subject} is {reading.value:g} (rule: {self._condition})"
        if is_broken(reading.value):
            # One value with nothing after it has not held for long: it has only not been followed.
            proven_at_s = reading.at_s if self.rule.aggregate == "last" else None
            return self._break(reading.value, reason, now_s, proven_at_s)
        return self._clear(reading.value, reason, now_s)

    def _miss(self, now_s: float) -> Transition | None:
        """Act on a metric that gives no value that counts."""
        assert self._watched_since_s is not None
        missing_since_s = self._watched_since_s
        if self._value_at_s is not None:
            missing_since_s = max(missing_since_s, self._value_at_s)
        # Less than five minutes of silence say nothing, and a rule may ask that more of it says nothing either.
        if now_s - missing_since_s <= NO_DATA_S or self.rule.no_data == "keep":
            return None
        if self.rule.no_data == "alert":
            last = "has come" if self._value_at_s is None else f"came for {now_s - self._value_at_s:.0f} s"
            return self._break(None, f"no value of {self._subject} {last} (rule: {self._condition})", now_s, None)
        return self._clear(None, f"no value of {self._subject} came any more", now_s)

    def _break(self, value: float | None, reason: str, now_s: float, proven_at_s: float | None) -> Transition | None:
        self._clear_since_s = None
        if self._broken_since_s is None:
            self._broken_since_s = now_s
            self._first_value_at_s = now_s if proven_at_s is None else proven_at_s
        held_s = now_s - self._broken_since_s
        proven_s = held_s if proven_at_s is None else min(held_s, proven_at_s - self._first_value_at_s)
        if self._fired_at_s is not None or proven_s < self.rule.duration_seconds:
            return None
        self._fired_at_s = now_s
        return Transition("fired", value, held_s, reason)

    def _clear(self, value: float | None, reason: str, now_s: float) -> Transition | None:
        if self._broken_since_s is not None and self._fired_at_s is None:
            self._inactive_since_s = now_s
        self._broken_since_s = None
        if self._fired_at_s is None:
            return None
        if self._clear_since_s is None:
            self._clear_since_s = now_s
        if now_s - self._clear_since_s < self.rule.keep_firing_seconds:
            return None
        return self.end(value, reason, now_s)

    def end(self, value: float | None, reason: str, now_s: float) -> Transition | None:
        """Be inactive from now on, whatever the rule says; return the resolution of an alert that was active."""
        fired_at_s, self._fired_at_s = self._fired_at_s, None
        self._broken_since_s = self._clear_since_s = None
        self._inactive_since_s = now_s
        return None if fired_at_s is None else Transition("resolved", value, now_s - fired_at_s, reason)

    def pause(self) -> None:
        """Begin anew with the next step what has not fired: nobody watched it for a while."""
        self._watched_since_s = None
        self._clear_since_s = None
        if self._fired_at_s is None:
            self._broken_since_s = None
