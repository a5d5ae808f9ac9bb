"""service: single flight: of all who ask for the same key at the same time, one computes and the others wait.

It works across coroutines, threads and event loops. A computation started by a coroutine runs in a task of its own,
so that no caller's cancellation reaches the others; one started by a thread runs in that thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from contextlib import AbstractContextManager

__all__ = ["STRANDED_CHECK_S", "SingleFlight", "Work"]

T = TypeVar("T")

STRANDED_CHECK_S: Final = 1.0
"""How often a waiter outside the computing loop looks whether that loop still runs."""

_under_way: ContextVar[frozenset[object]] = ContextVar("ondol_cache_under_way", default=frozenset())


def _forget(_result: object) -> None:
    """Do nothing."""


class Work(NamedTuple, Generic[T]):
    """What a flight does: ``compute`` the result, and ``commit`` it unless the flight was detached meanwhile.

    ``recheck`` is asked before a new flight starts, under the lock that commits run under: it closes the gap between
    a caller's own look into the cache and its joining. ``None`` says that there is nothing yet.
    """

    compute: Callable[[], T | Awaitable[T]]
    recheck: Callable[[], T | None]
    commit: Callable[[T], None]
    abandon: Callable[[T], None] = _forget
    """Called in place of ``commit`` with a result that is not to be kept."""
    tags: tuple[str, ...] = ()
    """What the flight can be detached by, besides its key."""


class _Waiter:
    """Wakes one coroutine or thread."""

    __slots__ = ("event", "future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.future = None if loop is None else loop.create_future()
        self.event = threading.Event()

    def wake(self, current: asyncio.AbstractEventLoop | None) -> None:
        if self.loop is None:
            self.event.set()
        elif self.loop is current:
            self._set()
        else:
            _call_in(self.loop, self._set)

    def _set(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class _Flight(Generic[T]):
    """One computation under way and those who wait for it."""

    __slots__ = ("error", "has_landed", "key", "loop", "result", "tags", "task", "token", "traceback", "waiters")

    def __init__(self, key: Hashable, loop: asyncio.AbstractEventLoop | None, tags: tuple[str, ...]) -> None:
        self.key = key
        self.tags = tags
        self.loop = loop  # None: computed by a thread
        self.token = object()  # stands for the flight in contexts, which may outlive it by far
        self.task: asyncio.Task[None] | None = None
        self.waiters: set[_Waiter] = set()
        self.has_landed = False
        self.result: tuple[T] | None = None
        self.error: Exception | None = None
        self.traceback: Any = None

    def is_stranded(self) -> bool:
        """Whether the loop that computes does not run any more, so that waiting may be in vain."""
        return self.loop is not None and not self.has_landed and not self.loop.is_running()

    def outcome(self) -> tuple[T] | None:
        """Return the result as a 1-tuple, or ``None`` when the flight was abandoned.

        Raises:
            Exception: what the computation raised, the same for every waiter.
        """
        if self.error is not None:
            # Each raise would otherwise append its frames to the traceback that all waiters share.
            raise self.error.with_traceback(self.traceback)
        return self.result


class _Seat(NamedTuple, Generic[T]):
    """A caller's place on a flight, or what it found instead of one."""

    flight: _Flight[T] | None = None
    waiter: _Waiter | None = None
    is_leader: bool = False
    found: tuple[T] | None = None


