"""service: what every request passes: an id, the key, the limit of requests at once, the clock, and the last net."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ondol.server.admin_token import AdminToken
    from ondol.server.ports import Service

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


class RequestMiddleware:
    """The outermost layer of the app, plain ASGI.

    - gives each request an id (or takes the caller's ``X-Request-ID``) and sends it back;
    - asks for the keys, and where none is set refuses names that are not this server's (``ondol.server.auth``);
    - answers 503 when more requests than allowed are under way; health and metrics are always answered;
    - turns every exception into a problem document; what has no other row in the table becomes a logged 500;
    - records the duration and writes the access log.

    An event stream counts as answered when it begins: it neither holds a place nor distorts the durations.
    """

    def __init__(self, app: ASGIApp, *, service: Service, admin_token: AdminToken | None = None) -> None:
        """Wrap ``app``, which serves ``service``; ``admin_token`` opens the actions on models where no key is set."""
        self._app = app
        self._service = service
        self._admin_token = admin_token
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self._under_way += 1
        try:
            await self._answer(exchange, receive)
        finally:
            self._finish(exchange)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        async def send(message: Message) -> None:
            if exchange.note(message):
                self._finish(exchange)
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
        path = scope["path"].removeprefix(scope.get("root_path", ""))
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
        self._service.monitor.add_metric(
            REQUEST_METRIC, seconds, "seconds", route=route, method=method, status=str(status)
        )
        level = _log_level(scope["path"], status)
        if access_logger.isEnabledFor(level):
            path = ascii(scope["path"])[1:-1]  # a path may hold anything, line breaks too
            access_logger.log(
                level,
                "%s %s %d %.1f ms",
                *(scope["method"], path, status, seconds * 1e3),
                extra={"fields": {"request_id": exchange.request_id, "route": route, "seconds": round(seconds, 6)}},
            )


def _log_level(path: str, status: int) -> int:
    if status >= 500:
        return logging.WARNING
    # Probes come every few seconds for ever.
    return logging.DEBUG if path in _ALWAYS_ANSWERED else logging.INFO


class _Exchange:
    """One request and what is known of its answer."""

    __slots__ = ("began_at_s", "is_finished", "request_id", "scope", "send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began_at_s = perf_counter()
        self.scope = scope
        self.send = send
        self.status = 0
        self.is_finished = False
        self.request_id = _request_id(scope)
        scope["ondol.request_id"] = self.request_id

    def note(self, message: Message) -> bool:
        """Look at an outgoing message, add the id to the answer; tell whether it begins an event stream."""
        if message["type"] != "http.response.start":
            return False
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        headers.append((b"x-request-id", self.request_id.encode("ascii")))
        message["headers"] = headers
        return any(name == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in headers)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and re.match(_OWN_ID, value):
            own_id: str = value.decode("ascii")
            return own_id
    return os.urandom(8).hex()
