"""A request's trace: from the caller's ``traceparent`` to the load it waits for, and what its log lines can tell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ondol.cache import Cache
from ondol.models import ModelPool
from ondol.request_context import RequestContext, current_request
from ondol.server.middleware import REQUEST_METRIC, RequestMiddleware
from ondol.testing import run_virtual
from tests.server.http_fakes import FakeMonitor, FakeService
from tests.service.models_fakes import Fleet
from tests.service.otlp_double import Told, attributes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message

    from ondol.testing import VirtualClock
    from ondol.tracing import SpanRelay

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


class Monitor(FakeMonitor):
    """Keeps examples, too."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: list[tuple[str, dict[str, str], dict[str, str]]] = []

    def add_exemplar(self, name: str, value: float, marks: Mapping[str, str], /, **labels: str) -> None:
        assert value >= 0
        self.examples.append((name, dict(marks), labels))


class Site:
    """An app under the middleware whose handlers compute with a model, fail, stream, or tell their context."""

    def __init__(self, clock: VirtualClock, relay: SpanRelay | None, *, load_seconds: float = 2.0) -> None:
        self.monitor = Monitor()
        self.fleet = Fleet(load_seconds=load_seconds)
        self.cache = Cache(clock=clock, spans=relay)
        self.pool = ModelPool(clock=clock, spans=relay)
        self.pool.register(self.fleet.spec("m"))
        self.contexts: list[RequestContext | None] = []
        service = FakeService()
        service.monitor = self.monitor
        routes = [
            Route("/pages/{page}", self._page),
            Route("/broken", self._broken),
            Route("/events", self._events),
            Route("/livez", self._livez),
        ]
        self.app: ASGIApp = Starlette(
            routes=routes, middleware=[Middleware(RequestMiddleware, service=service, spans=relay)]
        )

    async def _page(self, request: Request) -> Response:
        self.contexts.append(current_request())

        async def compute() -> str:
            async with self.pool.lease("m"):
                return "page"

        return PlainTextResponse(await self.cache.get_or_compute("page", request.url.path, compute=compute))

    async def _broken(self, _request: Request) -> Response:
        raise ZeroDivisionError("oh")

    async def _livez(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _events(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            await asyncio.sleep(3600)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def get(self, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> int:
        """Return the status of the answer."""
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        sent: list[Message] = []
        bodies: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": raw,
        }
        scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("test", 80), "asgi": {}}

        async def receive() -> Message:
            if not bodies:
                await asyncio.Event().wait()
            return bodies.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        status: int = sent[0]["status"]
        return status


def test_a_request_with_a_cold_model_is_one_trace_under_its_callers_span() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        async with site.pool:
            assert await site.get("/pages/1", {**SAMPLED, "x-request-id": "r-1", "tracestate": "other=1"}) == 200
        load = told.one("models.load")
        assert told.path(load) == [
            *("GET /pages/{page}", "cache.get_or_compute", "cache.compute", "models.lease", "models.load")
        ]
        assert {f"{span.context.trace_id:032x}" for span in told.all()} == {TRACE}
        root = told.one("GET /pages/{page}")
        assert root.parent is not None
        assert (f"{root.parent.span_id:016x}", root.parent.is_remote) == (SPAN, True)
        assert root.context.trace_state.to_header() == "other=1"
        assert root.kind is SpanKind.SERVER
        assert attributes(root) == {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.route": "/pages/{page}",
            "ondol.request_id": "r-1",
            "url.path": "/pages/1",
            "url.scheme": "http",
        }
        for span in told.all():
            assert told.times(span) == (0.0, 2.0)
        assert root.status.status_code is StatusCode.UNSET
        assert site.contexts == [RequestContext("r-1", TRACE)]

    run_virtual(scenario)


def test_two_requests_that_share_a_load_each_have_it_in_their_trace() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        async with site.pool:
            await asyncio.gather(site.get("/pages/1"), site.get("/pages/2"))
        assert site.fleet.loads() == ["m"]
        loads = told.named("models.load")
        assert len({span.context.trace_id for span in loads}) == 2
        assert sorted(attributes(span)["load.joined"] for span in loads) == [False, True]
        for span in loads:
            assert told.times(span) == (0.0, 2.0)
            assert told.path(span)[0] == "GET /pages/{page}"

    run_virtual(scenario)


def test_a_request_without_a_valid_parent_begins_a_trace_that_its_log_lines_can_tell() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        async with site.pool:
            await site.get("/pages/1", {"traceparent": f"00-{TRACE}-{SPAN}"})
        root = told.one("GET /pages/{page}")
        assert root.parent is None
        assert f"{root.context.trace_id:032x}" != TRACE
        (context,) = site.contexts
        assert context is not None
        assert context.trace_id == f"{root.context.trace_id:032x}"
        assert context.request_id == attributes(root)["ondol.request_id"]

    run_virtual(scenario)


def test_a_caller_that_keeps_nothing_gets_no_spans_kept() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        async with site.pool:
            assert await site.get("/pages/1", {"traceparent": f"00-{TRACE}-{SPAN}-00"}) == 200
        assert told.all() == []
        assert site.contexts[0] is not None
        assert site.contexts[0].trace_id == TRACE
        assert site.monitor.examples == []

    run_virtual(scenario)


@pytest.mark.parametrize(
    ("headers", "trace_id"),
    [
        (SAMPLED, TRACE),
        ({"traceparent": f"00-{TRACE.upper()}-{SPAN}-01"}, ""),
        ({}, ""),
    ],
)
def test_while_tracing_is_off_log_lines_know_request_and_trace_and_nothing_is_told(
    headers: dict[str, str], trace_id: str
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        site = Site(clock, None)
        async with site.pool:
            assert await site.get("/pages/1", {**headers, "x-request-id": "r-9"}) == 200
            assert current_request() is None
        assert site.contexts == [RequestContext("r-9", trace_id)]
        expected = [{"request_id": "r-9", "trace_id": trace_id}] if trace_id else []
        assert [marks for _name, marks, _labels in site.monitor.examples] == expected

    run_virtual(scenario)


def test_several_parents_are_as_good_as_none() -> None:
    async def scenario(clock: VirtualClock) -> None:
        site = Site(clock, None)
        header = (b"traceparent", SAMPLED["traceparent"].encode())
        app = site.app

        async def twice(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "headers": [*scope["headers"], header]}, receive, send)

        site.app = twice
        async with site.pool:
            await site.get("/pages/1", SAMPLED)
        assert site.contexts[0] is not None
        assert site.contexts[0].trace_id == ""

    run_virtual(scenario)


def test_an_example_leads_from_the_duration_to_the_span() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        async with site.pool:
            await site.get("/pages/1", {"x-request-id": "r-1"})
        root = told.one("GET /pages/{page}")
        marks = {
            "request_id": "r-1",
            "trace_id": f"{root.context.trace_id:032x}",
            "span_id": f"{root.context.span_id:016x}",
        }
        labels = {"route": "/pages/{page}", "method": "GET", "status": "200"}
        assert site.monitor.examples == [(REQUEST_METRIC, marks, labels)]

    run_virtual(scenario)


def test_a_slow_request_is_an_example_without_any_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 10.125, 20.0, 20.0625])
    monkeypatch.setattr("ondol.server.middleware.perf_counter", lambda: next(ticks))

    async def scenario(clock: VirtualClock) -> None:
        site = Site(clock, None)
        await site.get("/livez", {"x-request-id": "slow"})
        await site.get("/livez", {"x-request-id": "quick"})
        assert [marks for _name, marks, _labels in site.monitor.examples] == [{"request_id": "slow"}]

    run_virtual(scenario)


