"""What the status page shows, from statistics as they come and from statistics gone wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ondol.server.middleware import REQUEST_METRIC as RECORDED_METRIC
from ondol.server.snapshot import MAX_DECISIONS, MAX_EVENTS, MAX_RATE_GAP_S, REQUEST_METRIC, snapshot
from ondol.units import Percent

READINESS = {
    "ready": True,
    "models": [{"name": "small", "state": "ready", "ready": True, "reason": "loaded and warm"}],
}

TIMES = {"since_s": 60.0, "changed_at": 1000.5, "last_used_at": 1030.0, "last_error_at": None}


def stats(**changes: Any) -> dict[str, Any]:
    return {
        "environment": "production",
        "uptime_seconds": 60.0,
        "cache": {
            "hits": 83,
            "misses": 17,
            "hit_rate": Percent(83.0),
            "entries": 5,
            "used_bytes": 1000,
            "max_bytes": 4000,
            "evictions": 2,
            "saved_seconds": 1.5,
        },
        "models": {
            "models": [
                {"name": "small", "state": "ready", "leases": 2, "size_bytes": 10, "load_seconds": 0.5, **TIMES}
            ],
            "used_bytes": 10,
            "limit_bytes": 100,
        },
        "preloader": {"success_rate": Percent(50.0), "attempts": 2, "failed": 1, "queued": 3, "loading": 1},
        "monitor": {"metrics": {}, "alerts": {"active": []}},
        "tuner": {"mode": "on", "state": "normal", "decisions": []},
        "system_health": {
            "rss_bytes": 7,
            "memory_used_bytes": 50,
            "memory_limit_bytes": 100,
            "memory_percent": 50.0,
            "cpu_percent": 3.0,
        },
        **changes,
    }


def requests(count: int) -> dict[str, Any]:
    metric = {"count": count, "p50": 9.0, "p99": 9.0, "windows": {"5m": {"p50": 0.002, "p99": 0.09}}}
    return {"metrics": {REQUEST_METRIC: metric}}


def test_the_figures_of_every_part_are_taken_over() -> None:
    shown = snapshot(stats(), READINESS)
    assert shown["environment"] == "production"
    assert shown["is_ready"] is True
    assert shown["uptime_s"] == 60.0
    assert shown["memory"] == {"rss_bytes": 7, "used_bytes": 50, "limit_bytes": 100, "percent": 50.0}
    assert shown["model_memory"] == {"used_bytes": 10, "limit_bytes": 100}
    assert shown["cache"]["hit_rate"] == 83.0
    assert shown["cache"]["max_bytes"] == 4000
    assert shown["preloader"]["success_rate"] == 50.0
    assert shown["process"]["cpu_percent"] == 3.0


def test_a_model_has_its_figures_from_the_pool_and_its_reason_from_readiness() -> None:
    (model,) = snapshot(stats(), READINESS)["models"]
    assert model == {
        "name": "small",
        "state": "ready",
        "is_ready": True,
        "reason": "loaded and warm",
        "size_bytes": 10,
        "load_seconds": 0.5,
        "leases": 2,
        "priority": None,
        "progress": None,
        "eta_s": None,
        "retry_in_s": None,
        "last_error": "",
        "is_pinned": False,
        **TIMES,
    }


def test_a_model_on_its_way_has_its_progress_its_last_error_and_its_pin() -> None:
    figures = {
        "name": "small",
        "state": "backoff",
        "progress": 0.25,
        "eta_s": 3.5,
        "retry_in_s": 2.0,
        "last_error": "OSError: the disk is gone",
        "is_pinned": True,
    }
    readiness = {"ready": False, "models": [{"name": "small", "state": "backoff", "reason": "tried again soon"}]}
    (model,) = snapshot(stats(models={"models": [figures]}), readiness)["models"]
    assert (model["state"], model["progress"], model["eta_s"], model["retry_in_s"]) == ("backoff", 0.25, 3.5, 2.0)
    assert (model["last_error"], model["is_pinned"]) == ("OSError: the disk is gone", True)
    (model,) = snapshot(stats(models={"models": [{**figures, "progress": math.nan, "is_pinned": 1}]}), {})["models"]
    assert (model["progress"], model["is_pinned"]) == (None, False)


def test_a_model_that_only_one_side_knows_is_shown() -> None:
    readiness = {"ready": False, "models": [{"name": "late", "state": "LOADING", "ready": False, "reason": "loading"}]}
    models = snapshot(stats(), readiness)["models"]
    assert [(model["name"], model["state"], model["is_ready"]) for model in models] == [
        ("small", "ready", True),
        ("late", "loading", False),
    ]


def test_percentages_become_plain_numbers() -> None:
    rate = snapshot(stats(), READINESS)["cache"]["hit_rate"]
    assert type(rate) is float


@pytest.mark.parametrize("broken", [math.nan, math.inf, "12", True, [], {}])
def test_a_value_that_is_no_finite_number_is_unknown(broken: object) -> None:
    assert snapshot(stats(uptime_seconds=broken), READINESS)["uptime_s"] is None


@pytest.mark.parametrize("part", sorted(stats()))
@pytest.mark.parametrize("broken", [None, [], {}, "?", math.nan])
def test_a_missing_or_odd_part_leaves_the_others_and_stays_json(part: str, broken: object) -> None:
    shown = snapshot(stats(**{part: broken}), READINESS)
    json.dumps(shown, allow_nan=False)
    others = {"environment", "uptime_s", "cache", "preloader", "tuner", "memory"}
    renamed = {"uptime_seconds": "uptime_s", "system_health": "memory"}
    whole = snapshot(stats(), READINESS)
    for name in others - {renamed.get(part, part)}:
        assert shown[name] == whole[name]


def test_nothing_known_is_still_a_snapshot() -> None:
    shown = snapshot({}, {})
    json.dumps(shown, allow_nan=False)
    assert shown["is_ready"] is False
    assert shown["models"] == []


def test_requests_are_those_that_the_middleware_records() -> None:
    assert REQUEST_METRIC == RECORDED_METRIC


def test_the_request_rate_is_the_difference_to_the_snapshot_before() -> None:
    first = snapshot(stats(monitor=requests(100)), READINESS)
    second = snapshot(stats(monitor=requests(130), uptime_seconds=62.0), READINESS, previous=first)
    assert first["requests"] == {"count": 100, "per_s": None, "p50_s": 0.002, "p99_s": 0.09}
    assert second["requests"]["per_s"] == 15.0


@pytest.mark.parametrize(
    ("count", "uptime_s"),
    [(5, 1.0), (130, 60.0), (50, 61.0), (130, 60.0 + MAX_RATE_GAP_S + 0.1)],
    ids=["restarted", "no time passed", "counts fell", "nobody watched in between"],
)
def test_there_is_no_rate_without_a_usable_difference(count: int, uptime_s: float) -> None:
    first = snapshot(stats(monitor=requests(100)), READINESS)
    second = snapshot(stats(monitor=requests(count), uptime_seconds=uptime_s), READINESS, previous=first)
    assert second["requests"]["per_s"] is None


def test_active_alerts_are_shown_with_what_to_do() -> None:
    event = {
        "name": "slow",
        "severity": "critical",
        "reason": "x is 3",
        "message": "look",
        "value": 3.0,
        "state": "fired",
        "starts_at": 1000.0,
        "since_seconds": 60.0,
    }
    shown = snapshot(stats(monitor={"alerts": {"active": [event]}}), READINESS)
    assert shown["alerts"] == [
        {
            "name": "slow",
            "severity": "critical",
            "reason": "x is 3",
            "message": "look",
            "value": 3.0,
            "starts_at": 1000.0,
            "since_seconds": 60.0,
            "is_silenced": False,
            "silenced_until": None,
        }
    ]
    assert (shown["pending_alerts"], shown["alert_events"], shown["notices"]) == ([], [], [])


def test_the_condition_stands_beside_the_newest_value() -> None:
    event = {"name": "slow", "reason": "x is 3 (rule: x > 2)", "condition": "x > 2", "value": 5.0, "fired_value": 3.0}
    (alert,) = snapshot(stats(monitor={"alerts": {"active": [event]}}), READINESS)["alerts"]
    assert (alert["reason"], alert["value"]) == ("x > 2", 5.0)


@pytest.mark.parametrize(("given", "is_monitored"), [(True, True), (False, False), (None, True), ("?", True)])
def test_whether_the_rules_are_watched_is_told(given: object, is_monitored: bool) -> None:
    shown = snapshot(stats(monitor={"is_enabled": given, "alerts": {"active": []}}), READINESS)
    assert shown["is_monitored"] is is_monitored
    assert snapshot({}, {})["is_monitored"] is True


def test_the_most_severe_alert_comes_first_and_is_shown_when_it_is_silenced() -> None:
    severities = ["info", "odd", "warning", "critical"]
    active = [{"name": severity, "severity": severity, "silenced_by": None} for severity in severities]
    active[2]["silenced_by"] = "s1"
    active[0]["silenced_by"] = "gone"
    alerts = {"active": active, "silences": [{"id": "s1", "ends_at": 2000.0}, {"id": "s2", "ends_at": 3000.0}]}
    shown = snapshot(stats(monitor={"alerts": alerts}), READINESS)["alerts"]
    assert [alert["name"] for alert in shown] == ["critical", "warning", "info", "odd"]
    assert [(alert["is_silenced"], alert["silenced_until"]) for alert in shown] == [
        (False, None),
        (True, 2000.0),
        (True, None),
        (False, None),
    ]


def test_what_may_fire_soon_and_what_changed_last_is_shown_beside() -> None:
    rule = {"name": "full", "severity": "warning", "condition": "disk > 95", "value": 96.0, "since_seconds": 20.0}
    events = [{"name": "slow", "state": "fired", "severity": "info", "at": float(number)} for number in range(8)]
    alerts = {"active": [], "pending": [rule], "recent": events}
    shown = snapshot(stats(monitor={"alerts": alerts}), READINESS)
    (pending,) = shown["pending_alerts"]
    assert (pending["name"], pending["reason"], pending["since_seconds"]) == ("full", "disk > 95", 20.0)
    assert [event["at"] for event in shown["alert_events"]] == [7.0, 6.0, 5.0, 4.0, 3.0]
    assert len(shown["alert_events"]) == MAX_EVENTS
    assert shown["alert_events"][0]["state"] == "fired"


def test_notices_are_shown_when_there_are_notifiers() -> None:
    notices = {"webhook": {"sent": 3, "failed": 1, "queued": 0, "dropped": 0, "last_error": "HTTP 500"}, "odd": 5}
    shown = snapshot(stats(monitor={"alerts": {"active": [], "notices": notices}}), READINESS)["notices"]
    assert shown[0] == {"name": "webhook", "sent": 3, "failed": 1, "queued": 0, "dropped": 0, "last_error": "HTTP 500"}
    assert shown[1] == {
        "name": "odd",
        "sent": None,
        "failed": None,
        "queued": None,
        "dropped": None,
        "last_error": "",
    }


@pytest.mark.parametrize("part", ["active", "pending", "recent", "silences", "notices"])
@pytest.mark.parametrize("broken", [None, 5, "?", [None], [5], {"x": 1}])
def test_odd_alerts_leave_the_rest(part: str, broken: object) -> None:
    alerts = {"active": [{"name": "slow", "silenced_by": "s1"}], "silences": [{"id": "s1"}], part: broken}
    shown = snapshot(stats(monitor={"alerts": alerts}), READINESS)
    json.dumps(shown, allow_nan=False)
    assert part == "active" or shown["alerts"][0]["name"] == "slow"


@pytest.mark.parametrize("active", [{"slow": {"severity": "info"}}, [{"name": "slow", "severity": "info"}]])
def test_alerts_may_come_by_name_or_as_a_list(active: object) -> None:
    (alert,) = snapshot(stats(monitor={"alerts": {"active": active}}), READINESS)["alerts"]
    assert (alert["name"], alert["severity"]) == ("slow", "info")


def test_the_last_tuning_decisions_come_first() -> None:
    decisions = [f"decision {number}" for number in range(20)]
    tuner = snapshot(stats(tuner={"mode": "on", "state": "pressure", "decisions": decisions}), READINESS)["tuner"]
    assert len(tuner["decisions"]) == MAX_DECISIONS
    assert tuner["decisions"][0] == "decision 19"
    assert (tuner["mode"], tuner["state"]) == ("on", "pressure")


def test_what_preloading_waits_for_is_named_and_lists_are_counted() -> None:
    preloader = {"queued": ["a", "b"], "blocked": {"big": ["base"]}, "paused_reason": "memory at 90 %"}
    shown = snapshot(stats(preloader=preloader), READINESS)["preloader"]
    assert shown["queued"] == 2
    assert shown["blocked"] == [{"name": "big", "waits_on": ["base"]}]
    assert shown["paused_reason"] == "memory at 90 %"


def test_the_cache_shows_its_policy_and_the_tiers_below_it() -> None:
    tiers = {"memory": {"hits": 3}, "disk": {"hits": 2, "is_open": True}, "shared": {"hits": 1, "is_up": False}}
    cache = {"hits": 6, "policy": {"policy": "adaptive", "in_charge": "gdsf"}, "tiers": tiers}
    shown = snapshot({"cache": cache}, READINESS)["cache"]
    assert (shown["policy"], shown["policy_in_charge"]) == ("adaptive", "gdsf")
    assert {name: (tier["hits"], tier["is_up"]) for name, tier in shown["tiers"].items()} == {
        "disk": (2, True),
        "shared": (1, False),
    }
    assert snapshot({"cache": {"policy": {"policy": "lru"}}}, READINESS)["cache"]["policy_in_charge"] == "lru"
    assert snapshot({}, READINESS)["cache"]["tiers"] == {}
