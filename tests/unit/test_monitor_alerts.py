from __future__ import annotations

import json
import re

import pytest

from ondol.monitor.alerts import AlertEvaluator, AlertEvent, AlertRule
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.query import Query, Reading
from ondol.setting_specs import SETTINGS

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


def test_a_reader_that_fails_swallows_no_event() -> None:
    scene = Scene(AlertRule("a", "t", 50.0, ">"), AlertRule("b", "u", 50.0, ">"))

    def read(query: Query) -> Reading | None:
        if query.metric_name == "u":
            raise RuntimeError("cannot read")
        return Reading(60.0, 1.0)

    with pytest.raises(RuntimeError):
        scene.evaluator.evaluate(read, now_s=1.0, wall_s=1.0)
    assert scene.evaluator.active() == []
    events = scene.evaluator.evaluate(lambda _query: Reading(60.0, 1.0), now_s=1.0, wall_s=1.0)
    assert [event.name for event in events] == ["a", "b"]


def test_both_events_of_an_episode_have_its_labels_and_its_start() -> None:
    scene = Scene(AlertRule("hot", "t", 50.0, ">", severity="critical", labels={"team": "web"}))
    (fired,) = scene.see(60.0)
    (resolved,) = scene.see(40.0)
    labels = {"team": "web", "alertname": "hot", "severity": "critical", "metric": "t"}
    assert (fired.labels, resolved.labels) == (labels, labels)
    assert (fired.starts_at, resolved.starts_at, fired.at, resolved.at) == (1010.0, 1010.0, 1010.0, 1020.0)
    assert json.loads(json.dumps(resolved.as_dict()))["labels"] == labels


def test_a_wall_clock_that_goes_back_changes_nothing_but_the_dates() -> None:
    evaluator = AlertEvaluator()
    evaluator.add(AlertRule("hot", "t", 50.0, ">", duration_seconds=10), now_s=0.0, wall_s=1e9)
    seen = []
    for now_s, wall_s in ((5.0, 1e9 + 5), (10.0, 1e9 - 9999), (15.0, 5.0), (20.0, 2e9)):
        seen += evaluator.evaluate(lambda _query, at_s=now_s: Reading(60.0, at_s), now_s=now_s, wall_s=wall_s)  # type: ignore[misc]
    seen += evaluator.evaluate(lambda _query: Reading(40.0, 25.0), now_s=25.0, wall_s=1.0)
    assert [(event.state, event.at, event.active_seconds) for event in seen] == [
        ("fired", 5.0, 10.0),
        ("resolved", 1.0, 10.0),
    ]


def test_the_rules_are_listed_with_their_states() -> None:
    scene = Scene(LATENCY, AlertRule("hot", "t", 5.0, ">"), AlertRule("calm", "t", 1.0, "<"))
    scene.see(7.0)
    scene.see(7.0, after_s=20.0)
    listed = scene.evaluator.states(scene.now_s + 1.0)
    assert [(row["name"], row["state"], row["since_seconds"], row["value"]) for row in listed] == [
        ("slow", "pending", 21.0, 7.0),
        ("hot", "firing", 21.0, 7.0),
        ("calm", "inactive", 31.0, 7.0),
    ]
    assert (listed[0]["condition"], listed[0]["message"]) == ("api.time > 2 for 60 s", "add a worker")
    assert listed[0]["labels"]["alertname"] == "slow"
    assert json.loads(json.dumps(listed)) == listed


DEFAULTS = {rule.name: rule for rule in DEFAULT_RULES}


def test_default_rules_watch_what_the_runtime_can_suffer_and_advise() -> None:
    assert {name: rule.condition for name, rule in DEFAULTS.items()} == {
        "memory_high": "system.memory_percent >= 90 for 30 s, clear at 85",
        "memory_pressure": "system.memory_pressure_percent > 20 for 60 s, clear at 10",
        "cache_hit_rate_low": "cache.hit_rate < 80 for 600 s",
        "model_load_failing": "sum of models.load_failures over 300 s > 0",
        "startup_slow": "service.startup_seconds > 30",
        "loop_lag_high": "process.loop_lag_seconds > 0.25 for 30 s",
        "open_files_high": "process.open_files_percent >= 85 for 60 s, clear at 80",
        "disk_full": "system.disk_percent >= 95 for 60 s, clear at 90",
    }
    assert all(len(rule.message) > 40 for rule in DEFAULT_RULES)


def test_the_settings_that_default_rules_name_exist() -> None:
    known = {setting.variable for setting in SETTINGS} | {"PYTHONASYNCIODEBUG"}
    named = {word for rule in DEFAULT_RULES for word in re.findall(r"[A-Z]+(?:_[A-Z]+)+|PYTHON[A-Z]+", rule.message)}
    assert named - known == set()
    assert len(named) >= 8


def test_a_failed_load_is_an_alert_for_five_minutes_and_ends_by_itself() -> None:
    evaluator = AlertEvaluator()
    evaluator.add(DEFAULTS["model_load_failing"], now_s=0.0, wall_s=0.0)
    seen = []
    for now_s in range(0, 1000, 5):
        failed_at_s = max((at_s for at_s in (100.0, 250.0) if at_s <= now_s), default=None)
        is_recent = failed_at_s is not None and now_s - failed_at_s <= 300
        answer = Reading(float(is_recent), failed_at_s or 0.0) if failed_at_s is not None else None
        events = evaluator.evaluate(lambda _query, answer=answer: answer, now_s=now_s, wall_s=now_s)  # type: ignore[misc]
        seen += [(event.state, event.at) for event in events]
    assert seen == [("fired", 100), ("resolved", 555)]
