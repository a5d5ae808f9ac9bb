"""decision: which waiting load goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Slots", "Want", "ordered"]


class Want(NamedTuple):
    """A load that waits for its turn."""

    name: str
    is_demand: bool
    priority: int
    position: int


def ordered(wants: Iterable[Want]) -> list[Want]:
    """Return the wants in their order: demand before background, then priority, then registration.

    >>> [w.name for w in ordered([Want("a", False, 9, 0), Want("b", True, 1, 2), Want("c", True, 1, 1)])]
    ['c', 'b', 'a']
    """
    return sorted(wants, key=lambda want: (not want.is_demand, -want.priority, want.position))


class Slots:
    """How many more loads of each kind may start."""

    __slots__ = ("_background", "_demand")

    def __init__(self, *, demand: int, background: int) -> None:
        """Begin with the free slots of each kind; a negative number (a bound was lowered) counts as none."""
        self._demand = demand
        self._background = background

    def has_free(self, *, is_demand: bool) -> bool:
        """Tell whether a load of this kind may start."""
        return (self._demand if is_demand else self._background) > 0

    def take(self, *, is_demand: bool) -> None:
        """Count one load of this kind as started."""
        if is_demand:
            self._demand -= 1
        else:
            self._background -= 1
