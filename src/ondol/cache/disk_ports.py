"""decision: what the disk tier asks of the store below it, and what it tells it to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ondol.cache.ports import Invalidation

__all__ = ["Applied", "EntryStore", "Put", "Remember", "StoreFailedError", "StoreSize"]


class StoreFailedError(Exception):
    """The store could not do what it was asked; ``__cause__`` says why. Never leaves the disk tier."""


class Put(NamedTuple):
    """An entry to be written."""

    key: str
    frame: bytes
    expires_at_s: float | None
    tags: tuple[str, ...]
    cost_s: float


class Remember(NamedTuple):
    """Keys to be remembered, best first, in place of those remembered before."""

    keys: tuple[str, ...]


class Applied(NamedTuple):
    """What a write did besides what it was told."""

    expired: int = 0
    evicted: int = 0
    failed_puts: int = 0
    """Entries for which no room could be made; what was there before is gone."""


class StoreSize(NamedTuple):
    """What lies in the store."""

    entries: int = 0
    used_bytes: int = 0


class EntryStore(Protocol):
    """Entries by key on a disk. Reads may come from any thread, writes come from one at a time.

    Every method but ``open``, ``close`` and ``abandon`` raises ``StoreFailedError`` when it cannot do its work.
    """

    def open(self) -> tuple[str, ...]:
        """Open or create it; does nothing when open. Return what went wrong and was made good, a sentence each.

        Raises:
            ConfigurationError: the folder cannot be used.
            MissingExtraError: the package it needs is not installed.
        """
        ...

    def close(self) -> None:
        """Close it; does nothing when closed."""
        ...

    def pause(self) -> None:
        """Before a fork: wait for the reads under way and hold up others."""
        ...

    def resume(self) -> None:
        """After it: let reads go on."""
        ...

    def forget(self) -> None:
        """In a process that was forked: let go of what belongs to the parent without touching it."""
        ...

    def abandon(self) -> None:
        """Make sure, as far as that is possible, that nobody reads what lies here any more; it is closed after it."""
        ...

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return the frame, expired or not, and when it expires: infinity if never."""
        ...

    def tags(self, key: str) -> tuple[bytes, ...]:
        """Return the digests of the entry's tags (:func:`ondol.cache.disk_keys.tag_digest`)."""
        ...

    def apply(self, operations: Sequence[Put | Invalidation | Remember], touched: Iterable[str]) -> Applied:
        """Do all of these in order and commit; refresh what was ``touched``, remove what is due, keep the bound."""
        ...

    def best_keys(self, limit: int) -> list[str]:
        """Return up to ``limit`` remembered keys in their order, then up to ``limit`` that are most worth keeping."""
        ...

    def size(self) -> StoreSize:
        """Return what lies in it."""
        ...

    def heal(self) -> tuple[str, ...]:
        """Reopen or recreate it when a read has found it damaged or another process has replaced it; say what was."""
        ...
