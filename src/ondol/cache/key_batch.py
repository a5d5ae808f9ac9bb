"""decision: several keys that are fetched together, as one key of a flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["KeyBatch", "is_part", "members"]


class KeyBatch:
    """Stands for several keys that are fetched together; equal to itself alone."""

    __slots__ = ("keys",)

    def __init__(self, keys: list[Hashable]) -> None:
        self.keys = frozenset(keys)


def members(key: Hashable) -> Iterable[Hashable]:
    """Return the keys that a batch holds, or the key itself."""
    return key.keys if isinstance(key, KeyBatch) else (key,)


def is_part(key: Hashable, fetched: Hashable) -> bool:
    """Tell whether ``key`` is what is fetched, or one of several."""
    return key in fetched.keys if isinstance(fetched, KeyBatch) else key == fetched
