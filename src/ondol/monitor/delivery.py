"""service: brings one notifier its notices: own queue, own task, so that it never delays another."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.monitor.grouping import NoticeBook
from ondol.monitor.loops import cancel_elsewhere
from ondol.monitor.notice_ports import NoticeRejectedError, backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent
    from ondol.monitor.notice import Notice
    from ondol.monitor.notice_ports import Notifier
    from ondol.monitor.targets import Grouping

__all__ = ["Delivery", "Surroundings"]

logger = logging.getLogger("ondol.monitor")

MAX_QUEUED: Final = 100
SILENCE_CHECK_S: Final = 10.0
"""A silence ends by itself: what it holds back is looked at so often."""
AFTER_FAULT_S: Final = 5.0
ABANDON_S: Final = 1.0
"""How long a cancelled notifier may take to end before it is left alone."""

NEVER_ARRIVED: Final = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)


class Surroundings(NamedTuple):
    """What all deliveries share."""

    grouping: Grouping
    clock: Clock
    random: Random
    is_silenced: Callable[[Mapping[str, str]], bool]
    """Never raises."""
    record: Callable[[str, str], None]
    """Counts a notice by notifier and outcome; never raises."""


class _Failure(NamedTuple):
    text: str
    is_permanent: bool = False
    is_doubtful: bool = True
    """The receiver may have got the notice."""
    retry_after_s: float | None = None


class Delivery:
    """Tells one notifier what is due and tries again what failed. ``take`` and ``get_stats`` are thread-safe."""

    def __init__(self, notifier: Notifier, surroundings: Surroundings) -> None:
        """Begin with nothing told; no task runs before :meth:`start`."""
        self.name = notifier.name
        self.notifier = notifier
        self._around = surroundings
        self._clock = surroundings.clock
        self._lock = threading.Lock()
        self._book = NoticeBook(surroundings.grouping, sends_resolved=notifier.terms.sends_resolved, max_due=MAX_QUEUED)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._counts = {"sent": 0, "failed": 0, "retries": 0, "dropped": 0, "faults": 0}
        self._last_error: str | None = None
        self._last_success_at: float | None = None

    def take(self, event: AlertEvent, *, is_silenced: bool) -> None:
        """Learn of a transition, in any thread."""
        with self._lock:
            self._book.take(event, is_silenced=is_silenced, now_s=self._clock.monotonic())
        self.wake()

    def regroup(self, grouping: Grouping) -> None:
        """Group by other terms from now on, in any thread; what was told stays known."""
        with self._lock:
            self._around = self._around._replace(grouping=grouping)
            self._book.regroup(grouping, self._clock.monotonic())
        self.wake()

    def wake(self) -> None:
        """Look again at what is due, in any thread; does nothing while no loop runs it."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._woken.set)
            except RuntimeError:  # the loop was closed without stop(): the next start() looks
                self._loop = None

    def get_stats(self) -> dict[str, Any]:
        """Return the counts and the last outcome as plain values; ``last_error`` is ``None`` after a success."""
        with self._lock:
            queued = len(self._book.due(self._clock.monotonic()))
            return {
                **self._counts,
                "queued": queued,
                "last_error": self._last_error,
                "last_success_at": self._last_success_at,
            }

    def start(self) -> None:
        """Begin to deliver in the running loop; nothing happens if that is so already."""
        loop = asyncio.get_running_loop()
        if self._task is not None and self._loop is loop and not self._task.done():
            return
        cancel_elsewhere(self._task)
        # Made anew: an event belongs to the loop in which somebody waited for it.
        self._woken = asyncio.Event()
        self._is_stopping = False
        with self._lock:
            self._book.relax(self._clock.monotonic())
        self._loop = loop
        self._task = loop.create_task(self._run(), name=f"ondol-notices-{self.name}")

    async def stop(self, grace_s: float) -> list[str]:
        """Deliver what has not been told, for at most ``grace_s``; return the keys of the groups that were not.

        Cancellation: the delivery ends at once.
        """
        task, loop = self._task, self._loop
        if task is None or loop is not asyncio.get_running_loop():
            self._task = self._loop = None
            cancel_elsewhere(task)
            return []
        self._hurry()
        try:
            await asyncio.wait({task}, timeout=grace_s)
        finally:
            task.cancel()
            self._task = self._loop = None
            await asyncio.wait({task}, timeout=ABANDON_S)
        with self._lock:
            return self._book.untold()

    def _hurry(self) -> None:
        self._is_stopping = True
        with self._lock:
            self._book.hurry(self._clock.monotonic())
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
                return
            except Exception:
                self._counts["faults"] += 1
                logger.exception("telling the notifier %r of alerts failed; it goes on", self.name)
                await asyncio.sleep(AFTER_FAULT_S)

    async def _work(self) -> None:
        while True:
            self._woken.clear()
            key = self._next_key()
            if key is not None:
                await self._deliver(key)
            elif self._is_stopping:
                return
            else:
                await self._wait(self._idle_s())

    def _next_key(self) -> str | None:
        self._ask_silences()
        now_s = self._clock.monotonic()
        with self._lock:
            dropped = self._book.drop_overflow(now_s)
            due = self._book.due(now_s)
        if dropped:
            self._count_dropped(len(dropped))
        return due[0] if due else None

    def _ask_silences(self) -> None:
        with self._lock:
            firing = self._book.firing()
        silenced = {fingerprint: self._around.is_silenced(labels) for fingerprint, labels in firing}
        with self._lock:
            self._book.settle(silenced, self._clock.monotonic())

    def _count_dropped(self, count: int) -> None:
        self._counts["dropped"] += count
        logger.warning(
            "notifier %r: %d notices dropped, the oldest of more than %d that waited; their alerts are told later",
            self.name,
            count,
            MAX_QUEUED,
        )
        for _ in range(count):
            self._around.record(self.name, "dropped")

    def _idle_s(self) -> float | None:
        with self._lock:
            due_at_s = self._book.next_due_at_s()
            has_held = self._book.has_held()
        idle_s = None if due_at_s is None else max(0.0, due_at_s - self._clock.monotonic())
        if has_held:
            return SILENCE_CHECK_S if idle_s is None else min(idle_s, SILENCE_CHECK_S)
        return idle_s

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _deliver(self, key: str) -> None:
        """Try until the group's news are told, nothing of it is news any more, or it is no use to go on."""
        give_up_at_s = self._clock.monotonic() + self.notifier.terms.retry_for_s
        attempt = 0
        while (notice := self._compose(key)) is not None:
            failure = await self._attempt(notice)
            if failure is None:
                self._note_sent()
                return
            delay_s = backoff_s(attempt, self._around.random.random(), failure.retry_after_s)
            if failure.is_permanent or self._clock.monotonic() + delay_s >= give_up_at_s:
                self._give_up(key, failure)
                return
            attempt += 1
            self._counts["retries"] += 1
            logger.info("notifier %r: %s; tried again in %.1f s", self.name, failure.text, delay_s)
            await self._pause(delay_s)

    def _compose(self, key: str) -> Notice | None:
        self._ask_silences()
        now_s = self._clock.monotonic()
        with self._lock:
            return self._book.compose(key, now_s) if self._book.is_due(key, now_s) else None

    async def _attempt(self, notice: Notice) -> _Failure | None:
        try:
            failure = await self._send(notice)
        except asyncio.CancelledError:
            with self._lock:
                self._book.missed(notice, self._clock.monotonic(), is_doubtful=True)
            raise
        with self._lock:
            now_s = self._clock.monotonic()
            if failure is None:
                self._book.delivered(notice, now_s)
            else:
                self._book.missed(notice, now_s, is_doubtful=failure.is_doubtful)
            self._last_error = None if failure is None else failure.text
        return failure

    async def _send(self, notice: Notice) -> _Failure | None:
        timeout_s = self.notifier.terms.timeout_s
        timeout = asyncio.timeout(timeout_s)
        try:
            async with timeout:
                await self.notifier.send(notice)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _Failure("the attempt was cancelled, by nobody here")
        except Exception as exc:
            if not isinstance(exc, (NoticeRejectedError, OSError)):
                self._counts["faults"] += 1
                logger.exception("the notifier %r failed in an unforeseen way", self.name)
            return _Failure(f"no answer within {timeout_s:g} s") if timeout.expired() else _explain(exc)
        return None

    def _note_sent(self) -> None:
        self._counts["sent"] += 1
        self._last_success_at = self._clock.wall()
        self._around.record(self.name, "sent")

    def _give_up(self, key: str, failure: _Failure) -> None:
        """Leave the notice; unless the receiver will not have it, its group is tried again after an interval."""
        again_in_s = None
        if not failure.is_permanent:
            again_in_s = max(self._around.grouping.interval_s, failure.retry_after_s or 0.0, backoff_s(99, 1.0))
        with self._lock:
            self._book.put_off(key, self._clock.monotonic(), again_in_s=again_in_s)
        self._counts["failed"] += 1
        self._around.record(self.name, "failed")
        when = "when the group changes" if again_in_s is None else f"in {again_in_s:g} s if it is still news"
        logger.error("notifier %r: notice of %s not delivered: %s; next try %s", self.name, key, failure.text, when)

    async def _pause(self, seconds: float) -> None:
        """Wait out a backoff; events only change what is told after it, but a stop ends it."""
        until_s = self._clock.monotonic() + seconds
        was_stopping = self._is_stopping
        while self._is_stopping == was_stopping and (left_s := until_s - self._clock.monotonic()) > 0:
            self._woken.clear()
            await self._wait(left_s)


def _explain(exc: Exception) -> _Failure:
    if isinstance(exc, NoticeRejectedError):
        return _Failure(str(exc), exc.is_permanent, is_doubtful=False, retry_after_s=exc.retry_after_s)
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return _Failure(text, is_doubtful=not isinstance(exc, NEVER_ARRIVED))
