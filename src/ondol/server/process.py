"""service: the server's process: makes the runtime, runs uvicorn, and ends within the grace that the settings give."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from ondol.errors import ConfigurationError, UnknownModelError
from ondol.monitor.logs import LogPipeline
from ondol.server.admin_token import AdminToken, token_path
from ondol.server.app import create_app
from ondol.server.late_engine import LateEngine
from ondol.server.status import close_streams
from ondol.service import OptimizationService
from ondol.service_options import alert_sources
from ondol.similarity.embedders import embedder_specs

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from types import FrameType

    from starlette.applications import Starlette

    from ondol.settings import Settings

__all__ = ["run_server"]

logger = logging.getLogger("ondol.server")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STOP_MARGIN_S: Final = 0.9
"""What ending takes at most beyond the grace for requests: then the process ends without waiting any longer."""

NOTICES_GRACE_S: Final = 2.0
EXPORT_GRACE_S: Final = 2.0
"""How long the stop waits for receivers of notices, and of metrics and traces; a test compares them with the parts'."""


def run_server(listener: socket.socket, settings: Settings, greeting: str) -> int:
    """Serve on ``listener`` until a signal comes; print ``greeting`` when it does.

    Returns:
        The process's exit code, as :func:`ondol.server.run.serve` explains it.

    Raises:
        ConfigurationError: the default model is not known or not installed, or the file of alerts holds mistakes.
    """
    token = None
    if settings.admin_key is None and settings.api_key is None:
        token = AdminToken(token_path(settings))
    app = create_app(*_make_runtime(settings), admin_token=token)
    logs = LogPipeline()
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut_off)
    try:
        logs.start(settings.log_dir, settings.log_level, console=True)
        if token is not None:
            token.write()
        return _serve(_Server(_uvicorn_config(app, settings), app, greeting), listener, settings, logs)
    finally:
        if token is not None:
            token.remove()
        logs.stop()


def _is_no_cut_off(record: logging.LogRecord) -> bool:
    """Leave out uvicorn's traceback of a request that was cut off at shutdown: one line has said so already."""
    exc = record.exc_info[1] if record.exc_info else None
    return not isinstance(exc, asyncio.CancelledError)


def _make_runtime(settings: Settings) -> tuple[OptimizationService, LateEngine]:
    service = OptimizationService(settings, is_memory_kept=True)
    service.check()
    try:
        specs = embedder_specs(settings)
    except UnknownModelError as exc:
        raise ConfigurationError(f"ONDOL_DEFAULT_MODEL={settings.default_model} is not a model: {exc}") from exc
    for spec in specs:
        service.models.register(spec)
    return service, LateEngine(service, settings)


def _uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="asyncio",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace_s,  # type: ignore[arg-type]  # asyncio takes fractions too
    )


def _serve(server: _Server, listener: socket.socket, settings: Settings, logs: LogPipeline) -> int:
    deadline = _Deadline(settings.shutdown_grace_s + _stop_margin_s(settings), logs)
    server.deadline = deadline
    try:
        asyncio.run(server.serve(sockets=[listener]))
    except SystemExit:
        # uvicorn's way to say that the lifespan failed; it has logged why, with the traceback.
        sys.stderr.write(f"ondol: the server could not start; {settings.log_dir}/application.log says why\n")
        return 1
    finally:
        deadline.cancel()
    return 1 if server.force_exit else 0


class _Server(uvicorn.Server):
    """uvicorn's server; it says where it listens, and ends as ondol promises."""

    deadline: _Deadline

    def __init__(self, config: uvicorn.Config, app: Starlette, greeting: str) -> None:
        super().__init__(config)
        self._app = app
        self._greeting = greeting
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        gc.freeze()  # what the start has made stays: the collector need not look at it again and again
        gc.enable()
        sys.stdout.write(self._greeting)
        sys.stdout.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._app.state.is_draining = True
        close_streams(self._app.routes)
        if self.force_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut_connections)

    def _cut_connections(self) -> None:
        # From Python 3.12 on a closed server waits for its connections, those too that nobody waits for any more.
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport | None = connection.transport
            if transport is not None:
                transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.deadline.start()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while serving; unlike uvicorn's, do not raise them again after a clean end."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _stop_margin_s(settings: Settings) -> float:
    """Return what ending takes beyond the grace: more where others are told, for they may not answer."""
    sources = alert_sources(settings)
    is_telling = settings.otel_enabled or sources.file is not None or sources.webhook_url is not None
    return _STOP_MARGIN_S + (NOTICES_GRACE_S + EXPORT_GRACE_S if is_telling else 0.0)


class _Deadline:
    """Ends the process when ending it takes too long: a model that computes in a thread cannot be interrupted.

    What is stored stays whole: the store's transactions are complete or not there.
    """

    def __init__(self, after_s: float, logs: LogPipeline) -> None:
        self._timer = threading.Timer(after_s, self._end)
        self._timer.daemon = True
        # Started together with the timer: an interpreter that is ending takes no new threads (Python 3.12).
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._is_over = threading.Event()
        self._logs = logs
        self._after_s = after_s

    def start(self) -> None:
        self._flusher.start()
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _flush(self) -> None:
        self._is_over.wait()
        self._logs.stop()

    def _end(self) -> None:
        logger.error(
            "shutting down took longer than %.1f s; the process ends without waiting any longer", self._after_s
        )
        self._is_over.set()
        self._flusher.join(0.2)
        os._exit(1)
