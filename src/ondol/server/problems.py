"""adapter: every error that can reach a client, as an RFC 9457 problem document.

``PROBLEMS`` is the one table from error classes to status, code and title. Handlers raise; the request middleware
asks :func:`problem_response` for the answer. Under ``/v2`` it is ``{"error": text}``, as the protocol there has it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ondol import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Scope

__all__ = [
    "MEDIA_TYPE",
    "PROBLEMS",
    "BodyTooLargeError",
    "FieldError",
    "InvalidRequestError",
    "MalformedJsonError",
    "MediaTypeError",
    "MisdirectedError",
    "OverloadedError",
    "ProblemType",
    "RequestError",
    "UnauthorizedError",
    "UnknownSilenceError",
    "advised",
    "problem_response",
]

logger = logging.getLogger("ondol.server")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
MAX_SHOWN_CHARS: Final = 1000
"""A message that repeats what a client sent is cut here."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    message: str
    limit: float | None = None
    allowed: Sequence[object] | None = None

    def document(self) -> dict[str, Any]:
        """Return the members that are known."""
        members = {
            "field": _shown(self.field),
            "message": _shown(self.message),
            "limit": self.limit,
            "allowed": self.allowed,
        }
        return {name: value for name, value in members.items() if value is not None}


class RequestError(errors.OndolError):
    """Base of the errors that a request itself causes."""

    def __init__(self, detail: str, *field_errors: FieldError, headers: Mapping[str, str] | None = None) -> None:
        """Keep what the problem document says beside ``detail``."""
        super().__init__(detail)
        self.field_errors = field_errors
        self.headers = dict(headers or {})


class MalformedJsonError(RequestError):
    """The body is not JSON in UTF-8."""


class InvalidRequestError(RequestError):
    """The body is JSON, but not what this call takes."""


class UnauthorizedError(RequestError):
    """The API key is missing or wrong."""


class BodyTooLargeError(RequestError):
    """The body is larger than the server takes."""


class MediaTypeError(RequestError):
    """The body is of a type the server does not read."""


class MisdirectedError(RequestError):
    """The request names another host than this server."""


class UnknownSilenceError(RequestError):
    """The request names a silence of alerts that there is not (any more)."""


class OverloadedError(RequestError):
    """More requests at once than the server takes."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One row of the table: how a class of errors is answered."""

    status: int
    code: str
    title: str
    is_retryable: bool = False
    is_bare_status: bool = False
    """Whether it says nothing that the HTTP status does not say."""

    @property
    def type(self) -> str:
        """The problem type's identifier, as RFC 9457 wants it."""
        return "about:blank" if self.is_bare_status else f"urn:ondol:problem:{self.code}"


_INTERNAL: Final = ProblemType(500, "internal-error", "The server made a mistake")

PROBLEMS: Final[Mapping[type[Exception], ProblemType]] = {
    MalformedJsonError: ProblemType(400, "malformed-json", "The body is not valid JSON"),
    UnauthorizedError: ProblemType(401, "unauthorized", "The API key is missing or wrong"),
    errors.UnknownModelError: ProblemType(404, "unknown-model", "There is no model of that name"),
    errors.UnknownDocumentError: ProblemType(404, "unknown-document", "There is no document of that id"),
    errors.UnknownOperationError: ProblemType(404, "unknown-operation", "There is no operation of that id"),
    errors.UnknownHintError: ProblemType(404, "unknown-hint", "There is no preload hint of that id"),
    UnknownSilenceError: ProblemType(404, "unknown-silence", "There is no silence of that id"),
    BodyTooLargeError: ProblemType(413, "body-too-large", "The body is too large"),
    MediaTypeError: ProblemType(415, "unsupported-media-type", "The body's type is not supported"),
    MisdirectedError: ProblemType(421, "unknown-host", "The request was meant for another host"),
    InvalidRequestError: ProblemType(422, "invalid-request", "The request is not valid"),
    errors.InvalidTextError: ProblemType(422, "invalid-text", "A text cannot be analysed"),
    errors.MissingExtraError: ProblemType(422, "model-not-installed", "The model's package is not installed"),
    OverloadedError: ProblemType(503, "overloaded", "The server is busy", is_retryable=True),
    errors.TooManyOperationsError: ProblemType(
        503, "too-many-operations", "Too many operations are running", is_retryable=True
    ),
    errors.LifecycleError: ProblemType(503, "not-running", "The server is starting or stopping", is_retryable=True),
    errors.LeaseTimeoutError: ProblemType(503, "model-busy", "The model did not become free", is_retryable=True),
    errors.ModelBudgetError: ProblemType(503, "model-too-large", "The model does not fit into memory"),
    errors.ModelQuarantinedError: ProblemType(503, "model-quarantined", "The model is quarantined"),
    errors.ModelCrashedError: ProblemType(503, "model-crashed", "The model's process ended"),
    errors.ModelCallTimeoutError: ProblemType(503, "model-timeout", "The model took too long"),
    errors.ModelError: ProblemType(503, "model-unavailable", "The model is not available"),
    errors.StoreUnavailableError: ProblemType(503, "store-unavailable", "The document store is not available"),
    Exception: _INTERNAL,
}
"""The row of an error is that of the nearest of its base classes."""

