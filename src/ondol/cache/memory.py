"""service: the memory tier: entries bounded in bytes, with deadlines, safe to use from several threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.expiry import TimerWheel
from ondol.cache.ledger import Ledgers, NameLedger
from ondol.cache.policy import LruPolicy
from ondol.cache.sizing import entry_size
from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from ondol.cache.policy import EvictionPolicy
    from ondol.clock import Clock

__all__ = ["Entry", "MemoryTier"]

_DUE_PER_EVICTION: Final = 16


class Entry:
    """One stored value and what the tier knows of it."""

    __slots__ = ("cost_s", "deadline_s", "ledger", "size_bytes", "value")

    def __init__(
        self, value: Any, size_bytes: int, deadline_s: float | None, cost_s: float, ledger: NameLedger
    ) -> None:
        self.value = value
        self.size_bytes = size_bytes
        self.deadline_s = deadline_s
        self.cost_s = cost_s
        self.ledger = ledger


class MemoryTier:
    """Entries by key, never more than ``max_bytes`` of them together.

    When there is no room, entries whose time is up leave first, then the policy's victims. An entry that is found
    past its deadline is a miss; those that nobody asks for leave in ``sweep``.

    Thread-safety: every method may be called from any thread. The lock is re-entrant because dropping a value may
    run a finalizer that uses the cache.
    """

    def __init__(self, max_bytes: int, clock: Clock, policy: EvictionPolicy | None = None) -> None:
        self._max_bytes = _checked_bound(max_bytes)
        self._now_s = clock.monotonic
        self._policy = policy if policy is not None else LruPolicy()
        self._touched = self._policy.touched
        self._entries: dict[str, Entry] = {}
        self._wheel = TimerWheel()
        self._lock = threading.RLock()
        self._used_bytes = 0
        self._ledgers = Ledgers()
        self._evictions = 0
        self._expirations = 0
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
        return len(self._entries)

    def find(self, key: str, name: str, default: Any) -> Any:
        """Return the value under ``key``, or ``default``; counts a hit or a miss for ``name``.

        Cost: O(1), well under a microsecond.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                if entry.deadline_s is None or self._now_s() < entry.deadline_s:
                    self._touched(key)
                    ledger = entry.ledger
                    ledger.hits += 1
                    ledger.saved_s += entry.cost_s
                    return entry.value
                self._drop(key, entry)
                self._expirations += 1
            self._ledgers.of(name).misses += 1
            return default

    def count_miss(self, name: str) -> None:
        """Count a lookup that was not even tried."""
        with self._lock:
            self._ledgers.of(name).misses += 1

    def peek(self, key: str) -> Entry | None:
        """Return a live entry without counting or touching it."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.deadline_s is not None and self._now_s() >= entry.deadline_s):
                return None
            return entry

    def store(
        self, key: str, name: str, value: Any, *, ttl_s: float | None = None, cost_s: float = 0.0, size_bytes: int = 0
    ) -> bool:
        """Keep ``value``, in place of what was there; evict what has to go for it.

        Args:
            key: where it is kept.
            name: the name it is counted under.
            value: what is kept; the object itself, not a copy.
            ttl_s: seconds it may be used; ``None`` for ever.
            cost_s: seconds that computing it took.
            size_bytes: the entry's bytes where known; 0 to have them measured.

        Returns:
            Whether it was stored: an entry larger than the whole tier is not, and what was there is gone as well.
        """
        size_bytes = size_bytes or entry_size(key, value, has_deadline=ttl_s is not None)
        now_s = self._now_s()
        with self._lock:
            old = self._entries.get(key)
            if old is not None:
                self._drop(key, old)
            ledger = self._ledgers.of(name)
            if size_bytes > self._max_bytes:
                self._rejections += 1
                return False
            self._make_room(self._max_bytes - size_bytes, now_s)
            deadline_s = None if ttl_s is None else now_s + ttl_s
            self._entries[key] = Entry(value, size_bytes, deadline_s, cost_s, ledger)
            self._policy.admitted(key, size_bytes, cost_s)
            if deadline_s is not None:
                self._wheel.schedule(key, deadline_s, now_s)
            self._used_bytes += size_bytes
            ledger.entries += 1
            ledger.used_bytes += size_bytes
            return True

    def remove(self, key: str) -> bool:
        """Drop the entry under ``key``; return whether there was one that was still live."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return False
            self._drop(key, entry)
            if entry.deadline_s is not None and self._now_s() >= entry.deadline_s:
                self._expirations += 1
                return False
            return True

    def clear(self) -> int:
        """Drop everything; return how many entries went."""
        with self._lock:
            gone = list(self._entries.items())
            for key, entry in gone:
                self._drop(key, entry)
            return len(gone)

    def resize(self, max_bytes: int) -> None:
        """Set the bound and evict at once what no longer fits.

        Raises:
            ConfigurationError: a bound that is not a positive whole number.
        """
        max_bytes = _checked_bound(max_bytes)
        with self._lock:
            self._max_bytes = max_bytes
            self._make_room(max_bytes, self._now_s())

    def sweep(self, limit: int) -> bool:
        """Drop entries past their deadline, looking at no more than ``limit``; return whether that was all of them."""
        with self._lock:
            return self._drop_due(self._now_s(), limit)

    def keys(self) -> list[str]:
        """Return the keys of this moment."""
        with self._lock:
            return list(self._entries)

    def name_ledger(self, name: str) -> NameLedger:
        """Return the figures kept for ``name``."""
        with self._lock:
            return self._ledgers.of(name)

    def get_stats(self) -> dict[str, Any]:
        """Return the tier's figures, in total and by name."""
        with self._lock:
            return {
                **self._ledgers.totals(),
                "entries": len(self._entries),
                "used_bytes": self._used_bytes,
                "max_bytes": self._max_bytes,
                "evictions": self._evictions,
                "expirations": self._expirations,
                "rejections": self._rejections,
                "names": self._ledgers.by_name(),
            }

    def _make_room(self, goal_bytes: int, now_s: float) -> None:
        while self._used_bytes > goal_bytes:
            before = self._expirations
            self._drop_due(now_s, _DUE_PER_EVICTION)
            if self._expirations == before:
                key = self._policy.victim()
                self._drop(key, self._entries[key])
                self._evictions += 1

    def _drop_due(self, now_s: float, limit: int) -> bool:
        due, is_all = self._wheel.take_due(now_s, limit)
        for key in due:
            self._drop(key, self._entries[key])
        self._expirations += len(due)
        return is_all

    def _drop(self, key: str, entry: Entry) -> None:
        del self._entries[key]
        self._policy.removed(key)
        if entry.deadline_s is not None:
            self._wheel.cancel(key)
        self._used_bytes -= entry.size_bytes
        entry.ledger.entries -= 1
        entry.ledger.used_bytes -= entry.size_bytes


def _checked_bound(max_bytes: Any) -> int:
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
        raise ConfigurationError(f"max_bytes={max_bytes!r} is not allowed: it must be an integer > 0, in bytes")
    return max_bytes
