from __future__ import annotations

from typing import Any

import pytest

from ondol.monitor.alert_state import AlertState
from ondol.monitor.alerts import AlertEvaluator, AlertEvent, AlertRule
from ondol.monitor.query import Query, Reading


class Scene:
    """One rule, evaluated every ten seconds unless said otherwise."""

    def __init__(self, **fields: Any) -> None:
        self.rule = AlertRule(**{"name": "r", "metric_name": "t", "threshold": 10.0, "operator": ">", **fields})
        self.evaluator = AlertEvaluator()
        self.now_s = 1000.0
        self.reading: Reading | None = None
        self.queries: set[Query] = set()
        self.evaluator.add(self.rule, now_s=self.now_s, wall_s=0.0)

    def see(self, *values: float | None, every_s: float = 10.0) -> list[AlertEvent]:
        """Evaluate with each value, measured right before; ``None``: nothing new."""
        events = []
        for value in values:
            self.now_s += every_s
            if value is not None:
                self.reading = Reading(value, self.now_s)
            events += self.again()
        return events

    def unanswered(self, times: int, every_s: float = 10.0) -> list[AlertEvent]:
        """Evaluate while nothing answers the query: the window is empty, or the metric never came."""
        self.reading = None
        return self.see(*[None] * times, every_s=every_s)

    def again(self) -> list[AlertEvent]:
        return self.evaluator.evaluate(self._read, now_s=self.now_s, wall_s=self.now_s)

    def _read(self, query: Query) -> Reading | None:
        self.queries.add(query)
        return self.reading

    @property
    def state(self) -> str:
        state: str = self.evaluator.states(self.now_s)[0]["state"]
        return state


def states(events: list[AlertEvent]) -> list[str]:
    return [event.state for event in events]


# --- hysteresis ---


def test_an_active_alert_clears_only_beyond_the_clear_threshold() -> None:
    scene = Scene(clear_threshold=8.0)
    assert states(scene.see(11, 9, 10, 8.5, 12, 9)) == ["fired"]
    assert states(scene.see(8.0)) == ["resolved"]
    assert scene.see(9, 10, 8.1) == []  # beyond 8 keeps an alert, and makes none
    assert states(scene.see(10.5)) == ["fired"]


@pytest.mark.parametrize(
    ("operator", "keeps", "clears"), [(">", 8.1, 8.0), (">=", 8.0, 7.9), ("<", 11.9, 12.0), ("<=", 12.0, 12.1)]
)
def test_the_clear_threshold_is_compared_as_the_threshold_is(operator: str, keeps: float, clears: float) -> None:
    scene = Scene(operator=operator, clear_threshold=8.0 if operator.startswith(">") else 12.0)
    assert states(scene.see(20.0 if operator.startswith(">") else 1.0)) == ["fired"]
    assert scene.see(keeps) == []
    assert states(scene.see(clears)) == ["resolved"]


def test_a_condition_that_has_not_fired_begins_anew_below_the_threshold_itself() -> None:
    scene = Scene(clear_threshold=8.0, duration_seconds=30)
    assert scene.see(11, 11, 11, 9, 11, 11, 11) == []
    assert scene.state == "pending"
    assert states(scene.see(11)) == ["fired"]


# --- keep firing ---


def test_a_break_while_an_alert_is_kept_belongs_to_the_same_episode() -> None:
    scene = Scene(keep_firing_seconds=30)
    assert states(scene.see(11, 5, 5, 11, 5, 5, 5)) == ["fired"]
    assert scene.state == "firing"
    assert states(scene.see(5)) == ["resolved"]
    assert scene.evaluator.fired_count == 1
    assert states(scene.see(11)) == ["fired"]


def test_a_kept_alert_needs_the_duration_to_fire_only_once_it_is_resolved() -> None:
    scene = Scene(keep_firing_seconds=30, duration_seconds=20)
    assert states(scene.see(11, 11, 11, 5, 11, 5, 5, 5, 5)) == ["fired", "resolved"]
    assert scene.see(11, 11) == []
    assert states(scene.see(11)) == ["fired"]


