"""`ondol.asgi.install` puts the runtime under a Starlette or FastAPI app without taking the app's own lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import fastapi.testclient
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ondol import OptimizationService
from ondol.asgi import install
from ondol.settings import resolve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def service() -> OptimizationService:
    return OptimizationService(resolve(arguments={"environment": "testing"}).values)


def test_the_service_runs_while_the_app_serves_and_the_own_lifespan_runs_inside() -> None:
    events: list[tuple[str, bool]] = []
    runtime = service()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append(("up", runtime.is_started))
        yield {"own": "state"}
        events.append(("down", runtime.is_started))

    async def handler(request: Request) -> JSONResponse:
        return JSONResponse({"started": request.app.state.ondol.is_started, "own": request.state.own})

    app = Starlette(routes=[Route("/", handler)], lifespan=lifespan)
    assert install(app, runtime) is runtime
    with TestClient(app) as client:
        assert client.get("/").json() == {"started": True, "own": "state"}
    assert events == [("up", True), ("down", True)]
    assert not runtime.is_started


def test_the_fastapi_example_works() -> None:
    from examples.fastapi_app import app

    with fastapi.testclient.TestClient(app) as client:
        first = client.get("/sentiment", params={"text": "이 집 최고 좋다"}).json()
        assert first == {"text": "이 집 최고 좋다", "score": 3}
        assert client.get("/sentiment", params={"text": "이 집 최고 좋다"}).json() == first
        warm = client.get("/warm").json()
    assert warm["hit_rate"] == "50.0%"
