"""service: the cache room: bounded in bytes, with deadlines, never computing the same thing twice at once."""

from __future__ import annotations

from ondol.cache.cache import Cache
from ondol.cache.decorator import (
    AsyncCachedFunction,
    CacheDecorator,
    CachedFunction,
    CacheResult,
    make_cache_result,
)
from ondol.cache.managed import DEFAULT_MAX_BYTES
from ondol.cache.policies.protocol import EvictionPolicy
from ondol.cache.tier_options import TierOptions

__all__ = [
    "DEFAULT_MAX_BYTES",
    "AsyncCachedFunction",
    "Cache",
    "CacheDecorator",
    "CacheResult",
    "CachedFunction",
    "EvictionPolicy",
    "TierOptions",
    "make_cache_result",
]
