"""What the tests of caches with tiers share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ondol.cache import Cache

__all__ = ["running"]


@contextlib.asynccontextmanager
async def running(*caches: Cache) -> AsyncIterator[None]:
    for cache in caches:
        await cache.start()
    try:
        yield
    finally:
        for cache in caches:
            await cache.stop()
