"""service: what exists while the disk tier is open: its queue, its writer, and reading past what waits in the queue."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from weakref import WeakMethod

from ondol.cache.disk_queue import WriteQueue
from ondol.cache.disk_records import NO_EXPIRY
from ondol.cache.disk_writer import BatchBounds, Complaints, DiskWriter, WriteCounts
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.cache.disk_ports import EntryStore
    from ondol.cache.disk_queue import Waiting
    from ondol.clock import Clock

__all__ = ["DiskLife", "hook_forks"]

_WAITING_ENTRIES: Final = 4096
_MIN_WAITING_BYTES: Final = MIB
_MAX_WAITING_BYTES: Final = 64 * MIB
_BATCH_OPERATIONS: Final = 256
_MIN_BATCH_BYTES: Final = 32 * 1024
_MAX_BATCH_BYTES: Final = 4 * MIB
_BATCH_RATIO: Final = 32
_QUEUE_RATIO: Final = 8


class DiskLife:
    """One time that the tier is open over an open store. The writer works from the beginning.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(
        self,
        store: EntryStore,
        max_bytes: int,
        clock: Clock,
        counts: WriteCounts,
        complaints: Complaints,
        *,
        take_touched: Callable[[], Iterable[str]],
        report: Callable[[], None],
    ) -> None:
        self._get = store.get
        self._store = store
        self._now_s = clock.wall
        self._complaints = complaints
        waiting_bytes = _between(max_bytes // _QUEUE_RATIO, _MIN_WAITING_BYTES, _MAX_WAITING_BYTES)
        self.queue = WriteQueue(_WAITING_ENTRIES, waiting_bytes)
        batch_bytes = _between(max_bytes // _BATCH_RATIO, _MIN_BATCH_BYTES, _MAX_BATCH_BYTES)
        self._writer = DiskWriter(
            *(self.queue, store, BatchBounds(_BATCH_OPERATIONS, batch_bytes), counts, complaints, clock),
            take_touched=take_touched,
            report=report,
        )
        self._writer.start()

    def end(self) -> bool:
        """Write what waits and end the writer; return whether all of it could be written."""
        self.queue.close()
        self._writer.join()
        return self.queue.is_empty

    def read(self, key: str) -> bytes | None:
        """Return what was last put under ``key``, written or not, unless it is over or was invalidated."""
        queue = self.queue
        try:
            waiting = queue.find(key)
            if waiting is not None:
                found = _frame_of(waiting)
            elif queue.is_blocking:
                found = self._found_past_barrier(key)
            else:
                found = self._get(key)
        except Exception as exc:  # noqa: BLE001  # what cannot be read is a miss
            self._complaints.add("reading from the disk tier failed; it counts as a miss", exc)
            return None
        if found is None:
            return None
        frame, expires_at_s = found
        return frame if expires_at_s == NO_EXPIRY or expires_at_s > self._now_s() else None

    def _found_past_barrier(self, key: str) -> tuple[bytes, float] | None:
        """Read an entry unless an invalidation that is not written yet means it."""
        queue = self.queue
        with queue.lock:
            waiting = queue.find(key)
            if waiting is not None:
                return _frame_of(waiting)
            found = self._get(key)
            return None if found is None or queue.stops(key, self._store.tags(key)) else found


def _frame_of(waiting: Waiting) -> tuple[bytes, float] | None:
    put = waiting.put
    return None if put is None else (put.frame, NO_EXPIRY if put.expires_at_s is None else put.expires_at_s)


def hook_forks(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Have these methods called around every fork, as long as their objects live."""
    os.register_at_fork(before=_weakly(before), after_in_parent=_weakly(in_parent), after_in_child=_weakly(in_child))


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls ``method`` as long as its object lives, and does not keep that alive."""
    found = WeakMethod(method)

    def call() -> None:
        bound = found()
        if bound is not None:
            bound()

    return call


def _between(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)
