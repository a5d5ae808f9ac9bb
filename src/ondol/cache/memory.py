"""service: the memory tier: entries bounded in bytes, with deadlines, safe to use from several threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.entry import Entry
from ondol.cache.expiry import TimerWheel
from ondol.cache.partition import Partition
from ondol.cache.sizing import ENTRY_OVERHEAD_BYTES, FLAT_TYPES
from ondol.cache.tables import EntryTables, end_of
from ondol.cache.tags import TagIndex
from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from ondol.cache.lifetime import Timing
    from ondol.cache.policies.protocol import EvictionPolicy
    from ondol.cache.shelf import Shelf
    from ondol.clock import Clock

__all__ = ["EXTRA_SHELF_BYTES", "MemoryTier"]

EXTRA_SHELF_BYTES: Final = 600
"""What the table of a name takes; charged to the first entry of names beyond those with figures of their own."""

_EVICTIONS: Final = ("capacity", "quota", "resized")
_INVALIDATIONS: Final = ("deleted", "tag", "pattern", "cleared", "elsewhere")
_HITS_PER_DRAIN: Final = 64


class MemoryTier(EntryTables):
    """Entries by name and key, never more than ``max_bytes`` of them together.

    When there is no room, entries whose time is up leave first, then those that the policy chooses. An entry that is
    found past its deadline is a miss; those that nobody asks for leave in ``sweep``.

    A hit takes no lock: the tables are plain dicts, and the counters are added to in steps that the interpreter does
    not interrupt (on builds without a global lock a count may be lost, an entry never).

    Thread-safety: every method may be called from any thread. The lock is re-entrant because dropping a value may
    run a finalizer that uses the cache.
    """

    def __init__(
        self,
        max_bytes: int,
        clock: Clock,
        make_policy: Callable[[], EvictionPolicy],
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(_checked_bound("max_bytes", max_bytes), clock, make_policy)
        for name, quota_bytes in (quotas or {}).items():
            self._add_partition(name, quota_bytes)
        self._rejections = 0

    @property
    def max_bytes(self) -> int:
        """The bound in bytes."""
        return self._max_bytes

    @property
    def used_bytes(self) -> int:
        """What all entries take together, in bytes."""
        return self._used_bytes

    def __len__(self) -> int:
        """Return the number of entries, including those past their deadline that have not left yet."""
        return sum(len(shelf.entries) for shelf in list(self.shelves))

    def lookup(self, name: str, key: Hashable) -> Entry | None:
        """Return the live entry under ``key``, counted as a hit, or ``None``; the caller counts the miss.

        Cost: O(1), about a microsecond. Callers on the hot path look into ``shelves`` by themselves first.
        """
        shelf = self.shelves.by_name.get(name)
        entry = None if shelf is None else shelf.entries.get(key)
        if entry is None:
            return None
        timing = entry.timing
        if timing is not None:
            now_s = self._now_s()
            if now_s >= timing.deadline_s:
                self._expire(entry)
                return None
            timing.used(now_s)
        entry.uses += 1
        entry.shelf.hits += 1
        entry.shelf.saved_s += entry.cost_s
        if entry.is_tracked:
            self._hits.append(entry)
            if len(self._hits) >= _HITS_PER_DRAIN:
                with self.lock:
                    self._drain()
        return entry

    def count_miss(self, name: str) -> None:
        """Count a lookup that found nothing, or was not even tried."""
        with self.lock:
            self.shelves.figures(name).misses += 1

    def take_back_hit(self, entry: Entry) -> None:
        """Turn a hit into a miss: what was found is no value."""
        with self.lock:
            shelf = entry.shelf
            shelf.hits -= 1
            shelf.saved_s -= entry.cost_s
            shelf.misses += 1

    def count_lower_hit(self, name: str, saved_s: float) -> None:
        """Turn a miss into a lookup that a lower tier answered, and count the seconds of computing that this saved."""
        with self.lock:
            figures = self.shelves.figures(name)
            figures.misses -= 1
            figures.lower_hits += 1
            figures.saved_s += saved_s

    def peek(self, name: str, key: Hashable) -> Entry | None:
        """Return a live entry without counting or touching it."""
        shelf = self.shelves.by_name.get(name)
        entry = None if shelf is None else shelf.entries.get(key)
        if entry is None or (entry.timing is not None and self._now_s() >= entry.timing.deadline_s):
            return None
        return entry

    def put(self, name: str, key: str, value: Any, cost_s: float) -> bool:
        """Keep a new entry that lives for ever; return false when there is more to it, and ``store`` is to do it.

        Cost: O(1), about a microsecond with evictions, which are done several at once.
        """
        if type(value) not in FLAT_TYPES:
            return False
        # As entry_size does, for a string or a number under a short string.
        size_bytes = ENTRY_OVERHEAD_BYTES + (key.__sizeof__() + 15 & -16) + (value.__sizeof__() + 15 & -16)
        with self.lock:
            shelf = self.shelves.by_name.get(name)
            if shelf is None or key in shelf.entries or not shelf.is_simple:
                return False
            used_bytes = self._used_bytes + size_bytes
            if used_bytes > self._max_bytes:
                if size_bytes > self._max_bytes:
                    return False
                self._make_room(self._shared, size_bytes)
                used_bytes = self._used_bytes + size_bytes
            shelf.entries[key] = entry = Entry(key, shelf, value, size_bytes, cost_s)
            self._shared.admit(entry)
            shelf.used_bytes += size_bytes
            self._used_bytes = used_bytes
        if self._graves:
            self._bury()
        return True

    def store(
        self,
        name: str,
        key: Hashable,
        value: Any,
        size_bytes: int,
        cost_s: float = 0.0,
        timing: Timing | None = None,
        tags: tuple[str, ...] = (),
        *,
        is_newer: bool = True,
    ) -> bool:
        """Keep ``value``, in place of what was there; evict what has to go for it.

        Args:
            name: its name.
            key: its key on the shelf of that name.
            value: what is kept; the object itself, not a copy.
            size_bytes: what the entry takes, key and overhead included.
            cost_s: seconds that computing it took; 0 when unknown.
            timing: when it gets stale and leaves; ``None`` for never.
            tags: what it can be dropped by.
            is_newer: whether it takes the place of what is there; else that stays, and nothing is stored.

        Returns:
            Whether it was stored: an entry larger than the whole tier, or than its name's quota, is not, and what was
            there is gone as well.
        """
        with self.lock:
            shelf = self.shelves.by_name.get(name)
            if shelf is None:
                shelf = self.shelves.open(name)
            old = shelf.entries.get(key)
            if old is not None and not is_newer:
                return True
            self._storing = shelf
            try:
                is_stored = self._replace(shelf, old, key, value, size_bytes, cost_s, timing, tags)
            finally:
                self._storing = None
            if not is_stored:
                self._rejections += 1
                self._close_if_empty(shelf)
        if self._graves:
            self._bury()
        return is_stored

    def _replace(
        self,
        shelf: Shelf,
        old: Entry | None,
        key: Hashable,
        value: Any,
        size_bytes: int,
        cost_s: float,
        timing: Timing | None,
        tags: tuple[str, ...],
    ) -> bool:
        partition = shelf.partition
        if old is not None:
            self._drop(old)
            partition.policy.removed(old)
        if not shelf.is_named and not shelf.entries:
            size_bytes += EXTRA_SHELF_BYTES
        if size_bytes > partition.max_bytes or size_bytes > self._max_bytes:
            return False
        if self._used_bytes + size_bytes > self._max_bytes or not partition.is_shared:
            self._make_room(partition, size_bytes)
        entry = Entry(key, shelf, value, size_bytes, cost_s, timing, tags)
        if old is not None:
            entry.uses = old.uses + 1
        self._admit(entry, shelf, partition)
        return True

    def remove(self, entry: Entry, reason: str) -> bool:
        """Drop ``entry``; return whether it was still there and live."""
        with self.lock:
            if not entry.is_live:
                return False
            is_due = entry.timing is not None and self._now_s() >= entry.timing.deadline_s
            if entry.is_tracked and self._hits:
                self._drain()  # where it may be noted, which would keep its value
            self._leave(entry, end_of(entry) if is_due else reason)
        self._bury()
        return not is_due

    def clear(self, reason: str) -> int:
        """Drop everything; return how many entries went.

        Cost: O(entries), a small fraction of dropping each by itself.
        """
        with self.lock:
            self._hits.clear()
            gone = self.entries()
            for entry in gone:
                entry.is_live = False
            for shelf in list(self.shelves):
                shelf.entries.clear()
                shelf.used_bytes = 0
                if shelf.segments is not None:
                    shelf.segments.clear()
                self._close_if_empty(shelf)
            for partition in self._partitions:
                partition.used_bytes = 0
                partition.change(self._make_policy())
            self._wheel, self._tags, self._used_bytes = TimerWheel(), TagIndex(), 0
            self.left[reason] += len(gone)
        return len(gone)

    def resize(self, max_bytes: int) -> None:
        """Set the bound and evict at once what no longer fits.

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
        """
        max_bytes = _checked_bound("max_bytes", max_bytes)
        with self.lock:
            self._max_bytes = max_bytes
            self._shared.resize(max_bytes)
            self._evict_down_to(max_bytes, "resized")
        self._bury()

    def set_policy(self, make_policy: Callable[[], EvictionPolicy]) -> None:
        """Let another policy decide from now on what leaves.

        Raises:
            ConfigurationError: there is no such policy; nothing was changed.

        Cost: O(entries).
        """
        with self.lock:
            policies = [make_policy() for _ in self._partitions]
            self._drain()
            self._make_policy = make_policy
            for partition, policy in zip(self._partitions, policies, strict=True):
                partition.change(policy)
            for entry in self.entries():
                _hand_over(entry, entry.shelf.partition.policy)

    def set_quota(self, name: str, quota_bytes: int | None) -> None:
        """Bound the entries of one name, or let them compete with all others again (``None``).

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
        """
        with self.lock:
            if quota_bytes is not None and name in self._quotas:
                partition = self._quotas[name]
                partition.resize(_checked_bound(f"the quota of {name!r}", quota_bytes))
                self._make_room(partition, 0)
            elif quota_bytes is not None or name in self._quotas:
                self._change_partition(name, quota_bytes)
        self._bury()

    def sweep(self, limit: int) -> bool:
        """Drop entries past their deadline, looking at no more than ``limit``; return whether that was all of them."""
        with self.lock:
            self._drain()
            is_all = self._drop_due(limit)
        self._bury()
        return is_all

    def entries(self) -> list[Entry]:
        """Return the entries of this moment."""
        with self.lock:
            return [entry for shelf in self.shelves for entry in shelf.entries.values()]

    def tagged(self, tags: Iterable[str]) -> list[Entry]:
        """Return the entries that carry any of ``tags``."""
        with self.lock:
            return self._tags.having(tags)

    def get_stats(self) -> dict[str, Any]:
        """Return the tier's figures, in total and by name."""
        with self.lock:
            self._drain()
            totals = self.shelves.totals()
            return {
                **totals.as_plain(),
                "memory_hits": totals.hits,
                "entries": len(self),
                "used_bytes": self._used_bytes,
                "max_bytes": self._max_bytes,
                "evictions": sum(self.left[reason] for reason in _EVICTIONS),
                "expirations": self.left["expired"] + self.left["idle"],
                "invalidations": sum(self.left[reason] for reason in _INVALIDATIONS),
                "left": dict(self.left),
                "rejections": self._rejections,
                "names": self.shelves.as_plain(),
                "tags": len(self._tags),
                "policy": self._shared.policy.get_stats(),
                "quotas": {name: partition.get_stats() for name, partition in self._quotas.items()},
            }

    def _add_partition(self, name: str, quota_bytes: int) -> None:
        partition = Partition(self._make_policy(), _checked_bound(f"the quota of {name!r}", quota_bytes))
        self._quotas[name] = partition
        self._partitions.append(partition)

    def _change_partition(self, name: str, quota_bytes: int | None) -> None:
        """Give a name a partition of its own, or take it away, and hand its entries over."""
        if quota_bytes is None:
            self._partitions.remove(self._quotas.pop(name))
        else:
            self._add_partition(name, quota_bytes)
        shelf = self.shelves.by_name.get(name)
        if shelf is None:
            return
        before, after = shelf.partition, self._quotas.get(name, self._shared)
        self._drain()
        shelf.partition = after
        shelf.settle()
        for entry in shelf.entries.values():
            before.policy.removed(entry)
            if not before.is_shared:
                before.used_bytes -= entry.size_bytes
            _hand_over(entry, after.policy)
            if not after.is_shared:
                after.used_bytes += entry.size_bytes
        self._make_room(after, 0)


def _hand_over(entry: Entry, policy: EvictionPolicy) -> None:
    entry.is_tracked, entry.place, entry.rank = False, None, 0.0
    entry.settle()
    policy.admitted(entry)


def _checked_bound(what: str, bound_bytes: Any) -> int:
    if isinstance(bound_bytes, bool) or not isinstance(bound_bytes, int) or bound_bytes <= 0:
        raise ConfigurationError(f"{what}={bound_bytes!r} is not allowed: it must be an integer > 0, in bytes")
    return bound_bytes
