"""The alerts, their history, and silences, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.silences import MAX_SILENCES
from ondol.server.alerts import seconds_of
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Api

SLOW = AlertRule("slow", "api.response_time", 2.0, ">", 10.0, "critical", "look at the slowest model")
FULL = AlertRule("disk_full", "disk.used_percent", 95.0, ">", 0.0, "warning", labels={"team": "storage"})
QUIET = AlertRule("quiet", "api.response_time", 1.0, "<", severity="info")
SILENCE = {"matchers": {"alertname": "slow"}, "duration_seconds": 3600, "comment": "known", "created_by": "kim"}


class Watched:
    """A monitor on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.monitor = PerformanceMonitor(clock=self.clock, rules=[SLOW, FULL, QUIET])

    def see(self, name: str, value: float, unit: str = "", *, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        self.monitor.add_metric(name, value, unit)
        self.monitor.tick()


@pytest.fixture
def watched(api: Api, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(api.service, "monitor", watched.monitor)
    return watched


def test_rules_are_shown_with_where_their_alerts_are(api: Api, watched: Watched) -> None:
    watched.see("api.response_time", 2.5, "seconds")
    watched.clock.advance(4.0)
    answer = api.http.get("/v1/alerts")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    overview = answer.json()
    assert [(rule["name"], rule["state"]) for rule in overview["rules"]] == [
        ("slow", "pending"),
        ("disk_full", "inactive"),
        ("quiet", "inactive"),
    ]
    slow = overview["rules"][0]
    assert (slow["condition"], slow["value"], slow["since_seconds"]) == ("api.response_time > 2 for 10 s", 2.5, 4.0)
    assert slow["message"] == "look at the slowest model"
    assert overview["rules"][1]["value"] is None
    assert overview["rules"][1]["labels"]["team"] == "storage"
    assert (overview["active"], overview["silences"], overview["notices"]) == ([], [], {})
    assert (overview["fired"], overview["resolved"]) == (0, 0)


def test_what_fires_is_shown_with_since_when_and_its_silence(api: Api, watched: Watched) -> None:
    watched.see("disk.used_percent", 97.0, "percent")
    watched.clock.advance(60.0)
    (active,) = api.http.get("/v1/alerts").json()["active"]
    assert (active["name"], active["state"], active["value"]) == ("disk_full", "fired", 97.0)
    assert (active["since_seconds"], active["starts_at"]) == (60.0, 1_750_000_000.0)
    assert active["silenced_by"] is None
    body = {"matchers": {"team": "stor*"}, "duration_seconds": "1h"}
    silence = api.http.post("/v1/alerts/silences", json=body, headers=api.admin).json()
    overview = api.http.get("/v1/alerts").json()
    assert overview["active"][0]["silenced_by"] == silence["id"]
    assert overview["rules"][1]["state"] == "firing"


def test_what_fires_is_shown_with_its_newest_value(api: Api, watched: Watched) -> None:
    for value in (97.0, 99.0):
        watched.see("disk.used_percent", value, "percent", after_s=5.0)
    overview = api.http.get("/v1/alerts").json()
    (active,) = overview["active"]
    assert (active["value"], active["fired_value"], overview["rules"][1]["value"]) == (99.0, 97.0, 99.0)
    assert watched.monitor.active_alerts()[0].value == 97.0


def test_a_monitor_that_is_off_says_so(api: Api, watched: Watched) -> None:
    assert api.http.get("/v1/alerts").json()["is_enabled"] is True
    watched.see("disk.used_percent", 97.0, "percent")
    watched.monitor.configure(is_enabled=False)
    overview = api.http.get("/v1/alerts").json()
    assert (overview["is_enabled"], overview["active"]) == (False, [])
    assert watched.monitor.get_stats()["alerts"]["is_enabled"] is False


@pytest.mark.parametrize("odd", [{"name": "slow"}, None, "slow", AlertRule])
def test_what_is_no_rule_is_refused(watched: Watched, odd: Any) -> None:
    with pytest.raises(MonitorError, match=r"is not allowed as a rule: it must be an ondol\.monitor\.AlertRule"):
        watched.monitor.add_alert_rule(odd)
    assert len(watched.monitor.alert_rules()) == 3


def test_notices_are_shown_when_there_are_notifiers(
    api: Api, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = {"webhook": {"sent": 2, "failed": 1, "last_error": "HTTP 500", "last_success_at": 1_750_000_000.0}}
    stats = {**watched.monitor.alert_stats(), "notices": notices}
    monkeypatch.setattr(watched.monitor, "alert_stats", lambda: stats)
    assert api.http.get("/v1/alerts").json()["notices"] == notices


def test_the_history_is_newest_first_and_limited(api: Api, watched: Watched) -> None:
    assert api.http.get("/v1/alerts/history").json() == {"data": [], "total": 0}
    for value in (97.0, 50.0, 98.0):
        watched.see("disk.used_percent", value, "percent", after_s=5.0)
    history = api.http.get("/v1/alerts/history").json()
    assert [(event["state"], event["value"]) for event in history["data"]] == [
        ("fired", 98.0),
        ("resolved", 50.0),
        ("fired", 97.0),
    ]
    assert history["data"][1]["active_seconds"] == 5.0
    assert history["data"][1]["starts_at"] == history["data"][2]["at"]
    limited = api.http.get("/v1/alerts/history?limit=1").json()
    assert ([event["value"] for event in limited["data"]], limited["total"]) == ([98.0], 3)


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", "1001", "9" * 5000, "٣"])
def test_a_limit_out_of_range_is_refused(api: Api, watched: Watched, limit: str) -> None:
    response = api.http.get("/v1/alerts/history", params={"limit": limit})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "limit")
    assert response.json()["errors"][0]["limit"] == 1000


def test_a_silence_is_made_listed_and_ended(api: Api, watched: Watched) -> None:
    response = api.http.post("/v1/alerts/silences", json=SILENCE, headers=api.admin)
    assert response.status_code == 201
    silence = response.json()
    assert (silence["matchers"], silence["comment"], silence["created_by"]) == ({"alertname": "slow"}, "known", "kim")
    assert (silence["state"], silence["ends_in_seconds"], silence["rules"]) == ("active", 3600.0, ["slow"])
    assert (silence["starts_at"], silence["ends_at"]) == (1_750_000_000.0, 1_750_003_600.0)
    assert api.http.get("/v1/alerts").json()["silences"] == [silence]
    ended = api.http.delete(f"/v1/alerts/silences/{silence['id']}", headers=api.admin)
    assert (ended.status_code, ended.content) == (204, b"")
    assert watched.monitor.silences() == []
    gone = api.http.delete(f"/v1/alerts/silences/{silence['id']}", headers=api.admin)
    assert (gone.status_code, gone.json()["code"], gone.json()["errors"][0]["field"]) == (404, "unknown-silence", "id")


def test_a_silence_ends_by_itself(api: Api, watched: Watched) -> None:
    api.http.post("/v1/alerts/silences", json=SILENCE, headers=api.admin)
    watched.clock.advance(3599.0)
    (silence,) = api.http.get("/v1/alerts").json()["silences"]
    assert silence["ends_in_seconds"] == 1.0
    watched.clock.advance(1.0)
    assert api.http.get("/v1/alerts").json()["silences"] == []


@pytest.mark.parametrize(
    ("matchers", "rules"),
    [
        ({"severity": "*"}, ["slow", "disk_full", "quiet"]),
        ({"metric": "api.*", "severity": "info"}, ["quiet"]),
        ({"alertname": "Slow"}, []),
        ({"team": "*"}, ["disk_full"]),
    ],
)
def test_a_silence_says_which_rules_it_fits(
    api: Api, watched: Watched, matchers: dict[str, str], rules: list[str]
) -> None:
    body = {**SILENCE, "matchers": matchers}
    assert api.http.post("/v1/alerts/silences", json=body, headers=api.admin).json()["rules"] == rules


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(0.5, 0.5), ("2h", 7200.0), ("90m", 5400.0), ("1D12H", 129_600.0), (" 1h30m ", 5400.0), ("45s", 45.0)],
)
def test_a_duration_is_seconds_or_a_text(api: Api, watched: Watched, given: object, seconds: float) -> None:
    response = api.http.post("/v1/alerts/silences", json={**SILENCE, "duration_seconds": given}, headers=api.admin)
    assert response.json()["ends_in_seconds"] == seconds


