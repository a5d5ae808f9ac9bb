"""facade: the tier that several processes share: batched reads, one computation for all of them, invalidations."""

from __future__ import annotations

from ondol.cache.shared.leases import Claimed, Lease
from ondol.cache.shared.params import SharedParams
from ondol.cache.shared.tier import SharedTier

__all__ = ["Claimed", "Lease", "SharedParams", "SharedTier"]
