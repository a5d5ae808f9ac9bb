"""Bodies that are too large, of the wrong type, or no JSON: always a problem document, never a 500."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

    from tests.server.conftest import Api

JSON = {"Content-Type": "application/json"}
PATHS = ["/v1/embeddings", "/v1/similarity", "/v1/documents", "/v1/search"]


def assert_problem(response: httpx2.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:ondol:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["errors"]
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": 1} x',
        b"{'a': 1}",
        b'\xef\xbb\xbf{"input": "a"}',
        b'{"text": 1, ',
        b'{"\xed\x95": 1}',
        b"\x00" * 10,
        b'{"text": NaN}',
        b'{"text": "a\nb"}',
    ],
)
def test_what_is_no_json_is_a_400(api: Api, path: str, body: bytes) -> None:
    assert_problem(api.http.post(path, content=body, headers=JSON), 400, "malformed-json")


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/embeddings", "input"), ("/v1/similarity", "text_a"), ("/v1/documents", "text"), ("/v1/search", "query")],
)
def test_what_is_no_utf_8_is_a_400(api: Api, path: str, field: str) -> None:
    body = b'{"%s": "\xff\xfe"}' % field.encode()
    assert_problem(api.http.post(path, content=body, headers=JSON), 400, "malformed-json")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embeddings", b'{"input": ["a", "\\ud800"]}', "input[1]"),
        ("/v1/embeddings", b'{"input": "\\udc00 b"}', "input"),
        ("/v1/similarity", b'{"text_a": "a", "texts": ["b", "\\ud83d!"]}', "texts[1]"),
        ("/v1/documents", b'{"documents": [{"text": "a"}, {"text": "b", "title": "\\uDEAD"}]}', "documents[1].title"),
        ("/v1/search", b'{"query": "a", "limit": NaN}', "limit"),
        ("/v1/search", b'{"query": "a", "limit": -Infinity}', "limit"),
        ("/v1/embeddings", b'{"input": [0.1, NaN]}', "input[1]"),
    ],
)
def test_half_surrogates_and_nan_are_told_by_field(api: Api, path: str, body: bytes, field: str) -> None:
    response = api.http.post(path, content=body, headers=JSON)
    assert_problem(response, 400, "malformed-json")
    assert response.json()["errors"][0]["field"] == field
    assert api.engine.calls == []


def test_a_whole_surrogate_pair_is_a_character(api: Api) -> None:
    response = api.http.post("/v1/embeddings", content=b'{"input": "\\ud83d\\ude00"}', headers=JSON)
    assert response.status_code == 200
    assert api.engine.calls == [("embed", ["\U0001f600"])]


@pytest.mark.parametrize("path", PATHS)
def test_deep_nesting_is_refused(api: Api, path: str) -> None:
    for body in (
        b"[" * 200_000,
        b'{"metadata": ' * 100_000,
        b'{"input": ' + b"[" * 200_000,
        b'{"x": ' + b"[" * 200_000,
    ):
        response = api.http.post(path, content=body, headers=JSON)
        assert response.status_code in {400, 422}
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", ["null", "true", "17", "1e999", '"text"', "[]", '[{"text": "a"}]'])
def test_json_of_another_shape_is_a_422(api: Api, path: str, value: str) -> None:
    response = api.http.post(path, content=value, headers=JSON)
    assert response.status_code in {400, 422}
    assert response.json()["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json; charset=euc-kr", None],
)
def test_another_content_type_is_a_415(api: Api, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = api.http.post("/v1/embeddings", content=b'{"input": "a"}', headers=headers)
    assert_problem(response, 415, "unsupported-media-type")
    assert response.json()["errors"][0]["allowed"] == ["application/json"]


def test_a_compressed_body_is_a_415(api: Api) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    assert_problem(api.http.post("/v1/embeddings", content=b"x", headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; Charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_in_utf_8_is_read(api: Api, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    body = json.dumps({"input": "방"}, ensure_ascii=False).encode()
    assert api.http.post("/v1/embeddings", content=body, headers=headers).status_code == 200


def test_a_large_body_is_refused_by_its_declared_length(make_api: Callable[..., Api]) -> None:
    api = make_api(max_body_mb=0.001)
    response = api.http.post("/v1/embeddings", json={"input": "a" * 2000})
    assert_problem(response, 413, "body-too-large")
    assert response.json()["errors"][0]["limit"] == 1048


def test_a_large_body_without_a_length_is_refused_while_it_streams(make_api: Callable[..., Api]) -> None:
    api = make_api(max_body_mb=0.001)
    sent = []

    def chunks() -> Iterator[bytes]:
        for index in range(100):
            sent.append(index)
            yield b" " * 100

    response = api.http.post("/v1/embeddings", content=chunks(), headers=JSON)
    assert_problem(response, 413, "body-too-large")


def test_a_body_in_pieces_is_put_together(api: Api) -> None:
    pieces = iter([b'{"inp', b'ut": "\xeb\xb0', b'\xa9"}'])
    assert api.http.post("/v1/embeddings", content=pieces, headers=JSON).status_code == 200
    assert api.engine.calls == [("embed", ["방"])]


def test_what_a_client_sent_is_not_repeated_at_length(api: Api) -> None:
    response = api.http.post("/v1/search", json={"query": "a", "x" * 100_000: 1})
    assert response.status_code == 422
    assert len(response.content) < 10_000
