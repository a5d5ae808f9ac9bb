"""service: writes values and invalidations behind the callers' backs, in the order they came."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.glob import Glob
from ondol.cache.keys import key_text
from ondol.cache.ports import Invalidation, Put, StoreFaultError
from ondol.cache.shared.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.ports import SharedStore
    from ondol.cache.shared.health import Health
    from ondol.cache.shared.outbox import Outgoing
    from ondol.cache.shared.params import SharedParams

__all__ = ["Writer"]

_RETRY_S: Final = 0.02
_RECENT_S: Final = 1.0
"""An invalidation is read from the log within this time after the store did it, or the log counts as broken."""
_BLOCKED_S: Final = 0.25
"""How long a claim waits for an invalidation that is on its way."""


class Writer:
    """Owns the outbox. What waits in it outlives the loop: it goes out when the tier is started again.

    Thread-safety: ``put``, ``invalidate`` and ``blocks`` may be called from any thread, the rest in the tier's loop.
    """

    def __init__(self, params: SharedParams, health: Health) -> None:
        self._params = params
        self._health = health
        self._lock = threading.Lock()
        self._outbox = Outbox(params)
        self._wake: Callable[[], None] | None = None
        self._is_woken = False
        self._event = asyncio.Event()
        self._progress = asyncio.Event()
        self._turn = asyncio.Lock()
        self._recent: dict[str, tuple[float, Put]] = {}
        self._unconfirmed: deque[Invalidation] = deque(maxlen=params.queue_values)
        self.finished = 0
        """How many values and invalidations have been written, or were tried to."""
        self.invalidated: Callable[[Invalidation], None] = _nothing
        """Is told what the store has invalidated."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write from ``loop``."""
        self._event, self._progress, self._turn = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        event = self._event
        event.set()
        self._is_woken = True
        self._wake = lambda: _call(loop, event.set)

    def detach(self) -> None:
        """Write no more; values are dropped from now on, invalidations kept."""
        self._wake = None
        self._change(Outbox.drop_puts)

    def renew(self) -> None:
        """Begin empty with a new lock: for a forked child; the parent writes what waits."""
        self._lock = threading.Lock()
        self._outbox = Outbox(self._params)
        self._wake = None

    def put(self, put: Put, receipt: Callable[[Any], None] | None = None) -> None:
        """Queue a value."""
        self._change(lambda outbox: outbox.put(put, receipt, is_up=self._health.is_up))

    def invalidate(self, invalidation: Invalidation, receipt: Callable[[Any], None] | None = None) -> None:
        """Queue an invalidation."""
        self._change(lambda outbox: outbox.invalidate(invalidation, receipt))

    def drop_puts(self) -> None:
        """The store went down: drop the values that wait."""
        self._change(Outbox.drop_puts)

    def blocks(self, key: str) -> bool:
        """Tell whether what the store has under ``key`` may be older than what was put here."""
        with self._lock:
            return self._outbox.blocks(key)

    async def unblocked(self, key: str) -> bool:
        """Wait until what was put here for ``key`` has been written; return false when that takes too long."""
        deadline_s = asyncio.get_running_loop().time() + _BLOCKED_S
        while self.blocks(key):
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self.progress()
            except TimeoutError:
                return False
        return True

    def goal(self) -> int:
        """Return what ``finished`` will be at most once everything that waits now has been written."""
        with self._lock:
            return self.finished + len(self._outbox)

    def wake(self) -> None:
        """Look whether there is something to write; in the tier's loop."""
        self._event.set()

    async def progress(self) -> None:
        """Wait until something more has been written, or was tried to."""
        self._progress.clear()
        await self._progress.wait()

    async def run(self, store: SharedStore, sender: str) -> None:
        """Write while the store is up, until cancelled."""
        while True:
            await self._event.wait()
            self._event.clear()
            self._is_woken = False
            while self._health.is_up and self._has_mail():
                if not await self.send_next(store, sender):
                    await asyncio.sleep(_RETRY_S)

    async def replay(self, store: SharedStore, sender: str) -> bool:
        """Write the invalidations that waited for the store; return false when it failed again.

        Those that come meanwhile are written after the store has come up, like all others: there may be no end of them.
        """
        goal = self.goal()
        while self.finished < goal and self._has_mail():
            with self._lock:
                before = self._outbox.invalidations
            if not await self.send_next(store, sender):
                return False
            with self._lock:
                self._health.count("invalidations_replayed", max(0, before - self._outbox.invalidations))
        return True

    def overtaken(self, invalidation: Invalidation) -> None:
        """Take note that another process invalidated something: what was put here just before is meant, too.

        A value is written some time after it was put. One that the store had not got yet when another process
        invalidated it, and so may have got later, is dropped again.
        """
        meant, keys = _meaning(invalidation), invalidation.values if invalidation.kind == "keys" else None
        self._forget_recent()
        recent = [key for key in (self._recent if keys is None else keys) if key in self._recent]
        recent = [key for key in recent if meant(self._recent[key][1])]
        if recent:
            self.invalidate(Invalidation("keys", tuple(recent)))
        if not self.is_idle():
            self._change(lambda outbox: outbox.drop_overtaken(meant, keys))

    def confirmed(self, invalidation: Invalidation) -> None:
        """Take note that the log holds a line of ours."""
        with contextlib.suppress(ValueError):  # the log had it in several lines, or it was sent twice
            self._unconfirmed.remove(invalidation)

    def repeat_unconfirmed(self) -> None:
        """After an outage: queue what had been written but not seen in the log; a crash may have lost it."""
        while self._unconfirmed:
            self.invalidate(self._unconfirmed.popleft())

    async def send_next(self, store: SharedStore, sender: str) -> bool:
        """Write what comes next; return false when nothing is known to have been written."""
        async with self._turn:
            with self._lock:
                batch = self._outbox.take()
            sent = [outgoing.what for outgoing in batch if isinstance(outgoing.what, Invalidation)]
            self._unconfirmed.extend(sent)  # before: the log may tell of them sooner than the answer comes
            results: list[Any] | None = None
            try:
                results = await self._written(batch, store, sender)
            finally:
                self._change(Outbox.failed if results is None else lambda outbox: outbox.done(results))
                self.finished += len(batch)
                self._progress.set()
        for invalidation in sent:
            if results is None:
                self.confirmed(invalidation)  # it waits to be sent again anyway
            else:
                self.invalidated(invalidation)
        return results is not None

    def get_stats(self) -> dict[str, Any]:
        """Return the queue's figures."""
        with self._lock:
            return {
                "dropped_puts": self._outbox.dropped_puts,
                "overflows": self._outbox.overflows,
                "queued": len(self._outbox),
                "queued_invalidations": self._outbox.invalidations,
            }

    def is_idle(self) -> bool:
        """Whether everything has been written."""
        with self._lock:
            return not len(self._outbox)

    async def _written(self, batch: list[Outgoing], store: SharedStore, sender: str) -> list[Any] | None:
        if not batch:
            return []
        puts = [outgoing.what for outgoing in batch if isinstance(outgoing.what, Put)]
        if puts:
            results = await self._health.attempt("put", lambda: store.put_many(puts))
            if results is None:
                return None
            checked = [self._checked(put, result) for put, result in zip(puts, results, strict=True)]
            news = [put.key for put, is_kept in zip(puts, checked, strict=True) if is_kept and put.is_announced]
            await self._announce(news, store, sender)
            return checked
        sent = [outgoing.what for outgoing in batch if isinstance(outgoing.what, Invalidation)]
        counts = await asyncio.gather(
            *(
                self._health.attempt("invalidate", partial(store.invalidate, invalidation, sender))
                for invalidation in sent
            )
        )
        if any(count is None for count in counts):
            return None  # all of them are sent again: to invalidate twice does no harm
        self._health.count("invalidations_sent", len(sent))
        return list(counts)

    async def _announce(self, keys: list[str], store: SharedStore, sender: str) -> None:
        if keys and await self._health.attempt("announce", partial(store.announce, keys, sender)) is None:
            self.invalidate(Invalidation("keys", tuple(keys)))  # to be on the safe side: it is tried until it is done

    def _checked(self, put: Put, result: bool | StoreFaultError) -> bool | None:
        if isinstance(result, StoreFaultError):
            self._health.item_failed("put", result)
            return None
        self._health.count("puts" if put.token is None else "commits", int(result))
        self._health.count("refused_commits", int(not result))
        if put.token is None:
            self._forget_recent()
            self._recent.pop(put.key, None)
            self._recent[put.key] = (asyncio.get_running_loop().time(), put._replace(frame=b""))
        return result

    def _forget_recent(self) -> None:
        since_s = asyncio.get_running_loop().time() - _RECENT_S
        while self._recent:
            key = next(iter(self._recent))
            if self._recent[key][0] >= since_s:
                return
            del self._recent[key]

    def _has_mail(self) -> bool:
        return not self.is_idle()

    def _change(self, change: Callable[[Outbox], object]) -> None:
        with self._lock:
            change(self._outbox)
            due, self._outbox.due = self._outbox.due, []
            wake = None if self._is_woken else self._wake
            self._is_woken = self._is_woken or wake is not None
        for receipt, result in due:
            receipt(result)
        if wake is not None:
            wake()


def _meaning(invalidation: Invalidation) -> Callable[[Put], bool]:
    values = frozenset(invalidation.values)
    if invalidation.kind == "keys":
        return lambda put: put.key in values
    if invalidation.kind == "tag":
        return lambda put: not values.isdisjoint(put.tags)
    if invalidation.kind == "pattern":
        globs = [Glob(pattern) for pattern in values]
        return lambda put: any(glob.matches(key_text(put.key)) for glob in globs)
    return lambda _put: True


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return  # the loop is closed: what was queued waits for the next start


def _nothing(_invalidation: Invalidation) -> None:
    pass