_WITH_ADMIN_KEY: Final = "over HTTP, with the admin key: POST /v1/models/{model}"
_ADVICE: Final[Mapping[str, str]] = {
    errors.ModelNotLoadedError.__name__: f" ({_WITH_ADMIN_KEY}/load)",
    errors.ModelQuarantinedError.__name__: f" ({_WITH_ADMIN_KEY}/release)",
}
"""What to do over HTTP about errors whose messages say what to do in Python, by the name of their class."""


def advised(message: str, error_type: str | None) -> str:
    """Return the message of an error with the advice there is for clients; it may be one of which only texts are kept.

    >>> advised("model 'm' is quarantined", "ModelQuarantinedError")
    "model 'm' is quarantined (over HTTP, with the admin key: POST /v1/models/{model}/release)"
    """
    return message + _ADVICE.get(error_type or "", "")


def problem_response(exc: Exception, scope: Scope) -> Response:
    """Return the problem document of ``exc`` as a response; what is the server's own fault is logged."""
    request_id = scope.get("ondol.request_id", "")
    if isinstance(exc, HTTPException):
        return _http_problem(exc, scope)
    kind = next(PROBLEMS[base] for base in type(exc).__mro__ if base in PROBLEMS)
    headers = dict(getattr(exc, "headers", None) or {})
    detail = advised(_shown(str(exc)), type(exc).__name__)
    if kind is _INTERNAL:
        logger.error("%s %r failed (request %s)", scope["method"], scope["path"], request_id, exc_info=exc)
        detail = f"Nothing is known to be wrong with the request. The server's log tells more under {request_id}."
    elif kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, OverloadedError):
        logger.warning("%s %r: %s (request %s)", scope["method"], scope["path"], exc, request_id, exc_info=exc)
    if kind.is_retryable:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return _response(kind, detail, scope, headers, _field_errors(exc))


def _http_problem(exc: HTTPException, scope: Scope) -> Response:
    phrase = HTTPStatus(exc.status_code).phrase
    kind = ProblemType(exc.status_code, phrase.lower().replace(" ", "-"), phrase, is_bare_status=True)
    details = {
        404: f"There is nothing at {scope['path']}; /docs lists what there is.",
        405: f"{scope['method']} is not possible here; the Allow header says what is.",
    }
    headers = dict(exc.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))  # Starlette's is a set in random order
    return _response(kind, _shown(details.get(exc.status_code, exc.detail)), scope, headers, [])


def _field_errors(exc: Exception) -> Sequence[FieldError]:
    if isinstance(exc, RequestError):
        return exc.field_errors
    if isinstance(exc, errors.InvalidTextError):
        return [FieldError(exc.field, str(exc), limit=getattr(exc, "limit", None))]
    if isinstance(exc, errors.UnknownModelError):
        return [FieldError("model", str(exc), allowed=exc.known)]
    if isinstance(exc, errors.MissingExtraError):
        return [FieldError("model", str(exc))]
    if isinstance(exc, (errors.UnknownDocumentError, errors.UnknownOperationError, errors.UnknownHintError)):
        return [FieldError("id", str(exc))]
    return []


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _response(
    kind: ProblemType, detail: str, scope: Scope, headers: Mapping[str, str], field_errors: Sequence[FieldError]
) -> Response:
    headers = {"Cache-Control": "no-store", **headers}
    if _is_of_oip(scope):
        return Response(json.dumps({"error": detail}).encode("ascii"), kind.status, headers, "application/json")
    error_documents = [error.document() for error in field_errors]
    document = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": scope["path"],
        "code": kind.code,
        "request_id": scope.get("ondol.request_id", ""),
        "errors": error_documents,
        # OpenAI's form beside it: its clients show nothing but this message.
        "error": {
            "message": detail,
            "type": kind.code,
            "param": error_documents[0]["field"] if error_documents else None,
            "code": kind.code,
        },
    }
    # ASCII with escapes: a path or a message may hold what UTF-8 cannot encode (a lone surrogate).
    body = json.dumps(document, ensure_ascii=True).encode("ascii")
    return Response(body, kind.status, headers, MEDIA_TYPE)


def _is_of_oip(scope: Scope) -> bool:
    """Tell whether the path is the Open Inference Protocol's, which has its own form of errors."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == "/v2" or path.startswith("/v2/")
