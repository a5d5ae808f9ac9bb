"""decision: what waits to be written to the shared store, in order, and what must not be read before it is.

A value that cannot be written (the store is down, the queue is full) still ends the use of the older value that the
store may hold: its key is invalidated instead. Invalidations are never dropped; too many become one of everything.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.cache.glob import Glob
from ondol.cache.keys import key_text
from ondol.cache.ports import Invalidation, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.cache.shared.params import SharedParams

    Receipt = Callable[[Any], None]

__all__ = ["Outbox", "Outgoing"]

_PUTS_A_BATCH: Final = 128
_BYTES_A_BATCH: Final = 1024 * 1024
_CALLS_A_BATCH: Final = 16
_MERGED_KEYS: Final = 1000


class Outgoing(NamedTuple):
    """One value or one invalidation on its way; its receipt is told what came of it, ``None`` when nothing did."""

    what: Put | Invalidation
    receipt: Receipt | None = None


class Outbox:
    """A bounded queue; ``due`` collects receipts and what they are to be told, by whoever holds no lock then.

    Thread-safety: none; the writer guards it by a lock.
    """

    def __init__(self, params: SharedParams) -> None:
        self._params = params
        self._waiting: deque[Outgoing] = deque()
        self._under_way: list[Outgoing] = []
        self._puts = self._bytes = self._values = 0
        self._keys: Counter[str] = Counter()
        self._globs: dict[str, list[Any]] = {}
        self._wide = 0
        self.dropped_puts = 0
        self.overflows = 0
        self.due: list[tuple[Receipt, Any]] = []

    def __len__(self) -> int:
        """Return how many values and invalidations have not been written yet."""
        return len(self._waiting) + len(self._under_way)

    @property
    def invalidations(self) -> int:
        """How many keys, tags and globs wait to be invalidated."""
        return self._values

    def blocks(self, key: str) -> bool:
        """Tell whether what the store has under ``key`` may be older than what has been put here."""
        if not self._waiting and not self._under_way:
            return False
        if self._wide or key in self._keys:
            return True
        return bool(self._globs) and any(glob.matches(key_text(key)) for glob, _count in self._globs.values())

    def put(self, put: Put, receipt: Receipt | None, *, is_up: bool) -> bool:
        """Queue a value; return false when it was dropped."""
        is_full = self._puts >= self._params.queue_puts or self._bytes + len(put.frame) > self._params.queue_bytes
        if is_up and not is_full:
            self._append(Outgoing(put, receipt))
            return True
        self._drop(put, receipt)
        return False

    def invalidate(self, invalidation: Invalidation, receipt: Receipt | None = None) -> None:
        """Queue an invalidation behind everything put before it."""
        if invalidation.kind == "all" or self._values + _values_of(invalidation) > self._params.queue_values:
            self.overflows += invalidation.kind != "all"
            self._collapse(receipt)
        else:
            self._append(Outgoing(invalidation, receipt))

    def drop_puts(self) -> None:
        """The store went down: drop all values, keep all invalidations."""
        waiting = list(self._waiting)
        while self._waiting:
            self._mask(self._waiting.popleft(), -1)
        for what, receipt in waiting:
            if isinstance(what, Put):
                self._drop(what, receipt)
            else:
                self.invalidate(what, receipt)

    def drop_overtaken(self, meant: Callable[[Put], bool], keys: Iterable[str] | None = None) -> None:
        """Drop values put here, without a lease, before somebody else invalidated them: they would come too late.

        ``keys`` are all that can be meant, where that is known.
        """
        if not self._puts or (keys is not None and not any(key in self._keys for key in keys)):
            return
        waiting = list(self._waiting)
        while self._waiting:
            self._mask(self._waiting.popleft(), -1)
        for outgoing in waiting:
            what = outgoing.what
            if isinstance(what, Put) and what.token is None and meant(what):
                self._drop(what, outgoing.receipt)
            else:
                self._append(outgoing)
        for outgoing in self._under_way:
            if isinstance(outgoing.what, Put) and outgoing.what.token is None and meant(outgoing.what):
                self.invalidate(Invalidation("keys", (outgoing.what.key,)))

    def take(self) -> list[Outgoing]:
        """Return what is to be written next: values for different keys, or invalidations in any order.

        ``done`` or ``failed`` has to follow before the next call.
        """
        batch, used_bytes, keys = self._under_way, 0, set[str]()
        while (self._waiting and not batch) or self._fits(batch, used_bytes, keys):
            outgoing = self._waiting.popleft()
            batch.append(outgoing)
            if isinstance(outgoing.what, Put):
                used_bytes += len(outgoing.what.frame)
                keys.add(outgoing.what.key)
        return list(batch)

    def done(self, results: Iterable[Any]) -> None:
        """Take note of what came of each of the values and invalidations taken."""
        for outgoing, result in zip(self._under_way, results, strict=True):
            self._mask(outgoing, -1)
            if outgoing.receipt is not None:
                self.due.append((outgoing.receipt, result))
            if result is None and isinstance(outgoing.what, Put):
                self._drop(outgoing.what, None)
        self._under_way.clear()

    def failed(self) -> None:
        """Nothing is known to have been done of what was taken: invalidations come again first, values are dropped."""
        back: list[Outgoing] = []
        for outgoing in self._under_way:
            self._mask(outgoing, -1)
            what = outgoing.what
            if isinstance(what, Invalidation):
                back.append(outgoing)
                continue
            self.dropped_puts += 1
            if outgoing.receipt is not None:
                self.due.append((outgoing.receipt, None))
            if what.token is None:
                back.append(Outgoing(Invalidation("keys", (what.key,))))
        self._under_way.clear()
        for outgoing in reversed(back):
            self._mask(outgoing, 1)
            self._waiting.appendleft(outgoing)

    def _fits(self, batch: list[Outgoing], used_bytes: int, keys: set[str]) -> bool:
        if not self._waiting:
            return False
        what, first = self._waiting[0].what, batch[0].what
        if isinstance(what, Put):
            is_room = len(batch) < _PUTS_A_BATCH and used_bytes + len(what.frame) <= _BYTES_A_BATCH
            return isinstance(first, Put) and is_room and what.key not in keys
        return isinstance(first, Invalidation) and first.kind == what.kind == "keys" and len(batch) < _CALLS_A_BATCH

    def _append(self, outgoing: Outgoing) -> None:
        self._waiting.append(outgoing)
        self._mask(outgoing, 1)

    def _drop(self, put: Put, receipt: Receipt | None) -> None:
        self.dropped_puts += 1
        if receipt is not None:
            self.due.append((receipt, None))
        if put.token is not None:
            return  # where a lease was granted there is no older value
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.receipt is None and isinstance(last.what, Invalidation):
            values = last.what.values
            if last.what.kind == "keys" and len(values) < _MERGED_KEYS and self._values < self._params.queue_values:
                self._mask(self._waiting.pop(), -1)
                self._append(Outgoing(Invalidation("keys", (*values, put.key))))
                return
        self.invalidate(Invalidation("keys", (put.key,)))

    def _collapse(self, receipt: Receipt | None) -> None:
        receipts = [] if receipt is None else [receipt]
        while self._waiting:
            outgoing = self._waiting.popleft()
            self._mask(outgoing, -1)
            is_put = isinstance(outgoing.what, Put)
            self.dropped_puts += is_put
            if outgoing.receipt is not None and is_put:
                self.due.append((outgoing.receipt, None))
            elif outgoing.receipt is not None:
                receipts.append(outgoing.receipt)

        def tell_all(result: Any) -> None:
            for one in receipts:
                one(result)

        self._append(Outgoing(Invalidation("all"), tell_all if receipts else None))

    def _mask(self, outgoing: Outgoing, sign: int) -> None:
        what = outgoing.what
        if isinstance(what, Put):
            self._puts += sign
            self._bytes += sign * len(what.frame)
            if what.token is None:
                self._mask_keys((what.key,), sign)
            return
        self._values += sign * _values_of(what)
        if what.kind == "keys":
            self._mask_keys(what.values, sign)
        elif what.kind == "pattern":
            for pattern in what.values:
                counted = self._globs.setdefault(pattern, [Glob(pattern), 0])
                counted[1] += sign
                if not counted[1]:
                    del self._globs[pattern]
        else:
            self._wide += sign

    def _mask_keys(self, keys: tuple[str, ...], sign: int) -> None:
        for key in keys:
            self._keys[key] += sign
            if not self._keys[key]:
                del self._keys[key]


def _values_of(invalidation: Invalidation) -> int:
    return max(1, len(invalidation.values))
