"""service: the cache by shelf key: lookups, storing, dropping. ``Cache`` and the decorator both stand on it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computed import Computed, KeptError
from ondol.cache.glob import Glob
from ondol.cache.keys import canonical_key, split_key, tail_text
from ondol.cache.lifetime import DEFAULT_LIFETIME
from ondol.cache.ports import Invalidation
from ondol.cache.refreshing import RefreshingComputing
from ondol.cache.sizing import entry_size
from ondol.errors import ConfigurationError
from ondol.tracing import SpanRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from random import Random

    from ondol.cache.entry import Entry
    from ondol.cache.lifetime import Lifetime, Timing
    from ondol.cache.lower import LowerTiers
    from ondol.cache.memory import MemoryTier
    from ondol.cache.shelf import Shelf
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["MISSING", "CacheCore"]

logger = logging.getLogger("ondol.cache")

_MAX_MISSED: Final = 100_000

MISSING: Final[Any] = object()
"""Stands for "nothing there" where ``None`` is a value."""


class CacheCore:
    """Lookups, storing and dropping, in memory and in the tiers below; computations go through ``computing``.

    Thread-safety: every method may be called from any thread and event loop.
    """

    def __init__(
        self,
        memory: MemoryTier,
        clock: Clock,
        recorder: Recorder,
        random: Random,
        *,
        lifetime: Lifetime = DEFAULT_LIFETIME,
        size_of: Callable[[Any], int] | None = None,
        is_enabled: bool = True,
        spans: SpanRelay | None = None,
    ) -> None:
        self.memory = memory
        self.lifetime = lifetime
        """Of what is stored without saying how long it lives."""
        self.is_enabled = is_enabled
        self.spans = spans if spans is not None else SpanRelay()
        self.lower: LowerTiers | None = None
        self.now_s = clock.monotonic
        self._clock = clock
        self._random = random
        self._size_of = size_of
        self._expects_tiers = False
        self._missed: dict[Any, dict[str, None]] = {}
        """What tiers that are not attached would have to drop: values by kind of invalidation."""
        self.computing = RefreshingComputing(self, clock, recorder)
        self.is_plain = False
        """Whether storing is nothing but storing: switched on, no tiers, no time to live, sizes as measured."""
        self._settle()

    def attach(self, lower: LowerTiers | None) -> None:
        """Put tiers below the memory, or take them away; they are told first what they have missed."""
        with self.computing.landing:
            if lower is not None:
                missed, self._missed = self._missed, {}
                for kind, values in missed.items():
                    lower.invalidate(Invalidation(kind, tuple(values)))
            self.lower = lower

    def expect_tiers(self) -> None:
        """Note from now on, while no tiers are attached, what they would have to drop."""
        self._expects_tiers = True
        self._settle()

    def note_missed(self, name: str, key: Hashable) -> None:
        """Note that what the tiers have under a key is older than what happened here."""
        if self._expects_tiers:
            self._note_missed("keys", (canonical_key(name, key),))

    def _note_missed(self, kind: str, values: tuple[str, ...]) -> None:
        missed = self._missed
        if kind != "all":
            missed.setdefault(kind, {}).update(dict.fromkeys(values))
        if kind == "all" or sum(map(len, missed.values())) > _MAX_MISSED:
            self._missed = {"all": {}}

    def _settle(self) -> None:
        self.is_plain = (
            self.is_enabled and not self._expects_tiers and self._size_of is None and self.lifetime == DEFAULT_LIFETIME
        )

    def hold(self) -> None:
        """Wait until no thread is in the middle of something, and keep it so: a fork is about to happen."""
        self.computing.hold()
        self.memory.lock.acquire()

    def let_go(self) -> None:
        """End ``hold``."""
        self.memory.lock.release()
        self.computing.let_go()

    def forked(self) -> None:
        """In a forked child: nobody here brings to an end what the parent computes."""
        self.computing.forked()
        if self.lower is not None:
            self.lower.forked()

    # Looking up

    def find(self, name: str, key: Hashable, default: Any) -> Any:
        """Return the value in memory, or ``default``; counted. A kept error counts as nothing there."""
        entry = self.memory.lookup(name, key)
        if entry is None:
            self.memory.count_miss(name)
            return default
        return self._value(entry, default)

    def _value(self, entry: Entry, default: Any) -> Any:
        if type(entry.value) is not KeptError:
            return entry.value
        self.memory.take_back_hit(entry)
        return default

    async def find_below(self, name: str, key: Hashable, default: Any) -> Any:
        """Return the value from the fastest tier that has it, kept in memory from then on, or ``default``; counted."""
        lower = self.lower
        if lower is None or not self.is_enabled:
            return self.find(name, key, default)
        entry = self.memory.lookup(name, key)
        if entry is not None:
            return self._value(entry, default)
        self.memory.count_miss(name)
        computed = await self.computing.fetch(lower, name, key)
        if computed is None:
            return default
        self.memory.count_lower_hit(name, computed.cost_s)
        return computed.value

    async def find_many_below(self, name: str, keys: list[Hashable]) -> list[Any]:
        """Do what ``find_below`` does for several keys, asking each tier once; ``MISSING`` for what nobody has."""
        lower = self.lower
        if lower is None or not self.is_enabled:
            return [self.find(name, key, MISSING) for key in keys]
        entries = {key: self.memory.lookup(name, key) for key in keys}
        for entry in entries.values():
            if entry is None:
                self.memory.count_miss(name)
        found = await self.computing.fetch_many(lower, name, [key for key, entry in entries.items() if entry is None])
        return [self._taken(name, entries[key], found.get(key)) for key in keys]

    def _taken(self, name: str, entry: Entry | None, computed: Computed | None) -> Any:
        if entry is not None:
            return self._value(entry, MISSING)
        if computed is None:
            return MISSING
        self.memory.count_lower_hit(name, computed.cost_s)
        return computed.value

    # Storing

    def store(
        self,
        name: str,
        key: Hashable,
        value: Any,
        lifetime: Lifetime,
        cost_s: float,
        tags: tuple[str, ...],
        *,
        is_announced: bool = True,
    ) -> None:
        """Keep ``value``; a computation under way for the same key is older and will not replace it."""
        if not self.is_enabled:
            self._drop_below("keys", canonical_key(name, key))  # which must not come back when switched on
            return
        computed = self.measure(key, value, lifetime, cost_s, tags)
        lower, canonical = self.lower, ""
        if lower is not None:
            canonical = canonical_key(name, key)
            computed = lower.encode(canonical, computed)
        # In one step: what is in memory and what lies below must not come from two different calls.
        with self.computing.landing:
            self.computing.detach(name, key)
            self.keep(name, key, computed)
            if lower is None:
                self.note_missed(name, key)
            else:
                lower.put(canonical, computed, is_announced=is_announced)

    def keep(self, name: str, key: Hashable, computed: Computed) -> None:
        """Keep what a computation or a lower tier gave, in memory."""
        if not self.is_enabled:
            return
        if computed.origin is not None and self._size_of is not None:
            size_bytes = self._entry_bytes(key, computed.value, computed.timing, computed.tags)
            computed = computed._replace(size_bytes=size_bytes)
        is_kept = self.memory.store(
            name,
            key,
            computed.value,
            computed.size_bytes,
            computed.cost_s,
            computed.timing,
            computed.tags,
            is_newer=computed.origin is None,
        )
        if not is_kept:
            self._warn_of_size(name)

    def measure(self, key: Hashable, value: Any, lifetime: Lifetime, cost_s: float, tags: tuple[str, ...]) -> Computed:
        """Return ``value`` with its size and times; outside of any lock, as a large value takes a moment to size."""
        timing = lifetime.begin(self._clock.monotonic(), self._random.random())
        size_bytes = self._entry_bytes(key, value, timing, tags)
        if timing is not None and isinstance(value, KeptError):
            timing.calm_until_s = -math.inf  # whoever finds it has to look at what it is
        return Computed(value, cost_s, size_bytes, timing, tags)

    def _entry_bytes(self, key: Hashable, value: Any, timing: Timing | None, tags: tuple[str, ...]) -> int:
        size_of = self._size_of
        if size_of is None or isinstance(value, KeptError):
            return entry_size(key, value, has_timing=timing is not None, tag_count=len(tags))
        size_bytes = size_of(value)
        if type(size_bytes) is not int or size_bytes < 0:
            raise ConfigurationError(f"size_of gave {size_bytes!r}: it must return a whole number of bytes, 0 or more")
        return size_bytes

    # Dropping

    def _drop_below(self, kind: Any, *values: str) -> None:
        """Drop from the tiers below, before anything else, so that nothing old is found there from now on."""
        if self.lower is not None:
            self.lower.invalidate(Invalidation(kind, values))
        elif self._expects_tiers:
            self._note_missed(kind, values)

    def discard(self, name: str, key: Hashable) -> bool:
        """Drop what is under ``key``, also what is being computed; return whether there was a live entry in memory."""
        if self.lower is not None or self._expects_tiers:
            self._drop_below("keys", canonical_key(name, key))
        self.computing.detach(name, key)
        entry = self.memory.peek(name, key)
        return entry is not None and self.memory.remove(entry, "deleted")

    def discard_tagged(self, tags: tuple[str, ...], *, is_announced: bool = True) -> Iterator[int]:
        """Drop every entry that carries any of ``tags``, one step an item: how many went from memory in it."""
        if is_announced:
            for tag in tags:
                self._drop_below("tag", tag)
        self.computing.detach_tagged(tags)
        for entry in self.memory.tagged(tags):
            yield int(self.memory.remove(entry, "tag"))

    def discard_matching(self, glob: Glob, *, is_announced: bool = True) -> Iterator[int]:
        """Drop every entry whose readable key matches, one step an item: how many went from memory in it.

        Entries that are stored between two steps may stay. A pattern that begins with a name and a whole first part
        looks at the entries of that name and part alone, from its second use on.
        """
        if is_announced:
            self._drop_below("pattern", glob.pattern)
        self.computing.detach_where(lambda name, key: glob.may_reach(name) and glob.matches(name + tail_text(key)))
        for shelf in list(self.memory.shelves):
            if glob.may_reach(shelf.name):
                yield from self._discard_on(shelf, glob)
            yield 0

    def _discard_on(self, shelf: Shelf, glob: Glob) -> Iterator[int]:
        segment = glob.segment(shelf.name)
        indexing = segment is not None and self.memory.index_segments(shelf)
        try:
            for entry in self._candidates(shelf, segment if shelf.is_indexed else None):
                if indexing:
                    self.memory.add_segment(entry)
                yield int(glob.matches(shelf.name + tail_text(entry.key)) and self.memory.remove(entry, "pattern"))
            shelf.is_indexed = shelf.is_indexed or indexing
        finally:
            if indexing and not shelf.is_indexed:
                self.memory.drop_segments(shelf)  # half an index would hide the other half

    def _candidates(self, shelf: Shelf, segment: str | None) -> list[Entry]:
        with self.memory.lock:
            if segment is None or shelf.segments is None:
                return list(shelf.entries.values())
            return list(shelf.segments.get(segment, ()))

    def clear(self, *, is_announced: bool = True) -> int:
        """Drop everything, also what is being computed; return how many entries went from memory."""
        if is_announced:
            self._drop_below("all")
        self.computing.detach_where(lambda _name, _key: True)
        return self.memory.clear("cleared")

    def apply_from_elsewhere(self, invalidation: Invalidation) -> None:
        """Drop from memory what another process announced."""
        kind, values = invalidation
        if kind == "keys":
            for name, key in _split_all(values):
                self.computing.detach(name, key)
                entry = self.memory.peek(name, key)
                if entry is not None:
                    self.memory.remove(entry, "elsewhere")
        elif kind == "tag":
            sum(self.discard_tagged(values, is_announced=False))
        elif kind == "pattern":
            for pattern in values:
                sum(self.discard_matching(Glob(pattern), is_announced=False))
        else:
            self.clear(is_announced=False)

    def set_enabled(self, is_enabled: bool) -> None:
        """Switch on or off; either way it is empty then: what is set or deleted while off would make it wrong."""
        self.is_enabled = is_enabled
        self._settle()
        self.computing.detach_where(lambda _name, _key: True)
        self.memory.clear("switched off")

    def get_stats(self) -> dict[str, Any]:
        """Return the memory tier's figures together with those of computations and of the tiers below."""
        stats = self.memory.get_stats() | self.computing.get_stats() | {"is_enabled": self.is_enabled}
        memory = {key: stats[key] for key in ("entries", "used_bytes", "max_bytes", "evictions")}
        tiers: dict[str, Any] = {"memory": {"hits": stats["memory_hits"], **memory}}
        stats |= {"tiers": tiers, "unencodable": {}}
        lower = self.lower
        if lower is not None:
            below = lower.get_stats()
            stats |= {"tiers": tiers | below["tiers"], "unencodable": below["unencodable"]}
        stats["saved_seconds"] += stats.pop("shared_saved_seconds")
        return stats

    def _warn_of_size(self, name: str) -> None:
        shelf = self.memory.shelves.by_name.get(name)
        if shelf is None or shelf.has_warned:
            return
        shelf.has_warned = True
        bound_bytes = min(self.memory.max_bytes, shelf.partition.max_bytes)
        logger.warning(
            "cache: an entry of %r is larger than %s (%d bytes) and is not kept in memory; raise that, "
            "or cache something smaller (said once per name)",
            name,
            "the whole cache" if shelf.partition.max_bytes >= self.memory.max_bytes else "the quota of its name",
            bound_bytes,
            extra={"fields": {"entry": name, "max_bytes": bound_bytes}},
        )


def _split_all(keys: Iterable[str]) -> Iterator[tuple[str, Hashable]]:
    for canonical in keys:
        try:
            yield split_key(canonical)
        except ValueError:
            logger.warning("cache: another process announced %r, which is no key; it is passed over", canonical[:80])
