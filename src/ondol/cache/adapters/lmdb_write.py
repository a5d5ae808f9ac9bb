"""adapter: one write to LMDB in as few transactions as there is room for: the bound is kept, a full map emptied."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.disk_ports import Applied, Put, Remember
from ondol.cache.ports import Invalidation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ondol.cache.adapters.lmdb_tables import Tables

__all__ = ["LmdbWrite"]

_DUE_PER_WRITE: Final = 128
_EVICTIONS_PER_STEP: Final = 128
_TOUCH_RATIO: Final = 0.5
"""Below this part of the bound nothing is about to leave, and noting what was read would only wear the disk."""
_EVICTIONS_WHEN_FULL: Final = 32
_ATTEMPTS: Final = 4
_COMMITS_UNTIL_FREE: Final = 2
"""What a commit frees can be used two commits later."""


class LmdbWrite:
    """One call of ``LmdbStore.apply``. Raises LMDB's own errors."""

    def __init__(self, lmdb: Any, transaction: Callable[[], Any], env: Any, limit_bytes: int, now_s: float) -> None:
        self._lmdb = lmdb
        self._env = env
        self._transaction = transaction
        self._limit_bytes = limit_bytes
        self._now_s = now_s
        self._expired = self._evicted = self._failed_puts = 0
        self._is_bound_kept = True
        self._resume = b""

    def run(self, operations: Sequence[Put | Invalidation | Remember], touched: Iterable[str]) -> Applied:
        """Carry out all of it."""
        rest, touched = list(operations), tuple(touched)
        step, attempt = max(len(rest), 1), 0
        while True:
            try:
                rest = self._written(rest[:step], touched) + rest[step:]
                touched, attempt = (), 0
            except self._lmdb.MapFullError:
                touched = ()
                if step > 1:
                    step //= 2
                    continue
                attempt += 1
                rest = self._with_more_room(rest, attempt)
            if not rest:
                break
        while not self._is_bound_kept:
            with self._transaction() as tables:
                self._is_bound_kept = tables.evict(self._limit_bytes, _EVICTIONS_PER_STEP)
            self._count(tables)
        return Applied(self._expired, self._evicted, self._failed_puts)

    def _written(
        self, operations: list[Put | Invalidation | Remember], touched: Sequence[str]
    ) -> list[Put | Invalidation | Remember]:
        """Carry out operations in one transaction; return those that are left of an invalidation with much to do."""
        left: list[Put | Invalidation | Remember] = []
        resume: bytes | None = self._resume
        with self._transaction() as tables:
            if touched and tables.used_bytes() > self._limit_bytes * _TOUCH_RATIO:
                tables.touch(touched)
            for place, operation in enumerate(operations):
                resume = tables.perform(operation, resume or b"")
                if resume is not None:
                    left = operations[place:]
                    break
            tables.expire(self._now_s, _DUE_PER_WRITE)
            self._is_bound_kept = tables.evict(self._limit_bytes, _EVICTIONS_PER_STEP)
        self._resume = resume or b""
        self._count(tables)
        return left

    def _count(self, tables: Tables) -> None:
        self._expired += tables.expired
        self._evicted += tables.evicted

    def _with_more_room(
        self, rest: list[Put | Invalidation | Remember], attempt: int
    ) -> list[Put | Invalidation | Remember]:
        """Free more and more; pages are free for use two commits later. In the end give the operation up."""
        if attempt < _ATTEMPTS:
            self._env.reader_check()  # a killed reader holds up the use of what is freed
            with contextlib.suppress(self._lmdb.MapFullError):
                self._shrink(1 - attempt / (_ATTEMPTS - 1))
            for _ in range(_COMMITS_UNTIL_FREE):
                with contextlib.suppress(self._lmdb.MapFullError), self._transaction() as tables:
                    tables.mark()
            return rest
        if not isinstance(rest[0], Put):
            raise self._lmdb.MapFullError("no room even to take entries away")
        self._failed_puts += 1
        return [Invalidation("keys", (rest[0].key,)), *rest[1:]]

    def _shrink(self, ratio: float) -> None:
        """Evict until ``ratio`` of what is there is left."""
        with self._transaction() as tables:
            goal_bytes = int(tables.used_bytes() * ratio)
            if ratio <= 0:
                tables.drop_all()
                return
        is_done = False
        while not is_done:
            with self._transaction() as tables:
                is_done = tables.evict(goal_bytes, _EVICTIONS_WHEN_FULL)
            self._count(tables)