@pytest.mark.parametrize("text", ["", " ", "2", "h", "2h 30m", "30m2h", "-1h", "1e3s", "2w", "٣h", "nan", "1.h"])
def test_what_is_no_duration_has_no_seconds(text: str) -> None:
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matchers": {}}, "matchers"),
        ({"matchers": ["slow"]}, "matchers"),
        ({"matchers": {"": "slow"}}, "matchers"),
        ({"matchers": {"alertname": ""}}, "matchers"),
        ({"matchers": {"alertname": "x" * 201}}, "matchers"),
        ({"matchers": {f"l{number}": "x" for number in range(17)}}, "matchers"),
        ({"duration_seconds": 0}, "duration_s"),
        ({"duration_seconds": -5}, "duration_s"),
        ({"duration_seconds": 1e300}, "duration_s"),
        ({"duration_seconds": "366d"}, "duration_s"),
        ({"duration_seconds": "9" * 60 + "d"}, "duration_s"),
        ({"duration_seconds": "x" * 65}, "duration_seconds"),
        ({"duration_seconds": "soon"}, "'45m', '2h' or '1d12h'"),
        ({"duration_seconds": None}, "duration_seconds"),
        ({"comment": "x" * 1001}, "comment"),
        ({"created_by": "x" * 201}, "created_by"),
        ({"until": "tomorrow"}, "until"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(
    api: Api, watched: Watched, changes: dict[str, Any], words: str
) -> None:
    response = api.http.post("/v1/alerts/silences", json={**SILENCE, **changes}, headers=api.admin)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
    assert words in response.json()["detail"]
    if "duration_seconds" in changes:
        assert response.json()["errors"][0]["field"] == "duration_seconds"
    assert watched.monitor.silences() == []


@pytest.mark.parametrize("missing", ["matchers", "duration_seconds"])
def test_what_is_missing_is_named(api: Api, watched: Watched, missing: str) -> None:
    body = {name: value for name, value in SILENCE.items() if name != missing}
    response = api.http.post("/v1/alerts/silences", json=body, headers=api.admin)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, missing)


