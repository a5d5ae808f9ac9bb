"""What the tests of caches with tiers share."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ondol.cache import Cache, TierOptions
from ondol.clock import SystemClock
from ondol.testing import FakeSharedStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from ondol.testing import FakeSharedServer

__all__ = ["CLOCK", "WAIT_S", "becomes", "on_disk", "running", "shared", "until"]

WAIT_S = 20
"""Longest wait for something that happens at once; reached only when it does not happen at all."""

CLOCK = SystemClock()


def shared(server: FakeSharedServer) -> Cache:
    return Cache(tiers=TierOptions(store=FakeSharedStore(CLOCK, server)))


def on_disk(folder: Path, **options: Any) -> Cache:
    return Cache(tiers=TierOptions(disk_dir=folder), **options)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in other threads
            await asyncio.sleep(0.005)


async def becomes(expected: object, ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while await ask() != expected:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(*caches: Cache) -> AsyncIterator[None]:
    for cache in caches:
        await cache.start()
    try:
        yield
    finally:
        for cache in caches:
            await cache.stop()
