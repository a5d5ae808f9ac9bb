"""service: the shared tier as the cache uses it: from any thread, from any event loop, without ever failing."""

from __future__ import annotations

import asyncio
import logging
import os
import random as random_module
import secrets
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.ports import Put
from ondol.cache.shared.engine import Engine
from ondol.cache.shared.follower import Events
from ondol.cache.shared.health import Health
from ondol.cache.shared.leases import UNAVAILABLE, Sender, checked_ttl_s
from ondol.cache.shared.params import SharedParams
from ondol.cache.shared.thread import LoopThread
from ondol.cache.shared.ticket import Ticket
from ondol.cache.shared.writer import Writer
from ondol.recorder import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ondol.cache.ports import Invalidation, LogPosition, SharedStore
    from ondol.cache.shared.leases import Claimed
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["SharedTier"]

logger = logging.getLogger("ondol.cache")

_FIRST_ATTEMPT_S: Final = 1.0
"""How long ``start`` waits for the store at most."""
_JOIN_S: Final = 2.0
_LOOK_S: Final = 0.1

_started: weakref.WeakSet[SharedTier] = weakref.WeakSet()


class SharedTier:
    """A tier of the cache on a store that all processes share.

    A store that fails is never the caller's business: what was asked for is a miss then, and is counted. While the
    store is down everything returns at once; invalidations wait and are made up for before it is used again.

    ``on_invalidated`` is told what other processes invalidate, ``on_gap`` that this cannot be known for a time that has
    passed: everything in memory may be outdated then. Both are called in the tier's thread and must not wait for the
    tier. A value that ``fetch`` or ``claim`` has just returned may be one that ``on_invalidated`` is called for at the
    same moment: whoever keeps it has to drop it then.

    Thread-safety: every method may be called from any thread, the coroutines in any event loop. A forked child starts
    a tier of its own on first use.
    """

    def __init__(
        self,
        store: SharedStore,
        clock: Clock,
        *,
        namespace: str,
        on_invalidated: Callable[[Invalidation], None],
        on_gap: Callable[[], None],
        recorder: Recorder = discard,
        random: Callable[[], float] = random_module.random,
        params: SharedParams | None = None,
    ) -> None:
        self._store = store
        self._params = params if params is not None else SharedParams()
        self._namespace = namespace
        self._events = Events(on_invalidated, on_gap)
        self._health = Health(self._params, clock, random, recorder)
        self._writer = Writer(self._params, self._health)
        self._sender = Sender(secrets.token_hex(8))
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._engine: Engine | None = None
        self._position: LogPosition | None = None
        self._is_forked = False

    @property
    def position(self) -> LogPosition | None:
        """Up to where the invalidations of other processes are known; ``None`` before the store was first reached."""
        engine = self._engine
        return self._position if engine is None else engine.follower.position

    def resume_from(self, position: LogPosition | None) -> None:
        """Follow the invalidations of others from where an earlier run stopped; has an effect before ``start`` only."""
        with self._lock:
            if self._engine is None and position is not None:
                self._position = position

    def start(self, wait_s: float = _FIRST_ATTEMPT_S) -> None:
        """Begin: create the thread and wait up to ``wait_s`` for the store; does nothing when started."""
        with self._lock:
            if self._engine is not None:
                return
            self._is_forked = False
            self._thread = LoopThread(f"ondol shared tier {self._namespace}")
            self._thread.start()
            self._engine = self._thread.submit(self._begin()).result()
            _started.add(self)
            is_ready = self._thread.submit(self._engine.ready.wait())
        try:
            is_ready.result(wait_s)
        except TimeoutError:
            is_ready.cancel()

    def stop(self, grace_s: float = 2.0) -> None:
        """End: write what waits, for ``grace_s`` at most, and join the thread. May be called twice, and started again.

        Who waits for an answer gets a miss. Invalidations that could not be written are kept for the next start.
        """
        with self._lock:
            engine, thread = self._engine, self._thread
            self._engine = self._thread = None
            _started.discard(self)
            if engine is None or thread is None:
                return
            ended = thread.submit(engine.stop(grace_s))
            if not thread.is_current():
                try:
                    self._position = ended.result(2 * grace_s + _JOIN_S)
                except TimeoutError:
                    logger.warning("cache: the shared tier did not stop in time; its thread is left behind")
            thread.stop(_JOIN_S)

    async def fetch(self, key: str) -> bytes | None:
        """Return the frame under ``key``, or ``None``; whatever fails is a miss.

        Cancellation: leaves the others who ask for the same key alone.
        """
        return (await self.fetch_many((key,)))[0]

    async def fetch_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return a frame or ``None`` for each key, in one round trip."""
        loop = asyncio.get_running_loop()
        tickets = self._ask(keys, loop)
        return [None if ticket is None else await ticket.arrival() for ticket in tickets]

    def fetch_blocking(self, key: str) -> bytes | None:
        """Do what ``fetch`` does, blocking the calling thread."""
        ticket = self._ask((key,), None)[0]
        return None if ticket is None else ticket.arrival_blocking()

    async def claim(self, key: str) -> Claimed:
        """Return the value, the lease to compute it under, or neither when the store is not available.

        While another process holds the lease this waits: until the value is there, or the lease has ended without one
        and is granted to another who waits. Who holds it is alive or the lease ends within ``lease_s``.

        Cancellation: leaves nothing behind; a lease that was granted this moment is given back.
        """
        engine = self._live()
        if engine is None:
            return UNAVAILABLE
        ticket: Ticket[Claimed] = Ticket(asyncio.get_running_loop())
        engine.claims.ask(key, ticket)
        try:
            return await ticket.arrival()
        except asyncio.CancelledError:
            answer = ticket.leave()
            if answer is not None and answer.lease is not None:
                answer.lease.release()
            engine.claims.left(key)
            raise

    def claim_blocking(self, key: str) -> Claimed:
        """Do what ``claim`` does, blocking the calling thread."""
        engine = self._live()
        if engine is None:
            return UNAVAILABLE
        ticket: Ticket[Claimed] = Ticket(None)
        engine.claims.ask(key, ticket)
        return ticket.arrival_blocking()

    def put(
        self, key: str, frame: bytes, *, ttl_s: float | None, tags: Sequence[str] = (), is_announced: bool = False
    ) -> None:
        """Keep ``frame`` in place of what is there; it is written soon, or dropped and the old value with it.

        With ``is_announced`` other processes are told then to drop what they hold of the key.
        """
        self._wake_child()
        self._writer.put(Put(key, frame, checked_ttl_s(ttl_s), tuple(tags), is_announced=is_announced))

    def invalidate(self, invalidation: Invalidation) -> Future[int]:
        """Let nothing that is meant be found any more: here at once, elsewhere as soon as the store has it.

        Returns:
            What will be the number of values that went, once that is known; nobody has to wait for it.
        """
        self._wake_child()
        future: Future[int] = Future()

        def sent(count: int | None) -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(count or 0)

        self._writer.invalidate(invalidation, sent)
        return future

    async def invalidate_now(self, invalidation: Invalidation) -> int | None:
        """Invalidate and return how many values went; ``None`` when the store is down, which it will be told later."""
        future = asyncio.wrap_future(self.invalidate(invalidation))
        while not future.done() and self._health.is_up:
            await asyncio.wait({future}, timeout=_LOOK_S)
        if future.done():
            return future.result()
        future.cancel()  # only the waiting; the invalidation stays queued
        return None

    def get_stats(self) -> dict[str, Any]:
        """Return the tier's figures as plain values."""
        engine = self._engine
        return {
            "address": self._store.address,
            "namespace": self._namespace,
            **self._health.get_stats(),
            **self._writer.get_stats(),
            **(engine.claims.get_stats() if engine is not None else {"leases_held": 0, "lines": 0}),
        }

    async def _begin(self) -> Engine:
        engine = Engine(self._store, self._params, self._health, self._writer, events=self._events, sender=self._sender)
        engine.start(self._position)
        return engine

    def _live(self) -> Engine | None:
        """Return the engine when the store is up."""
        self._wake_child()
        return self._engine if self._health.is_up else None

    def _ask(self, keys: Sequence[str], loop: asyncio.AbstractEventLoop | None) -> list[Ticket[bytes | None] | None]:
        engine = self._live()
        self._health.count("fetches", len(keys))
        tickets: list[Ticket[bytes | None] | None] = [
            None if engine is None or self._writer.blocks(key) else Ticket(loop) for key in keys
        ]
        asked = [(key, ticket) for key, ticket in zip(keys, tickets, strict=True) if ticket is not None]
        if len(asked) < len(keys):
            self._health.count("misses", len(keys) - len(asked))
        if engine is not None and asked:
            engine.reads.ask(*asked)
        return tickets

    def _wake_child(self) -> None:
        if self._is_forked:
            self.start(wait_s=0.0)

    def _forked(self) -> None:
        """In a forked child, before anything else runs there: let go of what is the parent's."""
        if self._engine is not None and self._thread is not None:
            self._position = self._engine.follower.position
            self._thread.disown(self._engine)
        self._lock = threading.Lock()
        self._sender = Sender(secrets.token_hex(8))
        self._health.renew()
        self._writer.renew()
        self._engine = self._thread = None
        self._is_forked = True


def _after_fork_in_child() -> None:
    for tier in list(_started):
        tier._forked()  # noqa: SLF001  # the class's own part of the handler


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
