"""service: puts the runtime under anybody's Starlette or FastAPI app."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ondol.service import OptimizationService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["install"]


class _Router(Protocol):
    lifespan_context: Callable[[Any], AbstractAsyncContextManager[Any]]


class _App(Protocol):
    """What is needed of an app: Starlette's and FastAPI's have it."""

    state: Any
    router: Any


def install(app: _App, service: OptimizationService | None = None) -> OptimizationService:
    """Let ``app`` start ``service`` before its first request and stop it after its last one.

    The app's own lifespan goes on working, inside the service's. Handlers find the service as
    ``request.app.state.ondol`` or use the returned object.

    Args:
        app: a Starlette or FastAPI application.
        service: the runtime to run; a new one by the environment's settings when not given.
    """
    runtime = service if service is not None else OptimizationService()
    app.state.ondol = runtime
    router: _Router = app.router
    own_lifespan = router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with runtime, own_lifespan(application) as state:
            yield state

    router.lifespan_context = lifespan
    return runtime
