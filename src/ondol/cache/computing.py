"""service: computing what is missing: once for all who ask, kept, published; and fetching what the tiers below have."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, Self

from ondol.cache.computation import Computation
from ondol.cache.computed import Computed, KeptError
from ondol.cache.flight import SingleFlight, Work
from ondol.cache.key_batch import KeyBatch, is_part, members
from ondol.cache.keys import canonical_key
from ondol.tracing import NO_SPAN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from ondol.cache.computed import Terms
    from ondol.cache.core import CacheCore
    from ondol.cache.entry import Entry
    from ondol.cache.lower import LowerTiers
    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.tracing import Span

__all__ = ["Computing", "not_awaitable", "nothing", "opened"]


class Computing(Computation):
    """The computations of one cache, and what is fetched from the tiers below it.

    Who drops a key first drops it below, then detaches what is computed or fetched, then drops it from memory: whatever
    began before is not stored, and whatever begins later finds nothing old.

    Thread-safety: every method may be called from any thread and event loop. ``landing`` is taken before the memory's
    lock.
    """

    def __init__(self, core: CacheCore, clock: Clock, recorder: Recorder) -> None:
        super().__init__(core, clock, recorder)
        self.landing = threading.RLock()
        """Whoever holds it keeps all computations and fetches from beginning, and from being stored."""
        self._flights: SingleFlight[Computed] = SingleFlight(self.landing)
        self._fetches: SingleFlight[Computed | None] = SingleFlight(self.landing)
        self.flying = self._flights.by_key
        """What is computed now, for those who only need to know whether anything is."""
        self._asking: set[tuple[str, Hashable]] = set()
        """Of these, what is looked up in the tiers below, or was found there: its tags are not known."""
        self._shared_saved_s = 0.0

    def hold(self) -> None:
        """Keep all threads from beginning or ending a computation."""
        self.landing.acquire()
        self._lock.acquire()

    def let_go(self) -> None:
        """End ``hold``."""
        self._lock.release()
        self.landing.release()

    async def run(self, name: str, key: Hashable, compute: Callable[[], Any | Awaitable[Any]], terms: Terms) -> Any:
        """Return the value in any tier, else the result of ``compute``, shared with all who ask for it meanwhile.

        Raises:
            Exception: what the computation raised; nothing is kept then, unless ``terms`` say so.

        Cancellation: leaves the computation to the others who wait for it; the last one to leave cancels it.
        """
        core = self._core
        if not core.is_enabled:
            core.memory.count_miss(name)
            value = compute()
            return await value if inspect.isawaitable(value) else value
        entry = core.memory.lookup(name, key)
        if entry is not None:
            self.refresh_if_old(entry, compute, terms)
            if self._spans.is_on:
                self._note_hit(name)
            return opened(entry.value)

        async def work() -> Computed:
            lower, lease = core.lower, None
            if lower is not None and not terms.is_local:
                with self._asked(name, key) as asked:
                    claimed = await lower.claim(canonical_key(name, key))
                    if claimed.found is not None:
                        return asked.found(claimed.found)
                lease = claimed.lease
            return await self._computed(name, key, compute, terms, lease)

        core.memory.count_miss(name)
        with self._asked_span(name) as span:
            computed, is_shared = await self._flights.run((name, key), self._work(name, key, work, terms))
            return self._counted(name, computed, is_shared, span)

    def run_blocking(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Do what ``run`` does in the calling thread; others who ask, in threads or loops, wait for it.

        Raises:
            Exception: what the computation raised.
            TypeError: it returned an awaitable.
        """
        core = self._core
        if not core.is_enabled:
            core.memory.count_miss(name)
            return not_awaitable(compute())
        entry = core.memory.lookup(name, key)
        if entry is not None:
            self.refresh_if_old(entry, compute, terms, is_blocking=True)
            if self._spans.is_on:
                self._note_hit(name)
            return opened(entry.value)

        def work() -> Computed | Awaitable[Computed]:
            lower, lease = core.lower, None
            if lower is not None and not terms.is_local:
                with self._asked(name, key) as asked:
                    claimed = lower.claim_blocking(canonical_key(name, key))
                    if claimed.found is not None:
                        return asked.found(claimed.found)
                lease = claimed.lease
            return self._computed_blocking(name, key, compute, terms, lease)

        core.memory.count_miss(name)
        with self._asked_span(name) as span:
            computed, is_shared = self._flights.run_blocking((name, key), self._work(name, key, work, terms))
            return self._counted(name, computed, is_shared, span)

    def refresh_if_old(
        self, entry: Entry, compute: Callable[[], Any], terms: Terms, *, is_blocking: bool = False
    ) -> None:
        """Have an entry computed anew in the background when it is time for that."""
        raise NotImplementedError

    # From below

    async def fetch(self, lower: LowerTiers, name: str, key: Hashable) -> Computed | None:
        """Return what the tiers below have, kept in memory from then on."""

        def commit(computed: Computed | None) -> None:
            if computed is not None:
                self._keep(name, key, computed)

        work: Work[Computed | None] = Work(lambda: lower.fetch(canonical_key(name, key)), nothing, commit)
        return (await self._fetches.run((name, key), work))[0]

    async def fetch_many(self, lower: LowerTiers, name: str, keys: list[Hashable]) -> dict[Hashable, Computed]:
        """Return what the tiers below have of ``keys``, kept in memory from then on; each tier is asked once."""
        if not keys:
            return {}
        fetched: dict[Hashable, Computed] = {}

        async def fetch() -> Computed | None:
            found = await lower.fetch_many([canonical_key(name, key) for key in keys])
            fetched.update({key: computed for key, computed in zip(keys, found, strict=True) if computed is not None})
            return None

        def commit(_nothing: Computed | None) -> None:
            for key, computed in fetched.items():
                self._keep(name, key, computed)

        # A flight of its own, which any invalidation of one of the keys detaches.
        await self._fetches.run((name, KeyBatch(keys)), Work(fetch, nothing, commit))
        return fetched

    def bring_back(self, lower: LowerTiers, name: str, key: Hashable) -> bool:
        """Bring one entry from disk into memory, unless it is dropped at the same time; return whether it was there."""

        def commit(computed: Computed | None) -> None:
            if computed is not None:
                self._keep(name, key, computed)

        canonical = canonical_key(name, key)
        work: Work[Computed | None] = Work(lambda: lower.peek(canonical), nothing, commit)
        return self._fetches.run_blocking((name, key), work)[0] is not None

    # Detaching

    def detach(self, name: str, key: Hashable) -> None:
        """Keep what is computed or fetched for a key now from being stored."""
        self._flights.detach((name, key))
        if len(self._fetches):
            self._fetches.detach_where(lambda fetched: fetched[0] == name and is_part(key, fetched[1]))

    def detach_tagged(self, tags: tuple[str, ...]) -> None:
        """Keep from being stored what is computed now and will carry any of ``tags``, and all that is fetched now."""
        self._flights.detach_tagged(tags)
        asking = self._asking
        if asking:
            self._flights.detach_where(lambda flown: flown in asking)
        self._fetches.detach_where(lambda _key: True)

    def detach_where(self, matches: Callable[[str, Hashable], object]) -> None:
        """Keep from being stored what is computed or fetched now for keys that match."""
        self._flights.detach_where(lambda flown: matches(*flown))
        self._fetches.detach_where(lambda flown: any(matches(flown[0], key) for key in members(flown[1])))

    def get_stats(self) -> dict[str, Any]:
        """Return what was computed, shared, refreshed."""
        self._flights.discard_lost()
        with self._lock:
            return {
                **self._counts,
                "computing": len(self._flights),
                "compute_seconds": self._compute_s,
                "shared_saved_seconds": self._shared_saved_s,
            }

    # One flight

    def _asked(self, name: str, key: Hashable) -> _Asked:
        return _Asked(self._asking, (name, key))

    def _work(self, name: str, key: Hashable, work: Callable[[], Any], terms: Terms) -> Work[Computed]:
        core = self._core

        def recheck() -> Computed | None:
            entry = core.memory.peek(name, key)
            return None if entry is None else Computed(entry.value, entry.cost_s, entry.size_bytes)

        def commit(computed: Computed) -> None:
            self._asking.discard((name, key))
            self._keep(name, key, computed)

        def abandon(computed: Computed) -> None:
            self._asking.discard((name, key))
            if computed.lease is not None:
                computed.lease.release()

        return Work(work, recheck, commit, abandon, terms.tags)

    def _keep(self, name: str, key: Hashable, computed: Computed) -> None:
        """Keep a result in memory, and in the tiers below where it is new to them; under the lock of its flights."""
        core = self._core
        core.keep(name, key, computed)
        lower = core.lower
        if lower is None:
            core.note_missed(name, key)
        elif computed.origin is not None:
            lower.pass_on(canonical_key(name, key), computed)
        else:
            # Without a lease others may hold an older value: it was refreshed, or the store was down.
            lower.put(canonical_key(name, key), computed, is_announced=computed.lease is None)

    def _asked_span(self, name: str) -> Span:
        spans = self._spans
        return spans.span("cache.get_or_compute", {"cache.name": name}) if spans.is_on else NO_SPAN

    def _note_hit(self, name: str) -> None:
        self._spans.event("cache.get_or_compute", {"cache.name": name, "cache.result": "hit"})

    def _counted(self, name: str, computed: Computed, is_shared: bool, span: Span) -> Any:
        result = "miss"
        if computed.origin is not None:
            result = "tier"
            self._core.memory.count_lower_hit(name, computed.cost_s)
        elif is_shared:
            result = "shared"
            with self._lock:
                self._counts["shared_computations"] += 1
                self._shared_saved_s += computed.cost_s
        span.set("cache.result", result)
        return opened(computed.value)


class _Asked:
    """Marks a flight while it asks the tiers below, and after that when it was given something."""

    __slots__ = ("_asking", "_flown", "_is_found")

    def __init__(self, asking: set[tuple[str, Hashable]], flown: tuple[str, Hashable]) -> None:
        self._asking = asking
        self._flown = flown
        self._is_found = False

    def __enter__(self) -> Self:
        self._asking.add(self._flown)
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._is_found:
            self._asking.discard(self._flown)

    def found(self, computed: Computed) -> Computed:
        """Leave the mark until the flight has landed."""
        self._is_found = True
        return computed


def nothing() -> None:
    """Say that there is no value yet."""


def not_awaitable(value: Any) -> Any:
    """Return the result of a plain computation.

    Raises:
        TypeError: it is an awaitable.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError("a synchronous computation returned an awaitable; use get_or_compute or an async function")
    return value


def opened(value: Any) -> Any:
    """Return a value; raise an error that is kept in its place."""
    if type(value) is KeptError:
        raise value.again()
    return value
