"""service: when what use has taught is read, written, and exchanged with other nodes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.clock import SystemClock
from ondol.errors import LifecycleError
from ondol.models.loader import call
from ondol.preload.history_sharing import Sharing, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ondol.clock import Clock
    from ondol.preload.ports import HistoryStore, Kept, Knowledge, KnowledgeExchange

__all__ = ["FLUSH_S", "RETRY_S", "SNAPSHOT_S", "History"]

logger = logging.getLogger("ondol.preload")

FLUSH_S: Final = 2.0
"""A process that is killed loses the uses of so long."""
SNAPSHOT_S: Final = 300.0
RETRY_S: Final = 30.0
"""After a failure nothing is tried for so long; then all of it goes into one snapshot."""
_MOST_WAITING: Final = 100_000
"""Uses between two flushes; of more than these a snapshot is written in place of a record."""
_STOP_S: Final = 10.0


class _Snapshot(NamedTuple):
    """The knowledge as of one moment, to be written."""

    number: int
    plain: dict[str, Any]


class History:
    """Keeps ``knowledge`` in a file, and exchanges it with other nodes. Nothing that fails here reaches a request.

    Time during which no process ran is no gap between uses: ages go on from the last moment that was written. A
    process that finds another one writing keeps nothing itself, and takes over when that one has ended.

    Cancellation: what a thread is writing then is written; nothing older replaces it afterwards.

    Thread-safety: ``used`` under the lock; ``get_stats`` anywhere; the coroutines in one event loop, and after a stop
    or when that loop was closed in another.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        file: HistoryStore | None,
        *,
        clock: Clock | None = None,
        shared: KnowledgeExchange | None = None,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Keep what ``knowledge`` learns; nothing is read or written before ``start``.

        Args:
            knowledge: what was learnt.
            file: where it outlives the process; ``None``: nowhere.
            clock: where time is read; the one whose times ``used`` is given.
            shared: where other nodes find it, and this one finds theirs.
            lock: held while ``knowledge`` is asked or told, and by the caller of ``used``; ``None`` when all of that
                happens in the thread of the event loop.
        """
        self._knowledge = knowledge
        self._file = file
        self._clock = clock if clock is not None else SystemClock()
        self._lock = lock if lock is not None else contextlib.nullcontext()
        self._sharing = None if shared is None else Sharing(knowledge, shared, self._clock, self._lock, self._note_news)
        self._waiting: deque[tuple[str, float]] = deque(maxlen=0 if file is None else _MOST_WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble = Trouble("what was learnt of the use of models cannot be kept")
        self._retry_at_s = float("-inf")
        # In the loop:
        self._is_writer = self._is_told = self._is_due = self._has_news = False
        self._number = 0
        self._base_s = self._noted_s = 0.0
        self._models_read = self._uses_read = self._uses_kept = self._damaged = self._torn = 0
        # In the threads, one at a time:
        self._turn = threading.Lock()
        self._written = 0
        self._generation: str | None = None
        self._has_read = False

    def used(self, name: str, at_s: float) -> None:
        """Take note of one use that ``knowledge`` was told of, without letting go of the lock in between.

        Cost: constant, below a microsecond.
        """
        self._waiting.append((name, at_s))

    async def start(self) -> None:
        """Read what earlier processes learnt, then keep what is learnt until ``stop``; does nothing when started.

        What other nodes know is waited for a second at most; what comes later is taken in then.

        Raises:
            LifecycleError: it runs in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise LifecycleError("the history runs in another event loop: stop it there first")
        self._loop, self._tasks, self._retry_at_s = loop, [], float("-inf")
        try:
            if self._file is not None:
                await self._acquire(is_start=True)
                self._tasks.append(loop.create_task(self._keep(), name="ondol-preload-history"))
            if self._sharing is not None:
                first = loop.create_task(self._sharing.exchange(is_leaving=False), name="ondol-preload-first-exchange")
                self._tasks.append(first)
                self._tasks.append(loop.create_task(self._sharing.go_on(first), name="ondol-preload-exchange"))
                await self._sharing.wait_for(first)
        except BaseException:
            tasks, self._loop, self._tasks = self._tasks, None, []
            for task in tasks:
                task.cancel()
            raise

    async def stop(self) -> None:
        """Write what is not written yet and let another process write. May be called twice, and started again."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._loop is not None and not self._loop.is_closed():
            return
        tasks = self._tasks if self._loop is loop else []  # those of a loop that was closed are gone
        was_started, self._loop, self._tasks = self._loop is not None, None, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._file is not None:
            await self._finish(self._file)
        if self._sharing is not None and was_started:
            await self._sharing.leave_last()

    # The file: read it

    async def _acquire(self, *, is_start: bool = False) -> None:
        try:
            is_writer, kept = await call(self._opened, name="preload-history")
            if kept is not None:
                await self._take(kept, is_start=is_start, is_writer=is_writer)
        except Exception as exc:  # noqa: BLE001  # it is logged there
            self._failed(exc)
            return
        self._is_writer = is_writer
        self._base_s = self._noted_s = self._clock.monotonic()
        self._is_due = True  # a tail belongs to a snapshot of this process
        if not is_writer and not self._is_told:
            self._is_told = True
            logger.info("another process keeps what is learnt of the use of models; this one takes over when it ends")

    def _opened(self) -> tuple[bool, Kept | None]:
        assert self._file is not None
        with self._turn:
            is_writer = self._file.open()
            return is_writer, self._file.read() if is_writer or not self._has_read else None

    async def _take(self, kept: Kept, *, is_start: bool, is_writer: bool) -> None:
        for exc in kept.damage:
            self._note_damage(exc)
        is_first, self._has_read = not self._has_read, True
        if kept.generation is None or kept.generation == self._generation:
            return  # nothing, or what this process wrote or has read itself
        self._generation = kept.generation
        refused = self._told(kept, is_replayed=is_first and is_start)
        if refused is not None:
            self._note_damage(refused)
            if is_writer:
                await call(self._set_aside, name="preload-history")
        if kept.is_torn:
            self._torn += 1
        logger.info("read what was learnt of %d models, and %d uses since", self._models_read, self._uses_read)

    def _told(self, kept: Kept, *, is_replayed: bool) -> Exception | None:
        """Tell the knowledge what was kept; return why it refused the snapshot, if it did."""
        refused: Exception | None = None
        with self._lock:
            now_s = self._clock.monotonic()
            if self._waiting:
                now_s = min(now_s, self._waiting[0][1])  # what was kept happened before the first use of this process
            base_s = now_s - kept.moment_s
            if kept.knowledge is not None:
                try:
                    self._models_read += self._knowledge.take_in(kept.knowledge, base_s)
                except Exception as exc:  # noqa: BLE001  # damaged in a way that the checksum does not know of
                    refused = exc
            for name, since_s in kept.uses if is_replayed else ():
                self._knowledge.replay(name, min(base_s + since_s, now_s))
                self._uses_read += 1
        return refused

    def _set_aside(self) -> None:
        assert self._file is not None
        with self._turn:
            self._file.set_aside()

    def _note_damage(self, exc: Exception) -> None:
        self._damaged += 1
        logger.error("what was learnt of the use of models is damaged; it is set aside", exc_info=exc)

    # The file: write it

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._clock.monotonic() < self._retry_at_s:
                continue
            try:
                await self._flush()
            except Exception as exc:  # noqa: BLE001  # it is logged there
                self._failed(exc)

    async def _flush(self) -> None:
        if not self._is_writer:
            if self._waiting:
                await self._acquire()
            if not self._is_writer:
                self._waiting.clear()  # the knowledge has them
                return
        now_s = self._clock.monotonic()
        is_old = now_s - self._base_s >= SNAPSHOT_S or len(self._waiting) == _MOST_WAITING
        if (self._waiting or self._has_news) and (self._is_due or is_old):
            await self._write()
            return
        # Without uses only the moment is written: for so long nothing was used, and that is known after a crash, too.
        is_any = bool(self._waiting) or (now_s - self._noted_s >= SNAPSHOT_S and self._knows())
        if is_any and (self._is_due or not await self._append()):
            await self._write()

    async def _append(self) -> bool:
        with self._lock:
            uses, moment_s = self._emptied(), self._clock.monotonic()
        self._is_due = True  # until it is certain that the tail ends in a whole record
        self._has_news = self._has_news or bool(uses)
        if not await call(self._put_uses, self._number, self._base_s, uses, moment_s, name="preload-history"):
            return False
        self._went_well(moment_s)
        return True

    async def _write(self) -> None:
        snapshot = self._captured()
        await call(self._put_snapshot, snapshot, name="preload-history")
        self._went_well(self._base_s)

    def _captured(self) -> _Snapshot:
        with self._lock:
            now_s = self._clock.monotonic()
            plain = self._knowledge.to_plain(now_s)
            self._emptied()
        self._number += 1
        self._base_s = now_s
        self._has_news, self._is_due = False, True
        return _Snapshot(self._number, plain)

    def _emptied(self) -> list[tuple[str, float]]:
        uses = list(self._waiting)
        self._waiting.clear()
        self._uses_kept += len(uses)
        return uses

    def _put_uses(self, number: int, base_s: float, uses: Sequence[tuple[str, float]], moment_s: float) -> bool:
        assert self._file is not None
        with self._turn:
            if number != self._written:
                return False
            return self._file.append([(name, at_s - base_s) for name, at_s in uses], moment_s - base_s)

    def _put_snapshot(self, snapshot: _Snapshot) -> None:
        assert self._file is not None
        with self._turn:
            if snapshot.number > self._written:  # otherwise one that was captured later has been faster
                self._generation = self._file.write(snapshot.plain)
                self._written = snapshot.number

    async def _finish(self, file: HistoryStore) -> None:
        """Write what is known, and end with the file in any case."""
        is_writer, self._is_writer = self._is_writer, False
        snapshot = None
        try:
            if is_writer and self._knows():
                snapshot = self._captured()
        except Exception as exc:  # noqa: BLE001  # it is logged there
            self._failed(exc)

        def finish() -> None:
            try:
                if snapshot is not None:
                    self._put_snapshot(snapshot)
            finally:
                with self._turn:
                    file.close()

        try:
            async with asyncio.timeout(_STOP_S):
                await call(finish, name="preload-history")
        except Exception as exc:  # noqa: BLE001  # it is logged there
            self._failed(exc)
        else:
            if snapshot is not None:
                self._went_well(self._base_s)

    def _went_well(self, moment_s: float) -> None:
        self._is_due = False
        self._noted_s = moment_s
        self._trouble.ended()

    def _failed(self, exc: Exception) -> None:
        self._is_due = self._has_news = True
        self._retry_at_s = self._clock.monotonic() + RETRY_S
        self._trouble.began(exc)

    def _knows(self) -> bool:
        """Whether there is anything to be kept."""
        return bool(self._waiting or self._has_news or self._models_read or self._uses_read or self._uses_kept)

    def _note_news(self) -> None:
        self._has_news = True

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain values.

        ``models_read`` and ``uses_read`` are what earlier processes knew, ``uses_kept`` what went into the file since,
        ``uses_waiting`` what a kill would lose now.
        """
        return {
            "is_kept": self._is_writer,
            "models_read": self._models_read,
            "uses_read": self._uses_read,
            "uses_kept": self._uses_kept,
            "uses_waiting": len(self._waiting),
            "snapshots": self._written,
            "failures": self._trouble.count,
            "is_failing": self._trouble.is_on,
            "damaged": self._damaged,
            "torn": self._torn,
            "shared": None if self._sharing is None else self._sharing.get_stats(),
        }
