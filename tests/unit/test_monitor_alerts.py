from __future__ import annotations

import json
from typing import Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor.alerts import AlertEvaluator, AlertEvent, AlertRule
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.series import Reading

LATENCY = AlertRule(
    name="slow", metric_name="api.time", threshold=2.0, operator=">", duration_seconds=60, message="add a worker"
)


class Scene:
    def __init__(self, *rules: AlertRule) -> None:
        self.evaluator = AlertEvaluator()
        self.now_s = 0.0
        for rule in rules:
            self.evaluator.add(rule, now_s=0.0, wall_s=1000.0)

    def see(self, value: float | None, after_s: float = 10.0) -> list[AlertEvent]:
        """Let time pass, then evaluate with ``value`` measured now (``None``: nothing new was measured)."""
        self.now_s += after_s
        if value is not None:
            self.reading = Reading(value, self.now_s)
        return self.again()

    def again(self) -> list[AlertEvent]:
        reading = getattr(self, "reading", None)
        return self.evaluator.evaluate(lambda _name: reading, now_s=self.now_s, wall_s=1000.0 + self.now_s)


def states(events: list[AlertEvent]) -> list[str]:
    return [event.state for event in events]


def test_it_fires_after_the_duration_once_and_is_resolved_once() -> None:
    scene = Scene(LATENCY)
    seen = [states(scene.see(3.0)) for _ in range(20)]
    assert seen == [[]] * 6 + [["fired"]] + [[]] * 13
    assert [states(scene.see(1.0)) for _ in range(3)] == [["resolved"], [], []]
    assert states(scene.evaluator.history()) == ["fired", "resolved"]
    assert (scene.evaluator.fired_count, scene.evaluator.resolved_count) == (1, 1)


def test_a_break_lets_the_duration_begin_anew() -> None:
    scene = Scene(LATENCY)
    for _ in range(5):
        assert scene.see(3.0) == []
        scene.see(3.0, after_s=49.0)
        assert scene.see(2.0) == []  # not beyond: the operator is >, not >=


def test_one_slow_request_and_then_none_is_not_slow_for_a_minute() -> None:
    scene = Scene(LATENCY)
    scene.see(3.0)
    assert [scene.see(None) for _ in range(20)] == [[]] * 20
    assert states(scene.see(3.0)) == ["fired"]


def test_each_episode_has_its_own_pair() -> None:
    scene = Scene(AlertRule("hot", "t", 50.0, ">="))
    for value in (50.0, 60.0, 49.0, 50.0, 10.0):
        scene.see(value)
    assert states(scene.evaluator.history()) == ["fired", "resolved", "fired", "resolved"]


def test_an_event_says_what_happened_and_what_to_do() -> None:
    scene = Scene(LATENCY)
    scene.see(3.0)
    (fired,) = scene.see(3.5, after_s=60.0)
    assert "api.time is 3.5" in fired.sentence
    assert "api.time > 2 for 60 s" in fired.sentence
    assert "add a worker" in fired.sentence
    assert (fired.value, fired.active_seconds, fired.at) == (3.5, 60.0, 1070.0)
    (resolved,) = scene.see(0.5, after_s=30.0)
    assert (resolved.state, resolved.active_seconds) == ("resolved", 30.0)
    assert json.loads(json.dumps(fired.as_dict()))["name"] == "slow"


def test_a_metric_without_new_values_resolves_its_alert() -> None:
    scene = Scene(AlertRule("hot", "t", 50.0, ">"))
    assert states(scene.see(60.0)) == ["fired"]
    assert scene.see(None, after_s=299.0) == []
    (resolved,) = scene.see(None, after_s=2.0)
    assert resolved.state == "resolved"
    assert "no value of t" in resolved.reason


def test_a_metric_that_was_never_recorded_breaks_no_rule() -> None:
    assert Scene(AlertRule("low", "t", 50.0, "<")).again() == []


@pytest.mark.parametrize(
    ("operator", "value", "is_beyond"),
    [(">", 5.0, False), (">=", 5.0, True), ("<", 5.0, False), ("<=", 5.0, True), ("==", 5.0, True), ("!=", 5.0, False)],
)
def test_operators(operator: str, value: float, is_beyond: bool) -> None:
    assert AlertRule("r", "t", 5.0, operator).is_broken_by(value) is is_beyond


def test_a_removed_or_replaced_rule_resolves_its_alert() -> None:
    rule = AlertRule("hot", "t", 50.0, ">")
    scene = Scene(rule)
    scene.see(60.0)
    assert scene.evaluator.add(rule, now_s=1.0, wall_s=1.0) == []  # the same once more changes nothing
    assert len(scene.evaluator.active()) == 1
    replaced = scene.evaluator.add(AlertRule("hot", "t", 55.0, ">"), now_s=1.0, wall_s=1.0)
    assert states(replaced) == ["resolved"]
    assert states(scene.again()) == ["fired"]
    assert states(scene.evaluator.remove("hot", now_s=1.0, wall_s=1.0) or []) == ["resolved"]
    assert scene.evaluator.remove("hot", now_s=1.0, wall_s=1.0) is None
    assert scene.evaluator.rules() == []


def test_reset_resolves_and_begins_anew() -> None:
    scene = Scene(AlertRule("hot", "t", 50.0, ">", duration_seconds=10))
    scene.see(60.0)
    assert states(scene.see(60.0)) == ["fired"]
    assert states(scene.evaluator.reset("off", now_s=25.0, wall_s=25.0)) == ["resolved"]
    assert scene.see(60.0) == []
    scene.evaluator.forget_pending()
    assert scene.see(60.0) == []
    assert states(scene.see(60.0)) == ["fired"]


def test_history_is_bounded() -> None:
    scene = Scene(AlertRule("hot", "t", 50.0, ">"))
    for _ in range(600):
        scene.see(60.0)
        scene.see(40.0)
    assert len(scene.evaluator.history()) == 1000
    assert scene.evaluator.fired_count == 600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 5),
        ("metric_name", "no good"),
        ("threshold", float("nan")),
        ("threshold", "2"),
        ("operator", "=>"),
        ("duration_seconds", -1),
        ("duration_seconds", float("inf")),
        ("severity", "panic"),
        ("message", None),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    good: dict[str, Any] = {"name": "r", "metric_name": "t", "threshold": 1.0, "operator": ">"}
    with pytest.raises(MonitorError, match="is not"):
        AlertRule(**{**good, field: value})


def test_default_rules_watch_what_the_runtime_can_suffer_and_advise() -> None:
    assert {rule.metric_name for rule in DEFAULT_RULES} == {
        "system.memory_percent",
        "cache.hit_rate",
        "models.load_failures",
    }
    assert all(len(rule.message) > 40 for rule in DEFAULT_RULES)
