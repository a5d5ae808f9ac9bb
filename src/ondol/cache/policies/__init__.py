"""facade: eviction policies: which entry leaves when the cache is full."""

from __future__ import annotations

from ondol.cache.policies.adaptive import AdaptivePolicy
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.protocol import EvictionPolicy
from ondol.cache.policies.registry import DEFAULT_POLICY, POLICY_NAMES, make_policy
from ondol.cache.policies.s3fifo import S3FifoPolicy

__all__ = [
    "DEFAULT_POLICY",
    "POLICY_NAMES",
    "AdaptivePolicy",
    "EvictionPolicy",
    "GdsfPolicy",
    "LruPolicy",
    "S3FifoPolicy",
    "make_policy",
]
