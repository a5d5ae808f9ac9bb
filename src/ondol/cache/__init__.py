"""service: the cache room: bounded in bytes, with deadlines, never computing the same thing twice at once."""

from __future__ import annotations

from ondol.cache.cache import DEFAULT_MAX_BYTES, Cache
from ondol.cache.decorator import (
    AsyncCachedFunction,
    CacheDecorator,
    CachedFunction,
    CacheResult,
    make_cache_result,
)
from ondol.cache.policy import EvictionPolicy, LruPolicy

__all__ = [
    "DEFAULT_MAX_BYTES",
    "AsyncCachedFunction",
    "Cache",
    "CacheDecorator",
    "CacheResult",
    "CachedFunction",
    "EvictionPolicy",
    "LruPolicy",
    "make_cache_result",
]
