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
    ``request.app.state.ondol``, those of sub-apps that are mounted too, or use the returned object. Nothing is added to
    the app's routes.

    Args:
        app: a Starlette or FastAPI application, the outermost: servers run no lifespan of mounted ones.
        service: the runtime to run; a new one by the environment's settings when not given.
    """
    runtime = service if service is not None else OptimizationService(is_memory_kept=True)
    app.state.ondol = runtime
    router: _Router = app.router
    own_lifespan = router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        _share(app, runtime)
        async with runtime, own_lifespan(application) as state:
            yield state

    router.lifespan_context = lifespan
    return runtime


def _share(app: Any, runtime: OptimizationService) -> None:
    """Let the sub-apps that are mounted by now find the runtime as the app does; one that has its own keeps it."""
    for route in getattr(app, "routes", ()):
        sub_app = getattr(route, "app", None)
        state = getattr(sub_app, "state", None)
        if state is not None and not hasattr(state, "ondol"):
            state.ondol = runtime
            _share(sub_app, runtime)
