"""service: what every request passes: an id and a trace, the key, the limit at once, the clock, and the last net."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from time import perf_counter
from typing import TYPE_CHECKING, Final

from ondol.request_context import RequestContext, enter_request, leave_request
from ondol.server.traceparent import parse_traceparent, parse_tracestate
from ondol.tracing import NO_SPAN, SpanRelay

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ondol.server.admin_token import AdminToken
    from ondol.server.ports import Service
    from ondol.tracing import RemoteParent, Span, Value

__all__ = ["REQUEST_METRIC", "RequestMiddleware"]

logger = logging.getLogger("ondol.server")
access_logger = logging.getLogger("ondol.server.access")

REQUEST_METRIC: Final = "http.request_seconds"
"""Name of the metric that holds the duration of every request, labelled with route, method and status."""

_ALWAYS_ANSWERED: Final = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OWN_ID: Final = rb"[A-Za-z0-9._:-]{1,128}\Z"
_CLIENT_GONE: Final = 499
_EVENT_STREAM: Final = b"text/event-stream"
_SLOW_S: Final = 0.1
"""Requests that take as long or longer are kept as examples of their duration."""


class RequestMiddleware:
    """The outermost layer of the app, plain ASGI.

    - gives each request an id (or takes the caller's ``X-Request-ID``) and sends it back; with the trace that the
      caller's ``traceparent`` names, it is what log lines tell (``ondol.request_context``);
    - begins the span of the request where traces are exported, but for probes;
    - asks for the keys, and where none is set refuses names that are not this server's (``ondol.server.auth``);
    - answers 503 when more requests than allowed are under way; health and metrics are always answered;
    - turns every exception into a problem document; what has no other row in the table becomes a logged 500;
    - records the duration, with an example of what was slow or traced, and writes the access log.

    An event stream counts as answered when it begins: it neither holds a place nor distorts the durations.
    """

    def __init__(
        self, app: ASGIApp, *, service: Service, admin_token: AdminToken | None = None, spans: SpanRelay | None = None
    ) -> None:
        """Wrap ``app``, which serves ``service``.

        Args:
            app: what answers.
            service: the runtime under it.
            admin_token: opens the actions on models where no key is set.
            spans: where requests are told as spans, when it is connected.
        """
        self._app = app
        self._service = service
        self._admin_token = admin_token
        self._under_way = 0
        self._spans = spans if spans is not None else SpanRelay()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        if self._spans.is_on and _path(scope) not in _ALWAYS_ANSWERED:
            exchange.span = _begin_span(self._spans, exchange)
        with exchange.span:
            token = enter_request(RequestContext(exchange.request_id, exchange.trace_id()))
            self._under_way += 1
            try:
                await self._answer(exchange, receive)
            finally:
                self._finish(exchange)
                leave_request(token)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        async def send(message: Message) -> None:
            if exchange.note(message):
                self._finish(exchange)
                exchange.span.end()
            await exchange.send(message)

        try:
            self._admit(exchange.scope)
            await self._app(exchange.scope, receive, send)
        except asyncio.CancelledError:
            # The server ends and waits no longer: the client gets an answer that says so, and may try again.
            if not exchange.status:
                from ondol.errors import AlreadyClosedError
                from ondol.server.problems import problem_response

                closed = AlreadyClosedError("the server is shutting down and could not finish this request")
                await problem_response(closed, exchange.scope)(exchange.scope, receive, send)
            raise
        except Exception as exc:
            from ondol.server.decoding import ClientGoneError
            from ondol.server.problems import problem_response

            if isinstance(exc, ClientGoneError):
                exchange.status = _CLIENT_GONE
                return
            if exchange.status:
                # Half an answer cannot be mended: the server must close the connection, and it does when told.
                raise
            await problem_response(exc, exchange.scope)(exchange.scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        path = _path(scope)
        if path in _ALWAYS_ANSWERED:
            return
        settings = self._service.settings
        if self._under_way > settings.max_concurrent_requests:
            from ondol.server.problems import OverloadedError

            detail = f"{settings.max_concurrent_requests} requests are under way already; try again shortly"
            raise OverloadedError(detail)
        from ondol.server.auth import check_request

        check_request(scope["method"], path, scope["headers"], settings, self._admin_token)

    def _finish(self, exchange: _Exchange) -> None:
        if exchange.is_finished:
            return
        exchange.is_finished = True
        self._under_way -= 1
        seconds = perf_counter() - exchange.began_at_s
        scope, status = exchange.scope, exchange.status or 500
        route = getattr(scope.get("route"), "path", "unmatched")
        # What was not matched may hold any word as its method, and labels must be few.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        monitor = self._service.monitor
        monitor.add_metric(REQUEST_METRIC, seconds, "seconds", route=route, method=method, status=str(status))
        is_known = exchange.parent is not None or exchange.span is not NO_SPAN
        if seconds >= _SLOW_S or (is_known and exchange.is_traced()):
            marks = exchange.marks()
            monitor.add_exemplar(REQUEST_METRIC, seconds, marks, route=route, method=method, status=str(status))
        if exchange.span is not NO_SPAN:
            _describe(exchange.span, scope, status)
        level = _log_level(scope["path"], status)
        if access_logger.isEnabledFor(level):
            path = ascii(scope["path"])[1:-1]  # a path may hold anything, line breaks too
            access_logger.log(
                level,
                "%s %s %d %.1f ms",
                *(scope["method"], path, status, seconds * 1e3),
                extra={"fields": {"request_id": exchange.request_id, "route": route, "seconds": round(seconds, 6)}},
            )


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _begin_span(spans: SpanRelay, exchange: _Exchange) -> Span:
    """Begin the span of a request, by OpenTelemetry's semantic conventions for HTTP servers."""
    scope, parent = exchange.scope, exchange.parent
    method = scope["method"]
    attributes: dict[str, Value] = {
        "http.request.method": method if method in _METHODS else "_OTHER",
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "ondol.request_id": exchange.request_id,
    }
    if parent is not None:
        states = [value for name, value in scope["headers"] if name == b"tracestate"]
        parent = parent._replace(state=parse_tracestate(states)) if states else parent
    return spans.serve(_span_word(method), attributes, parent)


def _span_word(method: str) -> str:
    return method if method in _METHODS else "HTTP"


def _describe(span: Span, scope: Scope, status: int) -> None:
    """Tell what is known of a request at its end."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.set("http.route", route)
        span.rename(f"{_span_word(scope['method'])} {route}")
    span.set("http.response.status_code", status)
    if status >= 500:  # what is wrong with the request itself is no failure of the server
        span.fail(str(status))


def _log_level(path: str, status: int) -> int:
    if status >= 500:
        return logging.WARNING
    # Probes come every few seconds for ever.
    return logging.DEBUG if path in _ALWAYS_ANSWERED else logging.INFO


class _Exchange:
    """One request and what is known of its answer."""

    __slots__ = ("began_at_s", "is_finished", "parent", "request_id", "scope", "send", "span", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began_at_s = perf_counter()
        self.scope = scope
        self.send = send
        self.status = 0
        self.is_finished = False
        self.request_id, self.parent = _origin(scope)
        self.span: Span = NO_SPAN
        scope["ondol.request_id"] = self.request_id

    def trace_id(self) -> str:
        """Return the trace it belongs to; empty when there is none."""
        return self.span.trace_id or ("" if self.parent is None else self.parent.trace_id)

    def is_traced(self) -> bool:
        """Tell whether somebody keeps that trace."""
        return self.span.is_recording or (self.parent is not None and self.parent.is_sampled)

    def marks(self) -> dict[str, str]:
        """Return what leads from a figure to this request."""
        marks = {"request_id": self.request_id, "trace_id": self.trace_id(), "span_id": self.span.span_id}
        return {name: value for name, value in marks.items() if value}

    def note(self, message: Message) -> bool:
        """Look at an outgoing message, add the id to the answer; tell whether it begins an event stream."""
        if message["type"] != "http.response.start":
            return False
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        headers.append((b"x-request-id", self.request_id.encode("ascii")))
        message["headers"] = headers
        return any(name == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in headers)


def _origin(scope: Scope) -> tuple[str, RemoteParent | None]:
    """Return the request's id, the caller's or a new one, and the caller's span."""
    request_id = traceparent = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if request_id is None and re.match(_OWN_ID, value):
                request_id = value.decode("ascii")
        elif name == b"traceparent":
            traceparent = value if traceparent is None else b""  # several are as good as none
    return request_id or os.urandom(8).hex(), parse_traceparent(traceparent) if traceparent else None
