"""service: the tables under the memory tier: how entries come in, how room is made, how they leave."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from ondol.cache.expiry import TimerWheel
from ondol.cache.partition import Partition, most_over
from ondol.cache.shelf import Shelves
from ondol.cache.tags import TagIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.entry import Entry
    from ondol.cache.policies.protocol import EvictionPolicy
    from ondol.cache.shelf import Shelf
    from ondol.clock import Clock

__all__ = ["EntryTables", "end_of"]

_DUE_PER_EVICTION: Final = 16
_EVICTIONS_AT_ONCE: Final = 16
_SPARE_SHIFT: Final = 8
"""At most 1/256 of the bound is left empty by evicting several at once."""


class EntryTables:
    """Entries by shelf, by deadline, by tag, by policy, and their bytes. Everything here is done under ``lock``."""

    def __init__(self, max_bytes: int, clock: Clock, make_policy: Callable[[], EvictionPolicy]) -> None:
        self._max_bytes = max_bytes
        self._now_s = clock.monotonic
        self._make_policy = make_policy
        self._shared = Partition(make_policy(), max_bytes, is_shared=True)
        self._partitions = [self._shared]
        self._quotas: dict[str, Partition] = {}
        self.shelves = Shelves(self._quotas, self._shared)
        self._wheel: TimerWheel[Entry] = TimerWheel()
        self._tags = TagIndex()
        self.lock = threading.RLock()
        """Held by whoever looks at several entries at once. Re-entrant: dropping a value may run a finalizer."""
        self._hits: list[Entry] = []
        self._used_bytes = 0
        self._graves: list[Entry] = []
        """What was dropped under the lock; let go of after it, since values may have finalizers that use the cache."""
        self._storing: Shelf | None = None
        """The shelf that an entry is about to come onto, which stays when its last other entry goes."""
        self.left: Counter[str] = Counter()
        """How many entries left, by reason."""

    def index_segments(self, shelf: Shelf) -> bool:
        """Begin to keep the entries of ``shelf`` by their first word, those that are there still to be added.

        Returns:
            Whether it is the caller who has to add them.
        """
        with self.lock:
            if shelf.segments is not None:
                return False
            shelf.segments = {}
            shelf.settle()
            return True

    def drop_segments(self, shelf: Shelf) -> None:
        """Forget an index that was not finished."""
        with self.lock:
            shelf.segments, shelf.is_indexed = None, False
            shelf.settle()

    def add_segment(self, entry: Entry) -> None:
        """Add an entry to the index that ``index_segments`` began."""
        with self.lock:
            if entry.is_live:
                entry.shelf.index(entry)

    def _admit(self, entry: Entry, shelf: Shelf, partition: Partition) -> None:
        size_bytes, timing = entry.size_bytes, entry.timing
        shelf.entries[entry.key] = entry
        partition.policy.admitted(entry)
        if not partition.is_shared:
            partition.used_bytes += size_bytes
        shelf.used_bytes += size_bytes
        self._used_bytes += size_bytes
        if timing is not None:
            self._wheel.schedule(entry, timing.deadline_s, self._now_s())
        if entry.tags:
            self._tags.add(entry)
        shelf.index(entry)

    def _drain(self) -> None:
        """Tell the policies of the hits that were noted; what other threads note meanwhile waits for the next time."""
        hits = self._hits
        if not hits:
            return
        count = len(hits)
        batch = hits[:count]
        del hits[:count]
        if len(self._partitions) == 1:
            self._shared.policy.touched(batch)
            return
        for partition in self._partitions:
            own = [entry for entry in batch if entry.shelf.partition is partition]
            if own:
                partition.policy.touched(own)

    def _make_room(self, partition: Partition, size_bytes: int) -> None:
        if not partition.is_shared:
            while partition.used_bytes + size_bytes > partition.max_bytes:
                if not self._drop_some_due():
                    self._evict(partition, partition.used_bytes + size_bytes - partition.max_bytes, "quota")
        short_bytes = self._used_bytes + size_bytes - self._max_bytes
        if short_bytes > 0:
            # Some more at once: most of what an eviction costs is getting there.
            spare_bytes = min(self._max_bytes >> _SPARE_SHIFT, size_bytes * _EVICTIONS_AT_ONCE)
            self._evict_down_to(self._max_bytes - size_bytes, "capacity", spare_bytes)

    def _evict_down_to(self, goal_bytes: int, reason: str, spare_bytes: int = 0) -> None:
        while self._used_bytes > goal_bytes:
            if self._drop_some_due():
                continue
            short_bytes = self._used_bytes - goal_bytes
            if len(self._partitions) == 1:
                self._evict(self._shared, short_bytes + spare_bytes, reason)
            else:
                self._shared.used_bytes = self._used_bytes - sum(p.used_bytes for p in self._quotas.values())
                self._evict(most_over(self._partitions, self._shared, self._max_bytes), 1, reason)

    def _evict(self, partition: Partition, short_bytes: int, reason: str) -> None:
        """Evict until ``short_bytes`` are free, or nothing is left."""
        if self._hits:
            self._drain()
        evict = partition.policy.evict
        freed_bytes = count = 0
        while freed_bytes < short_bytes:
            try:
                victim = evict()
            except KeyError:
                if not count:
                    raise  # it lost an entry: to go on would be to go on for ever
                break
            count += 1
            shelf = victim.shelf
            if shelf.is_simple and victim.timing is None and not victim.tags:
                victim.is_live = False
                self._graves.append(victim)
                del shelf.entries[victim.key]
                size_bytes = victim.size_bytes
                shelf.used_bytes -= size_bytes
                self._used_bytes -= size_bytes
            else:
                size_bytes = victim.size_bytes
                self._drop(victim)
                self._close_if_empty(shelf)
            freed_bytes += size_bytes
        self.left[reason] += count

    def _drop_some_due(self) -> bool:
        if not len(self._wheel):
            return False
        before = self._used_bytes
        self._drop_due(_DUE_PER_EVICTION)
        return self._used_bytes < before

    def _drop_due(self, limit: int) -> bool:
        now_s = self._now_s()
        due, is_all = self._wheel.take_due(now_s, limit)
        for entry in due:
            timing = entry.timing
            if timing is not None and timing.deadline_s > now_s:
                self._wheel.schedule(entry, timing.deadline_s, now_s)  # it was used meanwhile
            else:
                self._leave(entry, end_of(entry))
        return is_all

    def _expire(self, entry: Entry) -> None:
        with self.lock:
            if entry.is_live:
                self._leave(entry, end_of(entry))
        self._bury()

    def _leave(self, entry: Entry, reason: str) -> None:
        self._drop(entry)
        entry.shelf.partition.policy.removed(entry)
        self.left[reason] += 1
        self._close_if_empty(entry.shelf)

    def _close_if_empty(self, shelf: Shelf) -> None:
        if not shelf.is_named and shelf is not self._storing:
            self.shelves.close_if_empty(shelf)

    def _bury(self) -> None:
        """Let go of what was dropped; called without the lock."""
        graves, self._graves = self._graves, []
        graves.clear()

    def _drop(self, entry: Entry) -> None:
        shelf = entry.shelf
        entry.is_live = False
        self._graves.append(entry)
        del shelf.entries[entry.key]
        size_bytes = entry.size_bytes
        shelf.used_bytes -= size_bytes
        if not shelf.partition.is_shared:
            shelf.partition.used_bytes -= size_bytes
        self._used_bytes -= size_bytes
        if entry.timing is not None:
            self._wheel.cancel(entry)
        if entry.tags:
            self._tags.discard(entry)
        shelf.unindex(entry)


def end_of(entry: Entry) -> str:
    """Return why an entry past its deadline leaves."""
    timing = entry.timing
    return "idle" if timing is not None and timing.deadline_s < timing.leaves_at_s else "expired"
