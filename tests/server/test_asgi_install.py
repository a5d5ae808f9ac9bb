"""`ondol.asgi.install` puts the runtime under a Starlette or FastAPI app without taking the app's own lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import fastapi.testclient
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ondol import ModelSpec, OptimizationService
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


def test_an_app_without_a_lifespan_of_its_own_gets_one() -> None:
    for app in (Starlette(), fastapi.FastAPI()):
        runtime = install(app, service())
        with TestClient(app):
            assert runtime.is_started
            assert app.state.ondol is runtime
        assert not runtime.is_started


def test_the_lifespan_of_a_router_that_is_included_later_runs_inside() -> None:
    app = fastapi.FastAPI()
    app.state.mine = "kept"
    runtime = install(app, service())
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        seen.append(runtime.is_started)
        yield
        seen.append(runtime.is_started)

    app.include_router(fastapi.APIRouter(lifespan=lifespan))
    with TestClient(app):
        assert app.state.mine == "kept"
    assert seen == [True, True]


def test_sub_apps_find_the_runtime_and_one_with_its_own_keeps_it() -> None:
    async def handler(request: Request) -> JSONResponse:
        async with request.app.state.ondol.models.lease("lexicon") as lexicon:
            return JSONResponse(lexicon)

    inner = Starlette(routes=[Route("/word", handler)])
    middle = fastapi.FastAPI()
    middle.mount("/inner", inner)
    own = Starlette()
    own.state.ondol = "its own"
    app = Starlette()
    runtime = install(app, service())
    app.mount("/middle", middle)
    app.mount("/own", own)
    runtime.models.register(ModelSpec("lexicon", load=lambda: {"good": 1}))
    with TestClient(app) as client:
        assert client.get("/middle/inner/word").json() == {"good": 1}
        assert own.state.ondol == "its own"
        assert runtime.models.status("lexicon").leases == 0


def test_it_adds_no_routes() -> None:
    app = Starlette()
    install(app, service())
    assert app.routes == []


def test_the_fastapi_example_works() -> None:
    from examples.fastapi_app import app

    with fastapi.testclient.TestClient(app) as client:
        first = client.get("/sentiment", params={"text": "이 집 최고 좋다"}).json()
        assert first == {"text": "이 집 최고 좋다", "score": 3}
        assert client.get("/sentiment", params={"text": "이 집 최고 좋다"}).json() == first
        warm = client.get("/warm").json()
    assert warm["hit_rate"] == "50.0%"