def test_an_error_of_the_server_marks_its_span_and_one_of_the_caller_does_not() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        assert await site.get("/broken") == 500
        assert await site.get("/nowhere") == 404
        assert await site.get("/broken", method="BREW") == 405
        broken, missing, brewed = told.all()
        assert (broken.name, broken.status.status_code) == ("GET /broken", StatusCode.ERROR)
        assert (attributes(broken)["error.type"], attributes(broken)["http.response.status_code"]) == ("500", 500)
        assert (missing.name, missing.status.status_code) == ("GET", StatusCode.UNSET)
        assert "http.route" not in attributes(missing)
        assert attributes(brewed)["http.request.method"] == "_OTHER"
        assert brewed.name == "HTTP /broken"

    run_virtual(scenario)


def test_a_request_that_is_cancelled_ends_all_its_spans() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay, load_seconds=10.0)
        async with site.pool:
            request = asyncio.create_task(site.get("/pages/1"))
            await asyncio.sleep(3)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await asyncio.sleep(1)
        names = ["GET /pages/{page}", "cache.get_or_compute", "cache.compute", "models.lease", "models.load"]
        assert sorted(span.name for span in told.all()) == sorted(names)
        for span in told.all():
            assert told.times(span) == (0.0, 3.0)
        root = told.one("GET /pages/{page}")
        assert attributes(root)["http.response.status_code"] == 503

    run_virtual(scenario)


def test_the_span_of_an_event_stream_ends_when_the_stream_begins() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        stream = asyncio.create_task(site.get("/events"))
        await asyncio.sleep(5)
        assert told.times(told.one("GET /events")) == (0.0, 0.0)
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream
        assert len(told.all()) == 1

    run_virtual(scenario)


def test_probes_are_no_traces() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        site = Site(clock, told.relay)
        assert await site.get("/livez", SAMPLED) == 200
        assert told.all() == []

    run_virtual(scenario)
