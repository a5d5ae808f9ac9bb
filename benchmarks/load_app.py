"""The server of benchmarks/load.py: ondol's own, with its cache watched: answers say what it had, and it is recorded.

python benchmarks/load_app.py [TRACE]

Settings come from the environment; with TRACE, what the cache was asked for is written there in the end.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load_clients import FOUND_HEADER
from load_trace import Recording
from models_server import serve

from ondol.cache.keys import shelf_key
from ondol.cache.sizing import entry_size
from ondol.server.app import create_app
from ondol.service import OptimizationService
from ondol.similarity import SimilarityEngine
from ondol.similarity.embedders import embedder_specs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.cache import Cache

_counted: ContextVar[list[int] | None] = ContextVar("counted", default=None)
"""How many texts the request under way found in the cache, and how many it needed."""


class WatchedCache:
    """What the similarity engine needs of a cache, noted as it passes."""

    def __init__(self, cache: Cache, recording: Recording | None) -> None:
        """Watch ``cache``."""
        self._cache = cache
        self._recording = recording

    async def get(self, name: str, /, *parts: object, default: Any = None) -> Any:
        """Return the entry's value, or ``default``."""
        value = await self._cache.get(name, *parts, default=default)
        self._note([parts], int(value is not default))
        return value

    async def get_many(self, name: str, parts: Iterable[Any]) -> dict[Any, Any]:
        """Return the values that there are."""
        wanted = list(parts)
        found = await self._cache.get_many(name, wanted)
        self._note(wanted, len(found))
        return found

    def set_nowait(
        self, name: str, value: Any, /, *parts: object, cost_seconds: float = 0.0, is_announced: bool = True
    ) -> None:
        """Keep a value."""
        self._cache.set_nowait(name, value, *parts, cost_seconds=cost_seconds, is_announced=is_announced)
        if self._recording is not None:
            self._recording.computed(parts, entry_size(shelf_key(name, parts), value), cost_seconds)

    def _note(self, wanted: list[Any], found: int) -> None:
        counts = _counted.get()
        if counts is not None:
            counts[0] += found
            counts[1] += len(wanted)
        if self._recording is not None:
            for parts in wanted:
                self._recording.asked(parts)


def telling(app: Any) -> Any:
    """Return ``app`` with a header in every answer that says what its request found in the cache."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        counts = [0, 0]
        _counted.set(counts)

        async def send_told(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (FOUND_HEADER.encode(), f"{counts[0]}/{counts[1]}".encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await app(scope, receive, send_told)

    return told


def make_app(recording: Recording | None) -> Any:
    """Return the app, as ``ondol serve`` makes it but for the watched cache."""
    service = OptimizationService()
    for spec in embedder_specs(service.settings):
        service.models.register(spec)
    cache = WatchedCache(service.cache, recording)
    engine = SimilarityEngine(service.models, cache, service.settings, recorder=service.monitor.add_metric)
    return telling(create_app(service, engine))


def main() -> None:
    """Serve until a signal comes."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    recording = None if path is None else Recording()
    serve(make_app(recording))
    if path is not None and recording is not None:
        recording.write(path)


if __name__ == "__main__":
    main()
