"""service: of all processes that want the same value, one computes it: leases asked for, waited for and kept alive.

In each process the callers of one key stand in one line, which asks the store on behalf of all of them. The first is
handed the lease when it is granted; the others get the value once it has been stored, or the lease after the first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.ports import Claim, ClaimRequest, Put, StoreFaultError
from ondol.cache.shared.batcher import Batcher
from ondol.cache.shared.inbox import Inbox
from ondol.cache.shared.leases import UNAVAILABLE, Claimed, Lease
from ondol.cache.shared.line import Held, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ondol.cache.ports import Invalidation, SharedStore
    from ondol.cache.shared.health import Health
    from ondol.cache.shared.params import SharedParams
    from ondol.cache.shared.ticket import Ticket
    from ondol.cache.shared.writer import Writer

__all__ = ["Claims"]

_FIRST_POLL_S: Final = 0.025
_AFTER_LEASE_S: Final = 0.002
"""A lease that has run out is asked for this much later: the store's clock counts whole milliseconds."""
_BEATS_A_LEASE: Final = 3


class Claims:
    """Everything under way about leases in this process.

    Thread-safety: ``ask`` may be called from any thread, the rest in the tier's loop.

    Source: the lease that a miss brings, and its invalidation by a delete, are those of Nishtala et al., Scaling
    Memcache at Facebook (NSDI'13), section 3.2.1. Ours is extended while its holder lives, waiters are woken instead of
    told to come again, and a commit is fenced by the lease's token, as M. Kleppmann asks for (How to do distributed
    locking, 2016), with the store itself as the resource that checks it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: SharedStore,
        writer: Writer,
        health: Health,
        params: SharedParams,
        *,
        new_token: Callable[[], str],
    ) -> None:
        self._loop = loop
        self._store = store
        self._writer = writer
        self._health = health
        self._params = params
        self._new_token = new_token
        self._lines: dict[str, Line] = {}
        self._held: dict[str, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._beat_now = asyncio.Event()
        self._is_stopping = False
        self._inbox: Inbox[tuple[str, Ticket[Claimed]]] = Inbox(loop, self._board, _turn_away)
        self._batcher: Batcher[tuple[ClaimRequest, asyncio.Future[Claim | None]]] = Batcher(
            self._send, max_items=params.read_batch, max_under_way=params.reads_under_way
        )

    def ask(self, key: str, ticket: Ticket[Claimed]) -> None:
        """Answer ``ticket`` with the value under ``key``, the lease to compute it, or neither."""
        self._inbox.post((key, ticket))

    def left(self, key: str) -> None:
        """Take note that a caller has gone away, from any thread."""
        _call(self._loop, self.wake, key)

    def wake(self, key: str) -> None:
        """Let those who wait for ``key`` ask again."""
        line = self._lines.get(key)
        if line is not None:
            line.woken.set()

    def invalidated(self, invalidation: Invalidation) -> None:
        """Find out which leases are gone, and let those who waited for their values ask again."""
        if invalidation.kind == "keys":
            for key in invalidation.values:
                self.wake(key)
            if not any(key in self._lines for key in invalidation.values):
                return
        else:
            self._wake_all()
        if self._held:
            self._beat_now.set()

    def went_down(self) -> None:
        """Let nobody wait for a store that is down."""
        for line in self._lines.values():
            line.answer_all(UNAVAILABLE)
        self._wake_all()

    async def run(self) -> None:
        """Keep the leases of this process alive, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._params.lease_s / _BEATS_A_LEASE):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()
            if self._held:
                await self._extend(list(self._held.values()))

    async def stop(self) -> None:
        """Take no claims any more and give the leases back, those too that are being granted this moment."""
        self._is_stopping = True
        self._inbox.close()
        self.went_down()
        for held in list(self._held.values()):
            self._give_back(held)
        while tasks := self._tasks | self._releases:
            await asyncio.wait(tasks)

    async def abandon(self) -> None:
        """Answer everybody with "unavailable" and forget everything."""
        self._is_stopping = True
        self._inbox.close()
        for line in list(self._lines.values()):
            line.answer_all(UNAVAILABLE)
        for task in (tasks := self._tasks | self._releases):
            task.cancel()
        for _request, future in await self._batcher.stop():
            future.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def commit(self, held: Held, put: Put, done: Callable[[bool], None]) -> None:
        """Store the value that was computed under a lease; from any thread."""

        def committed(result: bool | None) -> None:
            done(bool(result))
            _call(self._loop, self._committed, held, put.frame if result else None, result)

        self._writer.put(put, committed)

    def give_back(self, held: Held) -> None:
        """End a lease without a value; from any thread."""
        _call(self._loop, self._give_back, held)

    def get_stats(self) -> dict[str, Any]:
        """Return how many leases are held, and how many keys are claimed, at the moment."""
        return {"leases_held": len(self._held), "lines": len(self._lines)}

    def _board(self, asked: list[tuple[str, Ticket[Claimed]]]) -> None:
        self._health.count("claims", len(asked))
        for key, ticket in asked:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = Line(key)
                self._spawn(self._drive(line), self._tasks)
            line.join(ticket)

    async def _drive(self, line: Line) -> None:
        poll_s, has_waited = _FIRST_POLL_S, False
        try:
            while line.has_callers():
                line.woken.clear()
                mark = line.arrivals
                claim = await self._claim(line.key, token := self._new_token())
                if claim is None:
                    line.answer_all(UNAVAILABLE)
                elif claim.is_granted:
                    self._health.count("lease_takeovers", int(has_waited))
                    held = Held(self, line, token, claim.stamp, self._loop)
                    frame = await self._hand_over(line, held)
                    if frame is not None:
                        line.answer_until(held.mark, Claimed(frame))
                    poll_s = _FIRST_POLL_S
                elif claim.frame is not None:
                    line.answer_until(mark, Claimed(claim.frame))
                else:
                    self._health.count("lease_waits", int(not has_waited))
                    has_waited = True
                    await line.wait(min(poll_s, claim.wait_s + _AFTER_LEASE_S))
                    poll_s = min(2 * poll_s, self._params.wake_poll_s)
        finally:
            del self._lines[line.key]
            line.answer_all(UNAVAILABLE)

    async def _claim(self, key: str, token: str) -> Claim | None:
        if not self._health.is_up or not await self._writer.unblocked(key):
            return None
        future: asyncio.Future[Claim | None] = self._loop.create_future()
        self._batcher.add((ClaimRequest(key, token), future))
        self._loop.call_soon(self._batcher.flush)
        return await future

    async def _send(self, batch: list[tuple[ClaimRequest, asyncio.Future[Claim | None]]]) -> None:
        claims: list[Claim | StoreFaultError] | None = None
        try:
            if self._health.is_up:
                requests = [request for request, _future in batch]
                claims = await self._health.attempt(
                    "claim", lambda: self._store.claim_many(requests, self._params.lease_s)
                )
        finally:
            answers: list[Claim | StoreFaultError | None] = [None] * len(batch) if claims is None else [*claims]
            for (request, future), claim in zip(batch, answers, strict=True):
                if isinstance(claim, StoreFaultError):
                    self._health.item_failed("claim", claim)
                if not isinstance(claim, Claim):
                    self._forget(request)
                if not future.done():
                    future.set_result(claim if isinstance(claim, Claim) else None)

    def _forget(self, request: ClaimRequest) -> None:
        """The lease may have been granted without our learning of it: nobody is to wait for it in vain."""
        if self._health.is_up and not self._is_stopping:
            release = self._health.attempt("release", lambda: self._store.release(request.key, request.token))
            self._spawn(release, self._releases)

    async def _hand_over(self, line: Line, held: Held) -> bytes | None:
        """Hand the lease to the first in the line and wait until it ends; return the value that was stored."""
        self._health.count("leases_granted")
        self._held[held.token] = held
        ticket = line.next_caller()
        if ticket is None or not self._health.is_up:
            if ticket is not None:
                ticket.settle(UNAVAILABLE)
            self._give_back(held)
        else:
            ticket.settle(Claimed(lease=Lease(held)))
        del ticket  # a lease that its caller forgets is given back: nothing here may hold it
        return await held.ended

    async def _extend(self, held: list[Held]) -> None:
        now_s = self._loop.time()
        kept = [one for one in held if now_s - one.since_s < self._params.max_hold_s]
        results: list[bool | StoreFaultError] | None = None
        if kept and self._health.is_up:
            requests = [ClaimRequest(one.key, one.token) for one in kept]
            results = await self._health.attempt(
                "extend", lambda: self._store.extend_many(requests, self._params.lease_s)
            )
        for one, result in zip(kept, results or (), strict=bool(results)):
            if result is True:
                one.extended_at_s = now_s
            elif result is False:
                self._lose(one)
        for one in held:  # not extended in time, or not any more: nobody here is to wait for it, either
            if self._loop.time() - one.extended_at_s >= self._params.lease_s:
                self._lose(one)

    def _lose(self, held: Held) -> None:
        if not held.ended.done():
            self._health.count("leases_lost")
            self._end(held, None)

    def _committed(self, held: Held, frame: bytes | None, result: bool | None) -> None:
        if result is None:
            self._give_back(held)  # the store may have it, or not: the lease must not outlive it
        else:
            self._end(held, frame)

    def _give_back(self, held: Held) -> None:
        if held.ended.done():
            return
        if self._health.is_up:
            self._spawn(self._release(held), self._releases)
        else:
            self._end(held, None)

    async def _release(self, held: Held) -> None:
        await self._health.attempt("release", lambda: self._store.release(held.key, held.token))
        self._end(held, None)

    def _end(self, held: Held, frame: bytes | None) -> None:
        self._held.pop(held.token, None)
        if not held.ended.done():
            held.ended.set_result(frame)

    def _wake_all(self) -> None:
        for line in self._lines.values():
            line.woken.set()

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work, name="ondol shared claim")
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return  # the loop is closed: the lease runs out by itself


def _turn_away(asked: tuple[str, Ticket[Claimed]]) -> None:
    asked[1].settle(UNAVAILABLE)
