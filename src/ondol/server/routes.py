"""service: the table of routes; each endpoint imports its module when it is first called.

So the process answers its first health check before it has read a line of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from ondol.server.health import livez, readyz
from ondol.server.late_routes import LateRoutes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["api_routes"]


def api_routes() -> list[BaseRoute]:
    """Return every route but those of the status page."""
    return [
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        LateRoutes(("/metrics", "/openapi.json", "/docs", "/v1/"), _text_routes),
        LateRoutes(
            ("/v1/models/", "/v1/alerts", "/v1/operations", "/v1/preload", "/v1/strategy", "/v2"), _control_routes
        ),
    ]


def _text_routes() -> list[BaseRoute]:
    return [
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs_page, methods=["GET"], include_in_schema=False),
        Route("/docs/{name}", _docs_file, methods=["GET"], include_in_schema=False),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/similarity", _similarity, methods=["POST"]),
        Route("/v1/documents", _documents, methods=["GET", "POST"]),
        Route("/v1/documents/{document_id}", _document, methods=["GET", "DELETE"]),
        Route("/v1/search", _search, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/v1/stats", _stats, methods=["GET"]),
    ]


def _control_routes() -> list[BaseRoute]:
    from ondol.server.control_routes import control_routes

    return control_routes()


async def _metrics(request: Request) -> Response:
    from ondol.server.metrics import metrics

    return await metrics(request)


async def _openapi(request: Request) -> Response:
    from ondol.server.docs import openapi_document

    return await openapi_document(request)


async def _docs_page(request: Request) -> Response:
    from ondol.server.docs import docs_page

    return await docs_page(request)


async def _docs_file(request: Request) -> Response:
    from ondol.server.docs import docs_file

    return await docs_file(request)


async def _embeddings(request: Request) -> Response:
    from ondol.server.embeddings import create_embeddings

    return await create_embeddings(request)


async def _similarity(request: Request) -> Response:
    from ondol.server.similarity import compare_texts

    return await compare_texts(request)


async def _documents(request: Request) -> Response:
    from ondol.server.documents import add_documents, count_documents

    return await (add_documents if request.method == "POST" else count_documents)(request)


async def _document(request: Request) -> Response:
    from ondol.server.documents import delete_document, get_document

    return await (delete_document if request.method == "DELETE" else get_document)(request)


async def _search(request: Request) -> Response:
    from ondol.server.documents import search

    return await search(request)


async def _models(request: Request) -> Response:
    from ondol.server.models import list_models

    return await list_models(request)


async def _stats(request: Request) -> Response:
    from ondol.server.models import get_stats

    return await get_stats(request)