def test_between_the_thresholds_an_alert_is_not_clear_and_keeping_begins_anew() -> None:
    scene = Scene(keep_firing_seconds=30, clear_threshold=8.0)
    assert states(scene.see(11, 7, 7, 9, 7, 7, 7)) == ["fired"]
    assert states(scene.see(7)) == ["resolved"]


def test_missing_data_counts_as_clear_for_keeping() -> None:
    scene = Scene(keep_firing_seconds=60)
    scene.see(11)
    assert scene.see(None, every_s=301.0) == []
    assert scene.see(None, every_s=59.0) == []
    assert states(scene.see(None, every_s=1.0)) == ["resolved"]


# --- no data ---


def test_resolve_lets_missing_data_break_no_rule() -> None:
    scene = Scene(no_data="resolve", duration_seconds=1000)
    scene.see(11)
    scene.see(None, every_s=300.0)
    assert scene.state == "pending"
    scene.see(None, every_s=1.0)
    assert scene.state == "inactive"


def test_keep_lets_an_alert_stay_however_long_nothing_comes() -> None:
    scene = Scene(no_data="keep")
    assert states(scene.see(11)) == ["fired"]
    assert scene.see(*[None] * 100, every_s=100.0) == []
    assert scene.unanswered(100, every_s=100.0) == []
    assert scene.state == "firing"
    assert states(scene.see(9)) == ["resolved"]
    assert scene.see(*[None] * 100, every_s=100.0) == []
    assert scene.state == "inactive"


def test_keep_lets_a_condition_stay_pending() -> None:
    scene = Scene(no_data="keep", duration_seconds=30)
    scene.see(11)
    assert scene.see(*[None] * 10, every_s=100.0) == []
    assert scene.state == "pending"
    assert states(scene.see(11)) == ["fired"]


def test_alert_lets_missing_data_break_the_rule() -> None:
    scene = Scene(no_data="alert", metric_name="beat")
    assert scene.see(1, None, every_s=300.0) == []
    (fired,) = scene.see(None, every_s=1.0)
    assert (fired.state, fired.value) == ("fired", None)
    assert "no value of beat came for 301 s" in fired.reason
    assert scene.see(*[None] * 50) == []
    assert states(scene.see(1)) == ["resolved"]


def test_alert_counts_a_metric_that_never_came_from_when_the_rule_was_added() -> None:
    scene = Scene(no_data="alert", duration_seconds=60)
    assert scene.see(None, every_s=300.0) == []
    assert scene.see(None, every_s=1.0) == []
    assert scene.state == "pending"
    assert scene.see(None, every_s=59.0) == []
    (fired,) = scene.see(None, every_s=1.0)
    assert "no value of t has come" in fired.reason


def test_alert_joins_a_value_that_breaks_the_rule_and_silence_after_it() -> None:
    scene = Scene(no_data="alert", duration_seconds=60)
    assert scene.see(11, every_s=10.0) == []
    assert scene.see(*[None] * 30, every_s=10.0) == []
    (fired,) = scene.see(None)
    assert fired.active_seconds == 310.0
    assert scene.see(11, 12) == []


def test_alert_does_not_blame_a_metric_for_the_time_nobody_watched() -> None:
    scene = Scene(no_data="alert")
    scene.evaluator.forget_pending()
    assert scene.see(None, every_s=5000.0) == []
    assert scene.see(None, every_s=300.0) == []
    assert states(scene.see(None, every_s=1.0)) == ["fired"]


def test_a_pause_is_no_silence_of_a_metric_that_came_before_it() -> None:
    scene = Scene(no_data="alert")
    scene.see(1)
    scene.evaluator.forget_pending()
    assert scene.see(None, every_s=5000.0) == []
    assert scene.see(None, every_s=300.0) == []
    (fired,) = scene.see(None, every_s=1.0)
    assert "came for 5301 s" in fired.reason


@pytest.mark.parametrize("no_data", ["resolve", "keep"])
def test_a_metric_that_never_came_breaks_no_other_rule(no_data: str) -> None:
    scene = Scene(no_data=no_data, operator="<")
    assert scene.unanswered(100, every_s=60.0) == []
    assert scene.state == "inactive"


