"""service: computing anew what gets old, in the background or on demand, while the old value serves."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computing import Computing, not_awaitable, nothing, opened
from ondol.cache.flight import SingleFlight
from ondol.cache.keys import canonical_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ondol.cache.computed import Computed, Terms
    from ondol.cache.core import CacheCore
    from ondol.cache.entry import Entry
    from ondol.cache.flight import Work
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["RefreshingComputing"]

logger = logging.getLogger("ondol.cache")

REFRESH_RETRY_S: Final = 10.0
"""How long after a refresh began the next one may, whether it failed or hangs."""

MAX_REFRESH_THREADS: Final = 4


class RefreshingComputing(Computing):
    """Computations that can also renew what is there. An error never takes the place of a value that is still good."""

    def __init__(self, core: CacheCore, clock: Clock, recorder: Recorder) -> None:
        super().__init__(core, clock, recorder)
        self._renewals: SingleFlight[Computed] = SingleFlight(self.landing)
        self._refresh_threads = threading.BoundedSemaphore(MAX_REFRESH_THREADS)

    def forked(self) -> None:
        """In a forked child: nobody here brings to an end what the parent computes."""
        self.detach_where(lambda _name, _key: True)
        self._asking.clear()
        self._refresh_threads = threading.BoundedSemaphore(MAX_REFRESH_THREADS)

    async def renew(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Compute a value anew, keep it and return it; who asks meanwhile gets the old one.

        What it returns was computed after the call; those who called while another renewal was under way share one.

        Raises:
            Exception: what the computation raised; the old value stays.

        Cancellation: as for ``run``.
        """
        if not self._core.is_enabled:
            value = compute()
            return await value if inspect.isawaitable(value) else value
        terms = terms._replace(negative_ttl_s=None)
        work = self._renewal(name, key, lambda: self._computed(name, key, compute, terms, None), terms)
        if (name, key) in self._renewals.by_key:
            with contextlib.suppress(Exception):  # it began before us: its result may be older than the call
                await self._renewals.run((name, key), work)
        return opened((await self._renewals.run((name, key), work))[0].value)

    def renew_blocking(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Any:
        """Do what ``renew`` does in the calling thread."""
        if not self._core.is_enabled:
            return not_awaitable(compute())
        terms = terms._replace(negative_ttl_s=None)
        work = self._renewal(name, key, lambda: self._computed_blocking(name, key, compute, terms, None), terms)
        if (name, key) in self._renewals.by_key:
            with contextlib.suppress(Exception):  # as above
                self._renewals.run_blocking((name, key), work)
        return opened(self._renewals.run_blocking((name, key), work)[0].value)

    def detach(self, name: str, key: Hashable) -> None:
        """Keep what is computed, renewed or fetched for a key now from being stored."""
        self._renewals.detach((name, key))
        super().detach(name, key)

    def detach_tagged(self, tags: tuple[str, ...]) -> None:
        """Do that for what carries any of ``tags``."""
        self._renewals.detach_tagged(tags)
        super().detach_tagged(tags)

    def detach_where(self, matches: Callable[[str, Hashable], object]) -> None:
        """Do that for keys that match."""
        self._renewals.detach_where(lambda flown: matches(*flown))
        super().detach_where(matches)

    def _renewal(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> Work[Computed]:
        work = self._work(name, key, compute, terms)

        def commit(computed: Computed) -> None:
            super(RefreshingComputing, self).detach(name, key)  # what was computed before this began is older
            work.commit(computed)

        return work._replace(recheck=nothing, commit=commit)

    # In the background

    def refresh_if_old(
        self, entry: Entry, compute: Callable[[], Any], terms: Terms, *, is_blocking: bool = False
    ) -> None:
        """Have an entry computed anew when it is time for that: in a task of the running loop, or in a thread.

        There are at most 4 such threads; when all are busy, a later use tries again.
        """
        timing = entry.timing
        if timing is None or not terms.lifetime.is_refreshed:
            return
        now_s = self._clock.monotonic()
        if now_s < timing.fresh_until_s:
            return
        begin = self._refresh_in_thread if is_blocking else self._refresh_in_task
        if begin(entry.shelf.name, entry.key, compute, terms._replace(negative_ttl_s=None)):
            timing.refresh_later(now_s + REFRESH_RETRY_S)
            entry.settle()

    def _refresh_in_task(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> bool:
        async def work() -> Computed:
            lower = self._core.lower
            if lower is not None and not terms.is_local:
                with self._asked(name, key) as asked:
                    found = await lower.fetch(canonical_key(name, key))
                    if found is not None and self._is_fresh(found):
                        return asked.found(found)
            try:
                return await self._computed(name, key, compute, terms, None)
            except Exception as exc:
                self._note_failed_refresh(name, exc)
                raise

        if self._flights.start((name, key), self._work(name, key, work, terms)._replace(recheck=nothing)):
            self._count_refresh()
        return True

    def _refresh_in_thread(self, name: str, key: Hashable, compute: Callable[[], Any], terms: Terms) -> bool:
        if not self._refresh_threads.acquire(blocking=False):
            return False
        work = self._work(name, key, lambda: self._computed_blocking(name, key, compute, terms, None), terms)
        permits = self._refresh_threads

        def run() -> None:
            try:
                self._flights.run_blocking((name, key), work._replace(recheck=nothing))
            except Exception as exc:  # noqa: BLE001  # told and counted there; nobody waits for this thread
                self._note_failed_refresh(name, exc)
            finally:
                permits.release()

        context = contextvars.copy_context()
        try:
            threading.Thread(target=context.run, args=(run,), name="ondol cache refresh", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            permits.release()
            return False
        self._count_refresh()
        return True

    def _is_fresh(self, computed: Computed) -> bool:
        return computed.timing is None or self._clock.monotonic() < computed.timing.fresh_until_s

    def _count_refresh(self) -> None:
        with self._lock:
            self._counts["refreshes"] += 1

    def _note_failed_refresh(self, name: str, error: Exception) -> None:
        with self._lock:
            self._counts["failed_refreshes"] += 1
        logger.error(
            "cache: refreshing an entry of %r failed; the old value serves until its time is up", name, exc_info=error
        )
