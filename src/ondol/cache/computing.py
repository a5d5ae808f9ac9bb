"""service: computing what is missing: once for all who ask, timed, kept, published; and refreshing what gets old."""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computation import Computation
from ondol.cache.computed import Computed, KeptError
from ondol.cache.flight import SingleFlight, Work
from ondol.cache.key_batch import KeyBatch, is_part, members
from ondol.cache.keys import canonical_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from ondol.cache.computed import Terms
    from ondol.cache.core import CacheCore
    from ondol.cache.entry import Entry
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["Computing"]

logger = logging.getLogger("ondol.cache")

REFRESH_RETRY_S: Final = 10.0
"""How long after a refresh began the next one may, whether it failed or hangs."""

MAX_REFRESH_THREADS: Final = 4


class Computing(Computation):
    """The computations of one cache.

    Thread-safety: every method may be called from any thread and event loop.
    """

    def __init__(self, core: CacheCore, clock: Clock, recorder: Recorder) -> None:
        super().__init__(core, clock, recorder)
        self._flights: SingleFlight[Computed] = SingleFlight()
        self._fetches: SingleFlight[Computed | None] = SingleFlight()
        self.flying = self._flights.by_key
        """What is computed now, for those who only need to know whether anything is."""
        self._refresh_threads = threading.BoundedSemaphore(MAX_REFRESH_THREADS)
        self._shared_saved_s = 0.0

    def hold(self) -> None:
        """Keep all threads from beginning or ending a computation."""
        self._flights.lock.acquire()
        self._fetches.lock.acquire()
        self._lock.acquire()

    def let_go(self) -> None:
        """End ``hold``."""
        self._lock.release()
        self._fetches.lock.release()
        self._flights.lock.release()

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
            self._refresh_if_old(entry, compute, terms)
            return _opened(entry.value)

        async def work() -> Computed:
            lease = None
            if core.lower is not None and not terms.is_local:
                claimed = await core.lower.claim(canonical_key(name, key))
                if claimed.found is not None:
                    return claimed.found
                lease = claimed.lease
            return await self._computed(name, key, compute, terms, lease)

        core.memory.count_miss(name)
        return self._counted(name, *await self._flights.run((name, key), self._work(name, key, work, terms)))

    def run_blocking(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Do what ``run`` does in the calling thread; others who ask, in threads or loops, wait for it.

        Raises:
            Exception: what the computation raised.
            TypeError: it returned an awaitable.
        """
        core = self._core
        if not core.is_enabled:
            core.memory.count_miss(name)
            return compute()
        entry = core.memory.lookup(name, key)
        if entry is not None:
            self._refresh_if_old(entry, compute, terms, is_blocking=True)
            return _opened(entry.value)

        def work() -> Computed | Awaitable[Computed]:
            lease = None
            if core.lower is not None and not terms.is_local:
                claimed = core.lower.claim_blocking(canonical_key(name, key))
                if claimed.found is not None:
                    return claimed.found
                lease = claimed.lease
            return self._computed_blocking(name, key, compute, terms, lease)

        core.memory.count_miss(name)
        return self._counted(name, *self._flights.run_blocking((name, key), self._work(name, key, work, terms)))

    async def renew(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Compute a value anew, keep it and return it; who asks meanwhile gets the old one.

        Raises:
            Exception: what the computation raised; the old value stays.

        Cancellation: as for ``run``.
        """
        if not self._core.is_enabled:
            value = compute()
            return await value if inspect.isawaitable(value) else value
        work = self._work(name, key, lambda: self._computed(name, key, compute, terms, None), terms)
        return _opened((await self._flights.run((name, key), work._replace(recheck=_nothing)))[0].value)

    def renew_blocking(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Do what ``renew`` does in the calling thread."""
        if not self._core.is_enabled:
            return compute()
        work = self._work(name, key, lambda: self._computed_blocking(name, key, compute, terms, None), terms)
        return _opened(self._flights.run_blocking((name, key), work._replace(recheck=_nothing))[0].value)

    async def fetch(self, name: str, key: Hashable) -> Computed | None:
        """Return what the tiers below have, kept in memory from then on."""
        lower = self._core.lower
        assert lower is not None

        def commit(computed: Computed | None) -> None:
            if computed is not None:
                self._core.keep(name, key, computed)

        work: Work[Computed | None] = Work(lambda: lower.fetch(canonical_key(name, key)), lambda: None, commit)
        return (await self._fetches.run((name, key), work))[0]

    async def fetch_many(self, name: str, keys: list[Hashable]) -> dict[Hashable, Computed]:
        """Return what the tiers below have of ``keys``, kept in memory from then on; each tier is asked once."""
        lower = self._core.lower
        assert lower is not None
        if not keys:
            return {}
        fetched: dict[Hashable, Computed] = {}

        async def fetch() -> Computed | None:
            found = await lower.fetch_many([canonical_key(name, key) for key in keys])
            fetched.update({key: computed for key, computed in zip(keys, found, strict=True) if computed is not None})
            return None

        def commit(_nothing: Computed | None) -> None:
            for key, computed in fetched.items():
                self._core.keep(name, key, computed)

        # A flight of its own, which any invalidation of this name detaches.
        await self._fetches.run((name, KeyBatch(keys)), Work(fetch, _nothing, commit))
        return fetched

    def fetch_from_disk(self, name: str, key: Hashable) -> bool:
        """Bring one entry from disk into memory, unless it is dropped at the same time; return whether it was there."""
        lower = self._core.lower
        if lower is None:
            return False

        def commit(computed: Computed | None) -> None:
            if computed is not None and self._core.memory.peek(name, key) is None:
                self._core.keep(name, key, computed)

        canonical = canonical_key(name, key)
        work: Work[Computed | None] = Work(lambda: lower.read(canonical), _nothing, commit)
        return self._fetches.run_blocking((name, key), work)[0] is not None

    def detach(self, name: str, key: Hashable) -> None:
        """Keep what is computed or fetched for a key now from being stored."""
        self._flights.detach((name, key))
        if len(self._fetches):
            self._fetches.detach_where(lambda fetched: fetched[0] == name and is_part(key, fetched[1]))

    def detach_tagged(self, tags: tuple[str, ...]) -> None:
        """Keep from being stored what is computed now and will carry any of ``tags``, and all that is fetched now."""
        self._flights.detach_tagged(tags)
        self._fetches.detach_where(lambda _key: True)

    def detach_where(self, matches: Callable[[str, Hashable], object]) -> None:
        """Keep from being stored what is computed or fetched now for keys that match."""
        self._flights.detach_where(lambda flown: matches(*flown))
        self._fetches.detach_where(lambda flown: any(matches(flown[0], key) for key in members(flown[1])))

    def get_stats(self) -> dict[str, Any]:
        """Return what was computed, shared, refreshed."""
        with self._lock:
            return {
                **self._counts,
                "computing": len(self._flights),
                "compute_seconds": self._compute_s,
                "shared_saved_seconds": self._shared_saved_s,
            }

    def _work(self, name: str, key: Hashable, work: Callable[[], Any], terms: Terms) -> Work[Computed]:
        core = self._core

        def recheck() -> Computed | None:
            entry = core.memory.peek(name, key)
            return None if entry is None else Computed(entry.value, entry.cost_s, entry.size_bytes)

        return Work(work, recheck, lambda computed: self._keep(name, key, computed), _abandon, terms.tags)

    def _keep(self, name: str, key: Hashable, computed: Computed) -> None:
        core = self._core
        core.keep(name, key, computed)
        if core.lower is not None and not computed.is_from_below:
            # Without a lease others may hold an older value: it was refreshed, or the store was down.
            core.lower.put(canonical_key(name, key), computed, is_announced=computed.lease is None)

    def _counted(self, name: str, computed: Computed, is_shared: bool) -> Any:
        if computed.is_from_below:
            self._core.memory.count_lower_hit(name, computed.cost_s)
        elif is_shared:
            with self._lock:
                self._counts["shared_computations"] += 1
                self._shared_saved_s += computed.cost_s
        return _opened(computed.value)

    # Refreshing

    def _refresh_if_old(
        self, entry: Entry, compute: Callable[[], Any], terms: Terms, *, is_blocking: bool = False
    ) -> None:
        timing = entry.timing
        if timing is None or not terms.lifetime.is_refreshed:
            return
        now_s = self._clock.monotonic()
        if now_s < timing.fresh_until_s:
            return
        timing.refresh_later(now_s + REFRESH_RETRY_S)
        entry.settle()
        self.refresh(entry.shelf.name, entry.key, compute, terms, is_blocking=is_blocking)

    def refresh(
        self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms, *, is_blocking: bool = False
    ) -> bool:
        """Compute a value anew in the background while the old one serves; return false when that is under way.

        In a task of the running loop, or, for plain functions, in a thread of its own, of which there are at most 4.
        """
        if is_blocking:
            return self._refresh_in_thread(name, key, compute, terms)

        async def work() -> Computed:
            lower = self._core.lower
            if lower is not None and not terms.is_local:
                found = await lower.fetch(canonical_key(name, key))
                if found is not None and self._is_fresh(found):
                    return found
            try:
                return await self._computed(name, key, compute, terms, None)
            except Exception as exc:
                self._note_failed_refresh(name, exc)
                raise

        is_begun = self._flights.start((name, key), self._refreshing(name, key, work, terms))
        self._count_refresh(is_begun=is_begun)
        return is_begun

    def _refresh_in_thread(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> bool:
        if not self._refresh_threads.acquire(blocking=False):
            return False
        work = self._refreshing(name, key, lambda: self._computed_blocking(name, key, compute, terms, None), terms)

        def run() -> None:
            try:
                self._flights.run_blocking((name, key), work)
            except Exception as exc:  # noqa: BLE001  # told and counted there; nobody waits for this thread
                self._note_failed_refresh(name, exc)
            finally:
                self._refresh_threads.release()

        self._count_refresh(is_begun=True)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name="ondol cache refresh", daemon=True).start()
        return True

    def _refreshing(self, name: str, key: Hashable, work: Callable[[], Any], terms: Terms) -> Work[Computed]:
        return self._work(name, key, work, terms)._replace(recheck=_nothing)

    def _is_fresh(self, computed: Computed) -> bool:
        return computed.timing is None or self._clock.monotonic() < computed.timing.fresh_until_s

    def _count_refresh(self, *, is_begun: bool) -> None:
        if is_begun:
            with self._lock:
                self._counts["refreshes"] += 1

    def _note_failed_refresh(self, name: str, error: Exception) -> None:
        with self._lock:
            self._counts["failed_refreshes"] += 1
        logger.error(
            "cache: refreshing an entry of %r failed; the old value serves until its time is up", name, exc_info=error
        )


def _nothing() -> None:
    """Say that there is no value yet."""


def _abandon(computed: Computed) -> None:
    if computed.lease is not None:
        computed.lease.release()


def _opened(value: Any) -> Any:
    if type(value) is KeptError:
        raise value.again()
    return value