# --- aggregates ---


def test_an_aggregate_is_asked_for_and_named() -> None:
    scene = Scene(aggregate="p99", window_seconds=3600, where={"route": "/x"})
    (fired,) = scene.see(11)
    assert scene.queries == {Query("t", "p99", 3600.0, (("route", "/x"),))}
    assert fired.reason.startswith('p99 of t{route="/x"} over 3600 s is 11 (rule: ')


def test_a_window_counts_as_long_as_it_is_answered() -> None:
    scene = Scene(aggregate="avg", window_seconds=3600, duration_seconds=60)
    # One value, and then only its window: that is what the window says, so it holds.
    assert scene.see(11, *[None] * 5) == []
    assert states(scene.see(None)) == ["fired"]
    assert scene.see(*[None] * 300) == []
    (resolved,) = scene.unanswered(1)
    assert "no value of avg of t over 3600 s came any more" in resolved.reason


def test_an_empty_window_says_nothing_before_five_minutes() -> None:
    scene = Scene(aggregate="max", window_seconds=60, duration_seconds=30)
    scene.see(11)
    assert scene.unanswered(29) == []  # not held for 30 s: nobody knows
    assert scene.state == "pending"
    assert states(scene.see(11)) == ["fired"]
    assert scene.unanswered(30) == []
    assert states(scene.unanswered(1)) == ["resolved"]


# --- rules that change ---


def test_a_rule_replaced_while_firing_resolves_and_begins_anew() -> None:
    scene = Scene(keep_firing_seconds=1000)
    scene.see(11)
    changed = AlertRule("r", "t", 10.0, ">", duration_seconds=10, labels={"team": "web"})
    (resolved,) = scene.evaluator.add(changed, now_s=scene.now_s, wall_s=5.0)
    assert (resolved.state, resolved.reason, resolved.labels.get("team")) == ("resolved", "the rule was replaced", None)
    assert scene.see(11) == []
    (fired,) = scene.see(11)
    assert fired.labels["team"] == "web"


def test_the_same_rule_added_again_keeps_its_episode() -> None:
    scene = Scene(labels={"a": "b"})
    scene.see(11)
    same = AlertRule("r", "t", 10.0, ">", labels={"a": "b"})
    assert scene.evaluator.add(same, now_s=scene.now_s, wall_s=5.0) == []
    assert scene.state == "firing"


def test_a_rule_removed_while_kept_resolves_once() -> None:
    scene = Scene(keep_firing_seconds=1000)
    scene.see(11, 5)
    assert states(scene.evaluator.remove("r", now_s=scene.now_s, wall_s=5.0) or []) == ["resolved"]
    assert scene.see(5) == []
    assert scene.evaluator.active() == []


def test_a_pause_forgets_what_has_not_fired_and_keeps_what_has() -> None:
    scene = Scene(duration_seconds=20, keep_firing_seconds=20)
    scene.see(11, 11)
    scene.evaluator.forget_pending()
    assert scene.see(11, 11) == []
    assert states(scene.see(11)) == ["fired"]
    scene.see(5, 5)
    scene.evaluator.forget_pending()
    assert scene.see(5, 5) == []
    assert states(scene.see(5)) == ["resolved"]


def test_a_reset_ends_what_is_kept() -> None:
    scene = Scene(keep_firing_seconds=1000, no_data="keep")
    scene.see(11, 5)
    assert states(scene.evaluator.reset("off", now_s=scene.now_s, wall_s=5.0)) == ["resolved"]
    assert scene.evaluator.reset("off", now_s=scene.now_s, wall_s=5.0) == []


def test_the_end_of_what_is_pending_is_no_event() -> None:
    state = AlertState(AlertRule("r", "t", 10.0, ">", duration_seconds=60), 0.0)
    assert state.step(Reading(11.0, 5.0), 5.0) is None
    assert (state.name, state.since_s(7.0)) == ("pending", 2.0)
    assert state.end(None, "over", 8.0) is None
    assert (state.name, state.since_s(9.0)) == ("inactive", 1.0)