def test_there_are_at_most_so_many(api: Api, watched: Watched) -> None:
    for _ in range(MAX_SILENCES):
        watched.monitor.silence_alerts({"alertname": "slow"}, 60.0)
    response = api.http.post("/v1/alerts/silences", json=SILENCE, headers=api.admin)
    assert (response.status_code, f"{MAX_SILENCES} silences" in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/alerts/silences"), ("DELETE", "/v1/alerts/silences/s1")])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_silencing_needs_the_admin_key(api: Api, watched: Watched, method: str, path: str, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    response = api.http.request(method, path, json=SILENCE, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert watched.monitor.silences() == []


def test_the_users_key_reads_and_does_not_silence(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api(api_key="key-of-the-users", admin_key="key-of-the-admin")
    watched = Watched()
    monkeypatch.setattr(api.service, "monitor", watched.monitor)
    user = {"Authorization": "Bearer key-of-the-users"}
    assert api.http.get("/v1/alerts").status_code == 401
    assert api.http.get("/v1/alerts", headers=user).status_code == 200
    assert api.http.post("/v1/alerts/silences", json=SILENCE, headers=user).status_code == 401
    assert api.http.post("/v1/alerts/silences", json=SILENCE, headers=api.admin).status_code == 201


def test_every_answer_has_the_form_that_is_described(api: Api, watched: Watched) -> None:
    document = api.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    watched.see("disk.used_percent", 97.0, "percent")
    api.http.post("/v1/alerts/silences", json=SILENCE, headers=api.admin)
    overview = api.http.get("/v1/alerts").json()
    history = api.http.get("/v1/alerts/history").json()
    for answer, name in (
        (overview, "AlertOverview"),
        (overview["rules"][0], "AlertRuleState"),
        (overview["active"][0], "ActiveAlert"),
        (overview["silences"][0], "AlertSilence"),
        (history, "AlertHistory"),
        (history["data"][0], "AlertTransition"),
    ):
        assert set(answer) == set(schemas[name]["properties"]), name
    assert set(watched.monitor.alert_states()[0]) == set(schemas["AlertRuleState"]["properties"])
    paths = document["paths"]
    assert paths["/v1/alerts/silences"]["post"]["security"] == [{"adminKey": []}]
    assert paths["/v1/alerts/silences/{silence_id}"]["delete"]["security"] == [{"adminKey": []}]
    assert "404" in paths["/v1/alerts/silences/{silence_id}"]["delete"]["responses"]
    (limit,) = paths["/v1/alerts/history"]["get"]["parameters"]
    assert limit["schema"] == {"type": "integer"}


def test_the_example_of_the_description_is_taken(api: Api, watched: Watched) -> None:
    document = api.http.get("/openapi.json").json()
    content = document["paths"]["/v1/alerts/silences"]["post"]["requestBody"]["content"]["application/json"]
    assert api.http.post("/v1/alerts/silences", json=content["example"], headers=api.admin).status_code == 201
