from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor import alerts
from ondol.monitor.alert_rule import refusals
from ondol.monitor.alerts import AlertRule
from ondol.monitor.query import Query

GOOD: dict[str, Any] = {"name": "r", "metric_name": "t", "threshold": 10.0, "operator": ">"}


def full() -> AlertRule:
    return AlertRule(
        "slow",
        "api.time",
        2.0,
        ">",
        60.0,
        "critical",
        "do this",
        clear_threshold=1.5,
        keep_firing_seconds=120,
        aggregate="p99",
        window_seconds=300,
        no_data="keep",
        labels={"team": "web"},
        where={"route": "/x", "method": "GET"},
    )


def test_the_first_fields_and_their_order_are_the_guides() -> None:
    names = [item.name for item in dataclasses.fields(AlertRule) if not item.kw_only]
    assert names == ["name", "metric_name", "threshold", "operator", "duration_seconds", "severity", "message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", 5),
        ("name", "x" * 201),
        ("metric_name", "no good"),
        ("threshold", float("nan")),
        ("threshold", "2"),
        ("threshold", True),
        ("threshold", 10**400),
        pytest.param("threshold", 1 << 20_000, id="endless threshold"),
        ("operator", "=>"),
        ("operator", [">"]),
        ("duration_seconds", -1),
        ("duration_seconds", float("inf")),
        ("severity", "panic"),
        ("message", None),
        ("clear_threshold", "5"),
        ("clear_threshold", float("nan")),
        ("clear_threshold", 10.5),
        ("keep_firing_seconds", -1.0),
        ("keep_firing_seconds", None),
        ("aggregate", "p95"),
        ("aggregate", None),
        ("window_seconds", 61),
        ("window_seconds", "60"),
        ("no_data", "ok"),
        ("no_data", True),
        ("labels", ["a"]),
        ("labels", {"a b": "c"}),
        ("labels", {"a": 5}),
        ("labels", {5: "a"}),
        ("labels", {"alertname": "other"}),
        ("labels", {"a": "x" * 121}),
        ("labels", {f"l{number}": "x" for number in range(9)}),
        ("where", "route"),
        ("where", {"route": None}),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(MonitorError) as caught:
        AlertRule(**{**GOOD, field: value})
    message = str(caught.value)
    assert field.removesuffix("_name") in message
    assert "allowed" in message or "not valid" in message
    assert len(message) < 500


def test_all_that_is_wrong_can_be_asked_for_at_once() -> None:
    wrong = {**GOOD, "operator": "=>", "severity": 3, "clear_threshold": "x", "where": {"a b": 1}}
    assert [name for name, _sentence in refusals(wrong)] == [
        "operator",
        "severity",
        "clear_threshold",
        "where",
        "where",
    ]
    assert list(refusals(GOOD)) == []
    assert list(refusals({"severity": "info"})) == []


@pytest.mark.parametrize(
    ("operator", "clear", "reason"),
    [
        (">", 10.1, "at most the threshold"),
        (">=", 10.1, "at most the threshold"),
        ("<", 9.9, "at least the threshold"),
        ("<=", 9.9, "at least the threshold"),
        ("==", 9.0, "no side"),
        ("!=", 10.0, "no side"),
    ],
)
def test_a_clear_threshold_on_the_bad_side_is_refused_with_the_reason(operator: str, clear: float, reason: str) -> None:
    with pytest.raises(MonitorError, match=reason) as caught:
        AlertRule("r", "t", 10.0, operator, clear_threshold=clear)
    assert f"clear_threshold={clear}" in str(caught.value)


@pytest.mark.parametrize(("operator", "clear"), [(">", 10.0), (">", 8), (">=", 10.0), ("<", 10.0), ("<=", 12.0)])
def test_a_clear_threshold_on_the_good_side_is_taken(operator: str, clear: float) -> None:
    rule = AlertRule("r", "t", 10.0, operator, clear_threshold=clear)
    assert rule.is_still_broken_by(10.0) is (rule.is_broken_by(10.0) or clear != 10.0)


def test_the_condition_in_words() -> None:
    assert AlertRule(**GOOD).condition == "t > 10"
    rule = dataclasses.replace(full(), keep_firing_seconds=0.0, where={"route": '/"x"'})
    assert rule.condition == r'p99 of api.time{route="/\"x\""} over 300 s > 2 for 60 s, clear at 1.5'
    assert full().condition.startswith('p99 of api.time{method="GET",route="/x"} over 300 s > 2')
    assert full().condition.endswith("for 60 s, clear at 1.5 for 120 s")
    assert AlertRule(**GOOD, keep_firing_seconds=60, no_data="alert").condition == (
        "t > 10 or no value for 300 s, clear for 60 s"
    )


def test_the_query_asks_for_what_the_rule_watches() -> None:
    assert full().query == Query("api.time", "p99", 300.0, (("method", "GET"), ("route", "/x")))
    assert AlertRule(**GOOD).query == Query("t")


def test_a_rule_is_a_value() -> None:
    labels = {"team": "web"}
    rule = AlertRule(**GOOD, labels=labels)
    labels["team"] = "other"
    assert rule.labels == {"team": "web"}
    assert rule == AlertRule(**GOOD, labels={"team": "web"})
    assert rule != AlertRule(**GOOD)
    assert len({rule, AlertRule(**GOOD, labels={"team": "web"})}) == 1
    with pytest.raises(TypeError):
        rule.labels["team"] = "other"  # type: ignore[index]  # on purpose
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.name = "other"  # type: ignore[misc]  # on purpose


def test_a_rule_can_be_copied_pickled_and_written_as_json() -> None:
    rule = full()
    assert copy.deepcopy(rule) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert AlertRule(**json.loads(json.dumps(rule.as_dict()))) == rule


def test_the_alerts_module_still_offers_the_rule_and_its_words() -> None:
    assert alerts.SEVERITIES == ("info", "warning", "critical")
    assert set(alerts.OPERATORS) == {">", ">=", "<", "<=", "==", "!="}
    assert alerts.AlertRule is AlertRule
