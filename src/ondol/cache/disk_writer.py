"""service: the one thread that writes to the disk tier's store, and what it counts and complains of."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.cache.disk_ports import EntryStore
    from ondol.cache.disk_queue import Batch, WriteQueue
    from ondol.clock import Clock

__all__ = ["BatchBounds", "Complaints", "DiskWriter", "WriteCounts"]

logger = logging.getLogger("ondol.cache")

TIDY_INTERVAL_S: Final = 5.0
_LOOK_INTERVAL_S: Final = 1.0
"""How often the thread looks whether the program ends without having closed the tier."""
_RETRY_PAUSE_S: Final = 1.0
_COMPLAINT_INTERVAL_S: Final = 60.0


class BatchBounds(NamedTuple):
    """What is written together at most."""

    operations: int
    size_bytes: int


class WriteCounts:
    """What the writers of a tier did, over all of its lives."""

    __slots__ = ("expired", "failed_puts", "repairs", "size", "writes")

    def __init__(self) -> None:
        self.writes = self.failed_puts = self.expired = self.size = self.repairs = 0


class Complaints:
    """Counts failures and logs them with their traceback, at most one a minute.

    Thread-safety: may be used from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._now_s = clock.monotonic
        self._lock = threading.Lock()
        self._next_s: float | None = None
        self._untold = 0
        self.count = 0

    def add(self, sentence: str, exc: BaseException | None = None) -> None:
        """Count a failure and log ``sentence`` with its traceback, unless one was logged within the last minute."""
        with self._lock:
            self.count += 1
            now_s = self._now_s()
            if self._next_s is not None and now_s < self._next_s:
                self._untold += 1
                return
            self._next_s = now_s + _COMPLAINT_INTERVAL_S
            untold, self._untold = self._untold, 0
        more = f" ({untold} more since the last such line)" if untold else ""
        logger.log(logging.WARNING if exc is None else logging.ERROR, "cache: %s%s", sentence, more, exc_info=exc)


class DiskWriter:
    """Takes what waits in the queue and has the store carry it out, a batch in one commit, until the queue closes."""

    def __init__(
        self,
        queue: WriteQueue,
        store: EntryStore,
        bounds: BatchBounds,
        counts: WriteCounts,
        complaints: Complaints,
        clock: Clock,
        *,
        take_touched: Callable[[], Iterable[str]],
        report: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._store = store
        self._bounds = bounds
        self._counts = counts
        self._complaints = complaints
        self._now_s = clock.monotonic
        self._take_touched = take_touched
        self._report = report
        self._thread = threading.Thread(target=self._run, name="ondol cache disk writer")
        self._next_tidy_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._next_tidy_s = self._now_s() + TIDY_INTERVAL_S
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which comes once the queue is closed."""
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._queue.end()

    def _step(self) -> bool:
        """Write one batch or wait for one; return whether to go on."""
        if not threading.main_thread().is_alive():
            self._queue.close()  # the program ends and nobody has closed the tier: what waits is still written
        batch = self._queue.take(*self._bounds, _LOOK_INTERVAL_S, pause_s=_RETRY_PAUSE_S)
        if batch is None:
            if self._queue.is_closing:
                return False
            self._tidy_if_due()
            return True
        return self._write(batch) or not self._queue.is_closing

    def _write(self, batch: Batch) -> bool:
        try:
            self._apply(batch, self._take_touched())
        except Exception as exc:  # noqa: BLE001  # whatever happens to the disk, the program goes on
            self._complaints.add("writing to the disk tier failed; it is tried again", exc)
            try:
                self._apply(batch, ())  # now with the store healed, if that is what it took
            except Exception as again:  # noqa: BLE001  # as above
                self._complaints.add("writing to the disk tier failed; entries are lost", again)
                self._queue.failed(batch)
                return False
        self._queue.done(batch)
        self._tidy_if_due()
        return True

    def _apply(self, batch: Batch | None, touched: Iterable[str]) -> None:
        for note in self._store.heal():
            self._counts.repairs += 1
            logger.warning("cache: %s", note)
        applied = self._store.apply(batch.operations if batch is not None else (), touched)
        counts = self._counts
        counts.expired += applied.expired
        counts.size += applied.evicted
        counts.failed_puts += applied.failed_puts
        counts.writes += (batch.puts if batch is not None else 0) - applied.failed_puts

    def _tidy_if_due(self) -> None:
        now_s = self._now_s()
        if now_s < self._next_tidy_s:
            return
        self._next_tidy_s = now_s + TIDY_INTERVAL_S
        try:
            self._apply(None, self._take_touched())
            self._report()
        except Exception as exc:  # noqa: BLE001  # as in _write
            self._complaints.add("tidying up the disk tier failed; it is tried again", exc)
