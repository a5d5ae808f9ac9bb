"""service: writes and invalidations that wait for the disk: visible at once, carried out in order, bounded."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.cache.disk_keys import Barrier
from ondol.cache.disk_ports import Put, Remember
from ondol.cache.ports import Invalidation

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Batch", "Waiting", "WriteQueue"]

_KEYS_PER_OPERATION: Final = 64
_OPERATIONS_PER_PUT: Final = 4
"""So many operations may wait for each entry that may; beyond that everything is invalidated in place of them."""
_ALL: Final = Invalidation("all")


class Waiting(NamedTuple):
    """What was last asked for a key: the entry that is to be written, or ``None`` when it is to go."""

    number: int
    put: Put | None


class Batch(NamedTuple):
    """Operations to be carried out together, each with its number."""

    items: tuple[tuple[int, Put | Invalidation | Remember], ...]
    last_number: int

    @property
    def operations(self) -> list[Put | Invalidation | Remember]:
        """The operations alone."""
        return [operation for _, operation in self.items]

    @property
    def puts(self) -> int:
        """How many of them write an entry."""
        return sum(isinstance(operation, Put) for _, operation in self.items)


class WriteQueue:
    """What waits to be written, at most ``max_entries`` entries in ``max_bytes`` of frames.

    An entry for which there is no room is not kept, but what was there before it is still taken away: an old value
    never outlives a newer one. Only what is newest for a key is written at all.

    Thread-safety: every method may be called from any thread. ``find`` and ``is_blocking`` take no lock; who finds
    ``is_blocking`` true holds ``lock`` from before the store is read until ``stops`` has been asked.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._latest: dict[str, Waiting] = {}
        self._operations: deque[tuple[int, str | Invalidation | Remember | None]] = deque()
        self._barrier = Barrier()
        self._number = 0
        self._tried = 0
        self._entries = 0
        self._bytes = 0
        self._attempts = 0
        self._is_closing = self._is_ended = False
        self._is_urgent = False
        self._is_failing = False
        self.is_blocking = False
        self.dropped = 0

    @property
    def entries(self) -> int:
        """How many entries wait to be written."""
        return self._entries

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_failing

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._operations

    def find(self, key: str) -> Waiting | None:
        """Return what was last asked for ``key``, if that is not carried out yet."""
        return self._latest.get(key)

    def stops(self, key: str, tags: tuple[bytes, ...]) -> bool:
        """Whether an entry that was read from the store is meant by an invalidation that is not carried out yet."""
        return self._barrier.stops(key, tags)

    def put(self, put: Put, *, is_wanted: bool = True) -> bool:
        """Let an entry wait to be written; return whether there was room. Unless ``is_wanted`` there is none."""
        size_bytes = len(put.frame)
        with self._changed:
            old = self._latest.get(put.key)
            is_more, old_bytes = (1, 0) if old is None or old.put is None else (0, len(old.put.frame))
            has_room = self._entries + is_more <= self._max_entries
            if not is_wanted or not has_room or self._bytes - old_bytes + size_bytes > self._max_bytes:
                self.dropped += 1
                self._append_keys((put.key,))
                return False
            number = self._append(put.key)
            self._release(put.key)
            self._latest[put.key] = Waiting(number, put)
            self._entries += 1
            self._bytes += size_bytes
            return True

    def invalidate(self, invalidation: Invalidation) -> None:
        """Let an invalidation wait; entries that wait themselves are taken away at once."""
        with self._changed:
            if invalidation.kind == "keys":
                self._append_keys(invalidation.values)
            elif invalidation.kind == "all":
                self._raise_barrier(invalidation)
                self._latest.clear()
                self._entries = self._bytes = 0
            else:
                means = Barrier()
                means.add(invalidation, 0)
                for value in invalidation.values:
                    self._raise_barrier(Invalidation(invalidation.kind, (value,)))
                # The store may hold an older entry of such a key that the invalidation does not mean: it goes too.
                latest = self._latest.items()
                self._append_keys([key for key, (_, put) in latest if put is not None and means.stops(key, put.tags)])

    def _raise_barrier(self, invalidation: Invalidation) -> None:
        self._barrier.add(invalidation, self._append(invalidation))
        self.is_blocking = True

    def remember(self, keys: tuple[str, ...]) -> None:
        """Let the keys to be remembered wait."""
        with self._changed:
            self._append(Remember(keys))

    def _append(self, operation: str | Invalidation | Remember | None) -> int:
        if len(self._operations) >= _OPERATIONS_PER_PUT * self._max_entries:
            self._collapse()
        self._number += 1
        self._operations.append((self._number, operation))
        self._changed.notify_all()
        return self._number

    def _append_keys(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        for start in range(0, len(keys), _KEYS_PER_OPERATION):
            part = tuple(keys[start : start + _KEYS_PER_OPERATION])
            number = self._append(Invalidation("keys", part))
            for key in part:
                self._release(key)
                self._latest[key] = Waiting(number, None)

    def _collapse(self) -> None:
        """Give up everything that waits: simpler than to remember too much, and as safe."""
        self.dropped += self._entries
        self._operations.clear()
        self.invalidate(_ALL)

    def _release(self, key: str) -> None:
        waiting = self._latest.get(key)
        if waiting is not None and waiting.put is not None:
            self._entries -= 1
            self._bytes -= len(waiting.put.frame)

    def take(self, max_operations: int, max_bytes: int, timeout_s: float, *, pause_s: float = 0.0) -> Batch | None:
        """Wait for operations, at most ``timeout_s``, and return the next ones; ``None`` when there are none.

        Args:
            max_operations: how many at most.
            max_bytes: of frames, at most; one larger frame comes alone.
            timeout_s: how long to wait.
            pause_s: how long to let operations wait after a failure, unless somebody is in a hurry.
        """
        with self._changed:
            if self._is_failing and pause_s:
                self._changed.wait_for(lambda: self._is_urgent or self._is_closing, pause_s)
            self._changed.wait_for(lambda: self._operations or self._is_closing, timeout_s)
            if not self._operations:
                return None
            return self._taken(max_operations, max_bytes)

    def _taken(self, max_operations: int, max_bytes: int) -> Batch:
        items: list[tuple[int, Put | Invalidation | Remember]] = []
        last_number = size_bytes = 0
        while self._operations and len(items) < max_operations and size_bytes < max_bytes:
            last_number, operation = self._operations.popleft()
            if isinstance(operation, str):
                waiting = self._latest.get(operation)
                if waiting is not None and waiting.number == last_number and waiting.put is not None:
                    items.append((last_number, waiting.put))
                    size_bytes += len(waiting.put.frame)
            elif operation is not None:
                items.append((last_number, operation))
        return Batch(tuple(items), last_number)

    def done(self, batch: Batch) -> None:
        """Forget the operations of ``batch``: the store shows them now."""
        with self._changed:
            self._barrier.lower(batch.last_number)
            self.is_blocking = len(self._barrier) > 0
            for number, operation in batch.items:
                for key in _keys_of(operation):
                    waiting = self._latest.get(key)
                    if waiting is not None and waiting.number == number:
                        self._release(key)
                        del self._latest[key]
            self._attempted(batch, is_failing=False)

    def failed(self, batch: Batch) -> None:
        """Take back the operations of ``batch``, which the store could not carry out.

        Its entries are given up, and what was there before them is to go, now without an order among them.
        """
        with self._changed:
            gone: list[tuple[int, str]] = []
            kept: list[tuple[int, Invalidation]] = []
            for number, operation in batch.items:
                if isinstance(operation, Put) or (isinstance(operation, Invalidation) and operation.kind == "keys"):
                    gone += [(number, key) for key in _keys_of(operation) if self._is_latest(key, number)]
                elif isinstance(operation, Invalidation):
                    kept.append((number, operation))
            for number, key in gone:
                waiting = self._latest[key]
                self.dropped += waiting.put is not None
                self._release(key)
                self._latest[key] = Waiting(number, None)
            for number, key in reversed(gone):
                self._operations.appendleft((number, Invalidation("keys", (key,))))
            self._operations.extendleft(reversed(kept))
            self._attempted(batch, is_failing=True)

    def _is_latest(self, key: str, number: int) -> bool:
        waiting = self._latest.get(key)
        return waiting is not None and waiting.number == number

    def _attempted(self, batch: Batch, *, is_failing: bool) -> None:
        self._tried = max(self._tried, batch.last_number)
        self._attempts += 1
        self._is_failing = is_failing
        self._is_urgent = self._is_urgent and not is_failing and bool(self._operations)
        self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that was asked for so far has been tried; return whether it has been written."""
        with self._changed:
            target, attempts = self._append(None), self._attempts
            self._is_urgent = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._tried >= target or self._is_ended or (self._is_failing and self._attempts > attempts),
                timeout_s,
            )
            return self._tried >= target and not self._is_failing

    def close(self) -> None:
        """Have what is there taken without waiting, and then no more."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody wait for anything to be written: nothing will be."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    @property
    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._is_closing


def _keys_of(operation: Put | Invalidation | Remember) -> tuple[str, ...]:
    if isinstance(operation, Put):
        return (operation.key,)
    if isinstance(operation, Invalidation) and operation.kind == "keys":
        return operation.values
    return ()
