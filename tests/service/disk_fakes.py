"""Stores and helpers for the tests of the disk tier."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ondol.cache.adapters.lmdb_store import LmdbStore
from ondol.cache.disk import DiskTier
from ondol.cache.disk_ports import Applied, StoreFailedError
from ondol.cache.ports import Invalidation
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ondol.testing import FakeClock

__all__ = ["FailingStore", "failing", "keys"]


class FailingStore(LmdbStore):
    """An LMDB store whose writes or reads fail, or wait, when told to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_full = self.is_unreadable = False
        self.gate = threading.Event()
        self.gate.set()
        self.attempts = 0

    def apply(self, operations: Sequence[Any], touched: Iterable[str]) -> Applied:
        self.gate.wait(20)
        self.attempts += 1
        if self.is_full:
            raise StoreFailedError("no space left on device") from OSError(28, "No space left on device")
        return super().apply(operations, touched)

    def get(self, key: str) -> tuple[bytes, float] | None:
        if self.is_unreadable:
            raise StoreFailedError("input/output error") from OSError(5, "Input/output error")
        return super().get(key)


def failing(path: Path, clock: FakeClock) -> tuple[DiskTier, FailingStore]:
    store = FailingStore(path, 8 * MIB, clock.wall)
    made = DiskTier(path, 8 * MIB, clock, store=store)
    made.open()
    return made, store


def keys(*names: str) -> Invalidation:
    return Invalidation("keys", tuple(f"{name}\x00" for name in names))
