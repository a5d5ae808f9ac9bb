"""`/v1/documents` and `/v1/search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Api


def test_one_document_is_stored_read_and_removed(api: Api) -> None:
    body = {"text": "파이썬 개발자", "id": "cv:1", "title": "이력서", "metadata": {"kind": "resume"}}
    created = api.http.post("/v1/documents", json=body)
    assert created.status_code == 201
    assert created.json() == {"ids": ["cv:1"]}
    assert created.headers["location"] == "/v1/documents/cv%3A1"
    stored = api.http.get(created.headers["location"])
    assert stored.json() == {
        "id": "cv:1",
        "title": "이력서",
        "text": "파이썬 개발자",
        "metadata": {"kind": "resume"},
        "added_at": 1_750_000_000.0,
        "chunk_count": 1,
    }
    assert api.http.get("/v1/documents").json() == {"count": 1}
    gone = api.http.delete("/v1/documents/cv:1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.http.delete("/v1/documents/cv:1").status_code == 404


def test_several_documents_are_stored_together(api: Api) -> None:
    created = api.http.post("/v1/documents", json={"documents": [{"text": "하나", "id": "a"}, {"text": "two"}]})
    assert created.status_code == 201
    assert created.json()["ids"] == ["a", "made-1"]
    assert "location" not in created.headers


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 1}, "text"),
        ({"text": "a", "documents": []}, "text"),
        ({"documents": []}, "documents"),
        ({"documents": ["a"]}, "documents[0]"),
        ({"documents": [{"text": "a"}, {"text": " "}]}, "documents[1].text"),
        ({"documents": [{"text": "a"}, {"txt": "b"}]}, "documents[1].txt"),
        ({"documents": [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]}, "documents[1].id"),
        ({"documents": [{"text": "a", "metadata": {"n": 1}}]}, "documents[0].metadata[...]"),
        ({"text": "a", "id": ""}, "id"),
        ({"text": "a", "id": "a/b"}, "id"),
        ({"text": "a", "title": "t" * 501}, "title"),
        ({"text": "a", "title": "nul\x00"}, "title"),
        ({"text": "a", "metadata": {"k": "v" * 1001}}, "metadata.k"),
        ({"text": "a" * 200_001}, "text"),
    ],
)
def test_nothing_is_stored_of_a_bad_request(api: Api, body: Any, field: str) -> None:
    response = api.http.post("/v1/documents", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field
    assert api.engine.calls == []


@pytest.mark.parametrize(
    "path", ["/v1/documents/nothing", "/v1/documents/%00", "/v1/documents/%ED%95%9C", "/v1/documents/a%20b"]
)
def test_an_unknown_document_is_a_404(api: Api, path: str) -> None:
    for method in ("GET", "DELETE"):
        response = api.http.request(method, path)
        assert response.status_code == 404
        assert response.json()["code"] == "unknown-document"


def test_search_answers_the_best_documents(api: Api) -> None:
    api.http.post("/v1/documents", json={"documents": [{"text": "하나", "id": "a"}, {"text": "둘", "id": "b"}]})
    answer = api.http.post("/v1/search", json={"query": "하나", "limit": 1}).json()
    assert answer["results"] == [
        {
            "id": "a",
            "title": "",
            "score": 0.7,
            "semantic_score": 0.8,
            "lexical_score": 0.6,
            "passage": "하나",
            "metadata": {},
        }
    ]
    assert api.engine.calls[-1] == ("search", "하나", 1)


@pytest.mark.parametrize(
    ("body", "field", "limit"),
    [
        ({}, "query", None),
        ({"query": "\t"}, "query", None),
        ({"query": "a", "limit": 0}, "limit", 1),
        ({"query": "a", "limit": -3}, "limit", 1),
        ({"query": "a", "limit": 101}, "limit", 100),
        ({"query": "a", "limit": 2.5}, "limit", None),
        ({"query": "a", "limit": "3"}, "limit", None),
        ({"query": "a", "limit": True}, "limit", None),
        ({"query": "a" * 20_001}, "query", 20_000),
    ],
)
def test_bad_searches_are_told_by_field(api: Api, body: Any, field: str, limit: int | None) -> None:
    response = api.http.post("/v1/search", json=body)
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert error.get("limit") == limit
