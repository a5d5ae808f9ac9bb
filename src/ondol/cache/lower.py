"""service: the tiers below the memory as one: frames to values and back, disk before network, corrupt ones removed."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ondol.cache.computed import Computed
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame
from ondol.cache.keys import split_key
from ondol.cache.lifetime import Timing
from ondol.cache.ports import Invalidation
from ondol.cache.sizing import entry_size
from ondol.errors import CorruptEntryError, UnencodableValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.disk import DiskTier
    from ondol.cache.shared import SharedTier
    from ondol.clock import Clock

__all__ = ["Claimed", "LowerTiers"]

logger = logging.getLogger("ondol.cache")


class Claimed(NamedTuple):
    """What was found below, or the lease to compute it (``None`` also where nobody gives leases)."""

    found: Computed | None = None
    lease: Any = None


class LowerTiers:
    """The disk tier, the shared tier, or both.

    Nothing here raises for a tier that fails: that is a miss, counted by the tier. A frame that does not decode is a
    miss as well; it is removed from where it came from.

    Thread-safety: every method may be called from any thread and event loop.
    """

    def __init__(self, clock: Clock, disk: DiskTier | None, shared: SharedTier | None) -> None:
        self.disk = disk
        self.shared = shared
        self._clock = clock
        self._lock = threading.Lock()
        self._unencodable: dict[str, int] = {}
        self._corrupt = {"disk": 0, "shared": 0}
        self._saved_s = {"disk": 0.0, "shared": 0.0}

    def forked(self) -> None:
        """In a forked child: begin with a lock that nobody holds."""
        self._lock = threading.Lock()

    # Reading

    def read(self, key: str) -> Computed | None:
        """Return what the disk has."""
        if self.disk is None:
            return None
        return self._decoded(key, self.disk.fetch(key), "disk")

    def peek(self, key: str) -> Computed | None:
        """Return what the disk has, without counting it as a hit or as time saved."""
        if self.disk is None:
            return None
        return self._decoded(key, self.disk.peek(key), "disk", is_counted=False)

    async def fetch(self, key: str) -> Computed | None:
        """Return what the disk or the shared tier has."""
        found = self.read(key)
        if found is not None or self.shared is None:
            return found
        return self._decoded(key, await self.shared.fetch(key), "shared")

    async def fetch_many(self, keys: Sequence[str]) -> list[Computed | None]:
        """Return what the tiers have for each key; the shared one is asked once for all that the disk has not."""
        found = [self.read(key) for key in keys]
        if self.shared is not None:
            missing = [key for key, computed in zip(keys, found, strict=True) if computed is None]
            frames = dict(zip(missing, await self.shared.fetch_many(missing), strict=True)) if missing else {}
            found = [
                self._decoded(key, frames.get(key), "shared") if computed is None else computed
                for key, computed in zip(keys, found, strict=True)
            ]
        return found

    async def claim(self, key: str) -> Claimed:
        """Return what the tiers have, else the right to compute it, after waiting for another process that does."""
        found = self.read(key)
        if found is not None or self.shared is None:
            return Claimed(found)
        claimed = await self.shared.claim(key)
        return self._claimed(key, claimed)

    def claim_blocking(self, key: str) -> Claimed:
        """Do what ``claim`` does in the calling thread."""
        found = self.read(key)
        if found is not None or self.shared is None:
            return Claimed(found)
        return self._claimed(key, self.shared.claim_blocking(key))

    def _claimed(self, key: str, claimed: Any) -> Claimed:
        if claimed.frame is None:
            return Claimed(lease=claimed.lease)
        return Claimed(
            self._decoded(key, claimed.frame, "shared")
        )  # a corrupt one: computed without a lease, and replaced

    # Writing

    def encode(self, key: str, computed: Computed) -> Computed:
        """Return a result with its frame and for how long that is kept; one that cannot be encoded is counted."""
        now_s, wall_s, timing = self._clock.monotonic(), self._clock.wall(), computed.timing
        ttl_s = fresh_s = idle_s = kept_s = None
        if timing is not None:
            idle_s = timing.idle_ttl_s
            ttl_s = None if math.isinf(timing.leaves_at_s) else timing.leaves_at_s - now_s
            kept_s = min((s for s in (ttl_s, idle_s) if s is not None), default=None)
            fresh_s = None if math.isinf(timing.fresh_until_s) else timing.fresh_until_s - now_s
        stored = StoredEntry(
            value=computed.value,
            cost_s=computed.cost_s,
            created_at_s=wall_s,
            fresh_until_s=None if fresh_s is None else wall_s + fresh_s,
            expires_at_s=None if ttl_s is None else wall_s + ttl_s,
            idle_ttl_s=idle_s,
            tags=computed.tags,
        )
        try:
            return computed._replace(frame=encode_frame(key, stored), ttl_s=kept_s)
        except UnencodableValueError as exc:
            self._count_unencodable(key, exc)
            return computed._replace(is_unencodable=True)

    def pass_on(self, key: str, computed: Computed) -> None:
        """Let the disk have what came from the shared tier."""
        if computed.origin == "shared" and computed.frame is not None:
            self._put_on_disk(key, computed.frame, computed.ttl_s, computed.tags, computed.cost_s)

    def put(self, key: str, computed: Computed, *, is_announced: bool = False) -> None:
        """Let the tiers keep a frame; the shared one with the lease it was computed under, where there is one.

        With ``is_announced`` other processes drop what they have in memory under this key. What cannot be encoded takes
        away what was there; where a lease was given, nothing was.
        """
        frame = computed.frame
        if frame is None:
            if computed.lease is not None:
                computed.lease.release()
            elif computed.is_unencodable:
                self.invalidate(Invalidation("keys", (key,)))
            return
        self._put_on_disk(key, frame, computed.ttl_s, computed.tags, computed.cost_s)
        if computed.lease is not None:
            computed.lease.commit(frame, ttl_s=computed.ttl_s, tags=computed.tags)
        elif self.shared is not None:
            self.shared.put(key, frame, ttl_s=computed.ttl_s, tags=computed.tags, is_announced=is_announced)

    def invalidate(self, invalidation: Invalidation) -> None:
        """Drop from the tiers, and tell the other processes."""
        if self.disk is not None:
            self.disk.invalidate(invalidation)
        if self.shared is not None:
            self.shared.invalidate(invalidation)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of each tier, and what could not be encoded by name."""
        held = {"disk": self.disk, "shared": self.shared}
        # Not under the lock, which every read takes: the disk looks into its file for them.
        tiers = {label: tier.get_stats() for label, tier in held.items() if tier is not None}
        with self._lock:
            for label, figures in tiers.items():
                figures |= {"corrupt_entries": self._corrupt[label], "saved_seconds": self._saved_s[label]}
            return {"tiers": tiers, "unencodable": dict(self._unencodable)}

    def _put_on_disk(self, key: str, frame: bytes, ttl_s: float | None, tags: tuple[str, ...], cost_s: float) -> None:
        if self.disk is not None:
            expires_at_s = None if ttl_s is None else self._clock.wall() + ttl_s
            self.disk.put(key, frame, expires_at_s=expires_at_s, tags=tags, cost_s=cost_s)

    def _decoded(self, key: str, frame: bytes | None, tier: str, *, is_counted: bool = True) -> Computed | None:
        if frame is None:
            return None
        try:
            stored = decode_frame(key, frame)
        except CorruptEntryError as exc:
            self._discard_corrupt(key, tier, exc)
            return None
        now_s, wall_s = self._clock.monotonic(), self._clock.wall()
        timing = ttl_s = None
        if stored.expires_at_s is not None or stored.idle_ttl_s is not None:
            ttl_s = None if stored.expires_at_s is None else stored.expires_at_s - wall_s
            if ttl_s is not None and ttl_s <= 0:
                return None
            if stored.idle_ttl_s is not None and stored.created_at_s + stored.idle_ttl_s <= wall_s:
                return None  # nobody knows below whether it was used; in memory it would have left by now if not
            fresh_s = math.inf if stored.fresh_until_s is None else stored.fresh_until_s - wall_s
            leaves_at_s = math.inf if ttl_s is None else now_s + ttl_s
            timing = Timing(leaves_at_s, now_s + fresh_s, stored.idle_ttl_s, now_s)
            if stored.idle_ttl_s is not None:
                idle_left_s = stored.created_at_s + stored.idle_ttl_s - wall_s
                ttl_s = idle_left_s if ttl_s is None else min(ttl_s, idle_left_s)
        if is_counted:
            with self._lock:
                self._saved_s[tier] += stored.cost_s
        name_key = split_key(key)[1]
        size_bytes = entry_size(name_key, stored.value, has_timing=timing is not None, tag_count=len(stored.tags))
        return Computed(
            stored.value,
            stored.cost_s,
            size_bytes,
            timing,
            stored.tags,
            frame=frame,
            ttl_s=ttl_s,
            origin=tier,
        )

    def _discard_corrupt(self, key: str, tier: str, error: CorruptEntryError) -> None:
        with self._lock:
            self._corrupt[tier] += 1
            is_first = self._corrupt[tier] == 1
        if is_first:
            logger.warning("cache: an entry of the %s tier could not be read and is removed: %s", tier, error)
        else:
            logger.debug("cache: an entry of the %s tier could not be read and is removed: %s", tier, error)
        if tier == "disk" and self.disk is not None:
            self.disk.discard_corrupt(key)
        elif self.shared is not None:
            self.shared.invalidate(Invalidation("keys", (key,)))

    def _count_unencodable(self, key: str, error: UnencodableValueError) -> None:
        name = split_key(key)[0]
        with self._lock:
            is_first = name not in self._unencodable and len(self._unencodable) < 256
            if is_first or name in self._unencodable:
                self._unencodable[name] = self._unencodable.get(name, 0) + 1
        if is_first:
            logger.warning(
                "cache: an entry of %r stays in the memory of this process: %s (said once per name)",
                name,
                error,
                extra={"fields": {"entry": name}},
            )
