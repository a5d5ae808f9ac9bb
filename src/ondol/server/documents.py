"""service: ``/v1/documents`` and ``/v1/search``: store texts and find them by meaning and by wording."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from ondol.errors import UnknownDocumentError
from ondol.server.decoding import check_batch_size, read_request
from ondol.server.problems import FieldError, InvalidRequestError
from ondol.server.schemas import (
    Document,
    DocumentCount,
    DocumentInput,
    DocumentsCreated,
    DocumentsRequest,
    SearchRequest,
    SearchResponse,
    SearchResult,
)
from ondol.similarity.records import NewDocument
from ondol.similarity.text import check_document_id, check_label, check_metadata, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

    from ondol.server.ports import Engine
    from ondol.settings import Settings

__all__ = ["add_documents", "count_documents", "delete_document", "get_document", "search"]

_DOCUMENTS_DECODER = msgspec.json.Decoder(DocumentsRequest)
_SEARCH_DECODER = msgspec.json.Decoder(SearchRequest)
_ONE_DOCUMENT_FIELDS = ("text", "id", "title", "metadata")


async def add_documents(request: Request) -> Response:
    """Store one document or several; all of them or none."""
    body = await read_request(request, _DOCUMENTS_DECODER)
    settings: Settings = request.app.state.service.settings
    engine: Engine = request.app.state.engine
    if isinstance(body.documents, UnsetType):
        documents = [_check_document(_one_document(body), "", settings)]
    else:
        documents = _several_documents(body, body.documents, settings)
    ids = await engine.add_documents(documents, model=body.model or settings.default_model)
    headers = {"Location": f"{request.url.path}/{quote(ids[0], safe='')}"} if body.documents is UNSET else {}
    return Response(msgspec.json.encode(DocumentsCreated(ids=ids)), 201, headers, "application/json")


def _one_document(body: DocumentsRequest) -> DocumentInput:
    if isinstance(body.text, UnsetType):
        message = "give either text (one document) or documents (a list of them)"
        raise InvalidRequestError(message, FieldError("text", message), FieldError("documents", message))
    return DocumentInput(
        text=body.text,
        id=None if isinstance(body.id, UnsetType) else body.id,
        title="" if isinstance(body.title, UnsetType) else body.title,
        metadata={} if isinstance(body.metadata, UnsetType) else body.metadata,
    )


def _several_documents(body: DocumentsRequest, documents: list[DocumentInput], settings: Settings) -> list[NewDocument]:
    stray = [name for name in _ONE_DOCUMENT_FIELDS if getattr(body, name) is not UNSET]
    if stray:
        message = "belongs to a single document and cannot stand beside documents"
        raise InvalidRequestError(f"{stray[0]} {message}", *(FieldError(name, message) for name in stray))
    check_batch_size(len(documents), field="documents", max_count=settings.max_batch_texts)
    checked = [_check_document(document, f"documents[{index}].", settings) for index, document in enumerate(documents)]
    _check_ids_differ(checked)
    return checked


def _check_document(document: DocumentInput, prefix: str, settings: Settings) -> NewDocument:
    return NewDocument(
        text=check_text(document.text, field=f"{prefix}text", max_chars=settings.max_document_chars),
        id=None if document.id is None else check_document_id(document.id, field=f"{prefix}id"),
        title=check_label(document.title, field=f"{prefix}title"),
        metadata=check_metadata(document.metadata, field=f"{prefix}metadata"),
    )


def _check_ids_differ(documents: Iterable[NewDocument]) -> None:
    places: dict[str, int] = {}
    for index, document in enumerate(documents):
        if document.id is None:
            continue
        first = places.setdefault(document.id, index)
        if first != index:
            message = f"documents[{first}] has the id {document.id!r} already"
            raise InvalidRequestError(message, FieldError(f"documents[{index}].id", message))


async def count_documents(request: Request) -> Response:
    """Answer with the number of stored documents."""
    engine: Engine = request.app.state.engine
    answer = DocumentCount(count=await engine.count_documents())
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def get_document(request: Request) -> Response:
    """Answer with one document."""
    engine: Engine = request.app.state.engine
    stored = await engine.get_document(_path_id(request))
    answer = Document(
        id=stored.id,
        title=stored.title,
        text=stored.text,
        metadata=dict(stored.metadata),
        added_at=stored.added_at_s,
        chunk_count=stored.chunk_count,
    )
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def delete_document(request: Request) -> Response:
    """Remove one document."""
    engine: Engine = request.app.state.engine
    await engine.delete_document(_path_id(request))
    return Response(status_code=204)


def _path_id(request: Request) -> str:
    """Return the id in the path; what cannot be an id at all is an unknown one."""
    document_id: str = request.path_params["document_id"]
    try:
        return check_document_id(document_id)
    except ValueError as exc:
        raise UnknownDocumentError(f"no document has the id {document_id!r}") from exc


async def search(request: Request) -> Response:
    """Answer with the documents that fit a query best."""
    body = await read_request(request, _SEARCH_DECODER)
    settings: Settings = request.app.state.service.settings
    engine: Engine = request.app.state.engine
    query = check_text(body.query, field="query", max_chars=settings.max_text_chars)
    if body.limit > settings.max_search_limit:
        message = f"limit is {body.limit}; at most {settings.max_search_limit} are allowed (ONDOL_MAX_SEARCH_LIMIT)"
        raise InvalidRequestError(message, FieldError("limit", message, limit=settings.max_search_limit))
    model = body.model or settings.default_model
    hits = await engine.search(query, limit=body.limit, model=model)
    results = [
        SearchResult(
            id=hit.id,
            title=hit.title,
            score=hit.score,
            semantic_score=hit.semantic_score,
            lexical_score=hit.lexical_score,
            passage=hit.passage,
            metadata=dict(hit.metadata),
        )
        for hit in hits
    ]
    answer = SearchResponse(model=model, results=results)
    return Response(msgspec.json.encode(answer), media_type="application/json")
