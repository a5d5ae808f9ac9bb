"""service: ``/openapi.json``, and ``/docs``: Swagger UI from the package itself, nothing fetched from outside."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from ondol.server.openapi import openapi_bytes
from ondol.server.status_files import StaticFolder

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["docs_file", "docs_page", "openapi_document"]

_FOLDER: Final = StaticFolder(Path(__file__).with_name("swagger"))

_cached_bytes = cache(openapi_bytes)


async def openapi_document(request: Request) -> Response:
    """Answer with the OpenAPI description."""
    is_key_needed = request.app.state.service.settings.api_key is not None
    return Response(_cached_bytes(is_key_needed=is_key_needed), media_type="application/json")


async def docs_page(request: Request) -> Response:
    """Answer with the page."""
    return await _answer("index.html", request)


async def docs_file(request: Request) -> Response:
    """Answer with one of the page's files."""
    return await _answer(request.path_params["name"], request)


async def _answer(name: str, request: Request) -> Response:
    # The first call reads and compresses two megabytes: not in the event loop.
    return await asyncio.to_thread(_FOLDER.answer, name, request)