class SingleFlight(Generic[T]):
    """The flights of one cache, by key.

    Thread-safety: every method may be called from any thread, ``run`` in any event loop.
    """

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        """Begin without flights; several that concern the same entries share one ``lock``."""
        self._lock = lock if lock is not None else threading.RLock()
        self.by_key: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        """Return the number of computations under way whose result is still wanted."""
        return len(self.by_key)

    async def run(self, key: Hashable, work: Work[T]) -> tuple[T, bool]:
        """Return the result of ``work`` for ``key``, and whether somebody else computed it.

        A computation that asks for its own key again is not made to wait for itself: it computes.

        Raises:
            Exception: what the computation raised.

        Cancellation: leaves the computation to the others who wait; the last one to leave cancels it. When it is
        cancelled from outside, as when its loop shuts down, those who wait elsewhere start it again.
        """
        loop = asyncio.get_running_loop()
        while True:
            seat = self._board(key, loop, work)
            if seat.found is not None:
                return seat.found[0], True
            if seat.flight is None or seat.waiter is None:
                return await _completed(work.compute), False
            if seat.is_leader:
                self._take_off(seat.flight, loop, work)
            try:
                await _arrival(seat.flight, seat.waiter, loop)
            finally:
                self._leave(seat.flight, seat.waiter)
            outcome = seat.flight.outcome()
            if outcome is not None:
                return outcome[0], not seat.is_leader
            if seat.is_leader:
                raise asyncio.CancelledError(f"the computation of {key!r} was cancelled")

    def run_blocking(self, key: Hashable, work: Work[T]) -> tuple[T, bool]:
        """Do what ``run`` does, in the calling thread; ``work.compute`` must not return an awaitable.

        In a thread whose event loop is running it never waits for a coroutine's computation, which may need that very
        loop to go on: it computes by itself.

        Raises:
            Exception: what the computation raised.
        """
        while True:
            seat = self._board(key, None, work)
            if seat.found is not None:
                return seat.found[0], True
            if seat.flight is None or seat.waiter is None:
                return _plain(work.compute()), False
            if seat.is_leader:
                return self._compute_here(seat.flight, work), False
            try:
                while not seat.waiter.event.wait(STRANDED_CHECK_S) and not seat.flight.is_stranded():
                    pass
            finally:
                self._leave(seat.flight, seat.waiter)
            outcome = seat.flight.outcome()
            if outcome is not None:
                return outcome[0], True

    def start(self, key: Hashable, work: Work[T]) -> bool:
        """Let a task of the running loop compute ``key`` with nobody waiting; return false when that is under way."""
        loop = asyncio.get_running_loop()
        with self._lock:
            flight = self.by_key.get(key)
            if flight is not None and not flight.is_stranded():
                return False
            flight = self.by_key[key] = _Flight(key, loop, work.tags)
        self._take_off(flight, loop, work)
        return True

    def detach(self, key: Hashable) -> None:
        """Let the flight of ``key`` end for those who wait, without commit; who comes later starts a new one."""
        if self.by_key:
            with self._lock:
                self.by_key.pop(key, None)

    def detach_where(self, matches: Callable[[Any], object]) -> None:
        """Detach every flight whose key ``matches``."""
        with self._lock:
            for key in [key for key in self.by_key if matches(key)]:
                del self.by_key[key]

    def discard_lost(self) -> None:
        """Forget flights whose loop was closed under them: nobody brings them to an end."""
        with self._lock:
            for key in [
                key for key, flight in self.by_key.items() if flight.loop is not None and flight.loop.is_closed()
            ]:
                del self.by_key[key]

    def detach_tagged(self, tags: tuple[str, ...]) -> None:
        """Detach every flight that has any of ``tags``."""
        with self._lock:
            for key in [key for key, flight in self.by_key.items() if not set(tags).isdisjoint(flight.tags)]:
                del self.by_key[key]

    def _board(self, key: Hashable, loop: asyncio.AbstractEventLoop | None, work: Work[T]) -> _Seat[T]:
        with self._lock:
            flight = self.by_key.get(key)
            is_leader = flight is None or flight.is_stranded()
            if flight is None or is_leader:
                found = work.recheck()
                if found is not None:
                    return _Seat(found=(found,))
                flight = self.by_key[key] = _Flight(key, loop, work.tags)
            elif flight.token in _under_way.get() or (loop is None and flight.loop is not None and _running_loop()):
                return _Seat()
            waiter = _Waiter(loop)
            flight.waiters.add(waiter)
            return _Seat(flight, waiter, is_leader)

    def _take_off(self, flight: _Flight[T], loop: asyncio.AbstractEventLoop, work: Work[T]) -> None:
        computation = self._fly(flight, work)
        try:
            flight.task = loop.create_task(computation)
        except BaseException:
            computation.close()
            self._land(flight, work)
            raise
        # A task that is cancelled before its first step never runs a line of its coroutine.
        flight.task.add_done_callback(lambda _task: self._land(flight, work))

    async def _fly(self, flight: _Flight[T], work: Work[T]) -> None:
        _under_way.set(_under_way.get() | {flight.token})
        try:
            flight.result = (await _completed(work.compute),)
        except Exception as exc:  # noqa: BLE001  # it is raised by every waiter
            _keep(flight, exc)
        # Not in a finally: what is cancelled or interrupted is landed, as abandoned, when the task is done.
        self._land(flight, work)

    def _compute_here(self, flight: _Flight[T], work: Work[T]) -> T:
        reset = _under_way.set(_under_way.get() | {flight.token})
        try:
            result = _plain(work.compute())
            flight.result = (result,)
            return result
        except Exception as exc:
            _keep(flight, exc)
            raise
        finally:
            _under_way.reset(reset)
            self._land(flight, work)

    def _land(self, flight: _Flight[T], work: Work[T]) -> None:
        """Commit the result if it is still wanted and wake all who wait; only the first call does anything."""
        with self._lock:
            if flight.has_landed:
                return
            flight.has_landed = True
            is_wanted = self.by_key.get(flight.key) is flight
            try:
                if flight.result is not None:
                    (work.commit if is_wanted else work.abandon)(flight.result[0])
            finally:
                if is_wanted:
                    del self.by_key[flight.key]
                waiters, flight.waiters = flight.waiters, set()
                current = _running_loop()
                for waiter in waiters:
                    waiter.wake(current)

    def _leave(self, flight: _Flight[T], waiter: _Waiter) -> None:
        """Stop waiting; a computation that nobody waits for any more is cancelled."""
        with self._lock:
            flight.waiters.discard(waiter)
            if flight.has_landed or flight.waiters:
                return
            if self.by_key.get(flight.key) is flight:
                del self.by_key[flight.key]
        if flight.task is None or flight.loop is None:
            return
        # Not the waiter's loop: a coroutine abandoned with its loop gets here when it is collected, in any thread.
        if flight.loop is _running_loop():
            flight.task.cancel()
        else:
            _call_in(flight.loop, flight.task.cancel)


async def _completed(compute: Callable[[], T | Awaitable[T]]) -> T:
    result = compute()
    if inspect.isawaitable(result):
        return await result
    return result


def _plain(result: T | Awaitable[T]) -> T:
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise TypeError(
        "a synchronous computation returned an awaitable, which can be awaited only once and so not be kept"
    )


async def _arrival(flight: _Flight[Any], waiter: _Waiter, loop: asyncio.AbstractEventLoop) -> None:
    """Wait until the flight has landed, or until its loop, another one than ours, does not run any more."""
    future = waiter.future
    assert future is not None
    if flight.loop is None or flight.loop is loop:
        await future
        return
    while not future.done() and not flight.is_stranded():
        await asyncio.wait({future}, timeout=STRANDED_CHECK_S)


def _keep(flight: _Flight[Any], error: Exception) -> None:
    flight.error, flight.traceback = error, error.__traceback__


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        # The loop was closed: whoever waited or computed there is gone with it.
        return
