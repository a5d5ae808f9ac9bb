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

    from ondol.server.admin_token import AdminToken
    from ondol.server.ports import Engine, Service

__all__ = ["create_app"]


def create_app(service: Service, engine: Engine, *, admin_token: AdminToken | None = None) -> Starlette:
    """Return the application over ``service`` and ``engine``; its lifespan starts and stops both.

    Args:
        service: the runtime.
        engine: embeds, compares, stores and searches, on the runtime's models and cache.
        admin_token: opens the actions on models where the settings hold no key; without one they are closed then.
    """
    routes = [*api_routes(), *status_routes(service)]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestMiddleware, service=service, admin_token=admin_token, spans=service.spans)],
        exception_handlers={HTTPException: _http_problem},
        lifespan=_lifespan(service, engine),
    )
    app.state.service = service
    app.state.engine = engine
    app.state.created_at_s = time.time()
    app.state.is_draining = False
    app.state.exporter = None  # made by the first /metrics
    app.state.operations = None  # made by the first action on a model
    return app


def _lifespan(service: Service, engine: Engine) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # Both return at once: models go on loading behind them, and /readyz tells when they are there.
        await service.start()
        try:
            await engine.start()
            try:
                yield
            finally:
                await _close_operations(app)
                await engine.stop()
        finally:
            await service.stop()

    return lifespan


async def _close_operations(app: Starlette) -> None:
    operations, app.state.operations = app.state.operations, None
    if operations is not None:
        await operations.close()


async def _http_problem(request: Request, exc: Exception) -> Response:
    from ondol.server.problems import problem_response

    return problem_response(exc, request.scope)
