"""Fixtures of the server's tests: the HTTP layer over fakes, and a real server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from ondol.server.admin_token import AdminToken
from ondol.server.app import create_app
from tests.server.http_fakes import FakeEngine, FakeService
from tests.server.live import LiveServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Api:
    """A running app over fakes, and the fakes."""

    http: TestClient
    service: FakeService
    engine: FakeEngine
    admin: dict[str, str]
    """The headers of an administrator."""


@pytest.fixture
def make_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an app with the given settings; it is stopped at the end of the test."""
    clients: list[TestClient] = []

    def make(**settings: Any) -> Api:
        service = FakeService(**settings)
        engine = FakeEngine(service)
        token = AdminToken(tmp_path / "admin-token")
        token.write()
        http = TestClient(create_app(service, engine, admin_token=token), raise_server_exceptions=True)
        http.__enter__()
        clients.append(http)
        key = service.settings.admin_key or service.settings.api_key or token.value
        return Api(http, service, engine, {"Authorization": f"Bearer {key}"})

    yield make
    for http in clients:
        http.__exit__(None, None, None)


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One real server for all tests that only ask it something."""
    server = LiveServer(tmp_path_factory.mktemp("live"))
    try:
        assert server.url, server.errors()
        yield server
    finally:
        server.close()
