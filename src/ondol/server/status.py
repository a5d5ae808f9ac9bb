"""service: the live status page: ``GET /``, its files under ``/static/``, and its stream of snapshots, ``GET /events``.

Put ``*status_routes(service)`` among the app's routes. uvicorn waits at shutdown for open responses, and a status
page keeps one open: the runner calls ``close_streams(app.routes)`` as soon as it is asked to exit, before it waits
(from ``handle_exit``: it is safe in a signal handler); the app's own lifespan would be told too late.

With an API key set, the page and its files stay public (they hold no figures); ``/events`` then needs the header
``Authorization: Bearer KEY``. The page asks for the key and reads the stream with ``fetch``, because the browser's
``EventSource`` cannot send headers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.routing import Route

from ondol._version import __version__
from ondol.server.status_files import StaticFolder
from ondol.server.status_stream import SnapshotStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Message, Receive, Scope, Send

    from ondol.server.auth import HasKeys

__all__ = ["EventsEndpoint", "StatusSource", "close_streams", "status_routes"]

_STATIC_FOLDER: Final = Path(__file__).with_name("static")

_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until its buffer is full
    (b"x-content-type-options", b"nosniff"),
)


class StatusSource(Protocol):
    """What the status page needs of the service."""

    @property
    def settings(self) -> HasKeys:
        """The settings, for the keys."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics of every part."""
        ...

    def readiness(self) -> dict[str, Any]:
        """Return whether it may be sent requests, and why."""
        ...


def status_routes(
    service: StatusSource, *, tick_s: float = 1.0, heartbeat_s: float = 15.0, max_viewers: int = 100
) -> list[BaseRoute]:
    """Return the routes of the status page of ``service``.

    Args:
        service: whose figures are shown.
        tick_s: seconds between snapshots.
        heartbeat_s: silence after which a stream gets a comment, so that proxies keep it open.
        max_viewers: streams at once; more are answered 503.
    """
    folder = StaticFolder(_STATIC_FOLDER)

    async def page(request: Request) -> Response:
        return folder.answer("index.html", request)

    async def static_file(request: Request) -> Response:
        return folder.answer(request.path_params["name"], request)

    events = EventsEndpoint(service, tick_s=tick_s, heartbeat_s=heartbeat_s, max_viewers=max_viewers)
    return [
        Route("/", page, methods=["GET"], include_in_schema=False),
        Route("/events", events, methods=["GET"], name="events", include_in_schema=False),
        Route("/static/{name:path}", static_file, methods=["GET"], name="static", include_in_schema=False),
    ]


def close_streams(routes: Iterable[BaseRoute]) -> None:
    """End the status page's open streams among ``routes`` (and mounted ones) now, so that a shutdown need not wait.

    Thread-safety: may be called in any thread and in a signal handler.
    """
    for route in routes:
        endpoint = getattr(route, "endpoint", None)
        if isinstance(endpoint, EventsEndpoint):
            endpoint.stream.close()
        close_streams(getattr(route, "routes", None) or ())


class EventsEndpoint:
    """The ASGI application behind ``/events``: server-sent events, one snapshot a tick."""

    def __init__(self, service: StatusSource, *, tick_s: float, heartbeat_s: float, max_viewers: int) -> None:
        """Watch ``service``; nothing runs before the first viewer comes."""
        self._service = service
        self._previous: dict[str, Any] | None = None
        self.stream = SnapshotStream(self._make_frame, tick_s=tick_s, heartbeat_s=heartbeat_s, max_viewers=max_viewers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one viewer: the stream, or 401 without the right key, or 503 when no more viewers are taken."""
        # What only a visited page needs is imported by the first visit.
        from ondol.server.auth import api_keys, check_key
        from ondol.server.problems import RequestError, problem_response

        start: Message = {"type": "http.response.start", "status": 200, "headers": list(_STREAM_HEADERS)}
        try:
            check_key(scope["headers"], api_keys(self._service.settings))
            if scope["method"] == "HEAD":
                await send(start)
                await send({"type": "http.response.body", "body": b""})
            else:
                await self.stream.serve(receive, send, start)
        except RequestError as exc:
            await problem_response(exc, scope)(scope, receive, send)

    def _make_frame(self) -> bytes:
        import msgspec

        from ondol.server.snapshot import snapshot

        figures = snapshot(self._service.get_stats(), self._service.readiness(), previous=self._previous)
        self._previous = figures
        return b"event: snapshot\ndata: " + msgspec.json.encode({"version": __version__, **figures}) + b"\n\n"
