"""service: the HTTP application, and the lifespan that starts and stops what is under it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ondol.server.middleware import RequestMiddleware
from ondol.server.routes import api_routes
from ondol.server.status import status_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    from ondol.server.ports import Engine, Service

__all__ = ["create_app"]


def create_app(service: Service, engine: Engine) -> Starlette:
    """Return the application over ``service`` and ``engine``; its lifespan starts and stops both.

    Args:
        service: the runtime.
        engine: embeds, compares, stores and searches, on the runtime's models and cache.
    """
    routes = [*api_routes(), *status_routes(service)]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestMiddleware, service=service)],
        exception_handlers={HTTPException: _http_problem},
        lifespan=_lifespan(service, engine),
    )
    app.state.service = service
    app.state.engine = engine
    app.state.created_at_s = time.time()
    app.state.is_draining = False
    app.state.exporter = None  # made by the first /metrics
    return app


def _lifespan(service: Service, engine: Engine) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # Both return at once: models go on loading behind them, and /readyz tells when they are there.
        await service.start()
        try:
            await engine.start()
            try:
                yield
            finally:
                await engine.stop()
        finally:
            await service.stop()

    return lifespan


async def _http_problem(request: Request, exc: Exception) -> Response:
    from ondol.server.problems import problem_response

    return problem_response(exc, request.scope)
