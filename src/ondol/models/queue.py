"""decision: which waiting load goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ondol.models.spec import MIN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.models.ledger import Candidate

__all__ = ["Displacing", "Slots", "Want", "ordered"]


class Displacing(NamedTuple):
    """What a background load may displace.

    Attributes:
        names: models that may go whatever their priority.
        is_only: no others may; else those of lower priority may, too.
    """

    names: frozenset[str] = frozenset()
    is_only: bool = False

    def covers(self, other: Displacing) -> bool:
        """Tell whether ``other`` allows nothing that this one does not allow already."""
        return other.names <= self.names and (other.is_only or not self.is_only)

    def joined(self, other: Displacing) -> Displacing:
        """Return what either of them allows."""
        return Displacing(self.names | other.names, self.is_only and other.is_only)


class Want(NamedTuple):
    """A load that waits for its turn.

    Attributes:
        priority: with what it has gained by waiting.
        position: of its registration.
        relief_per_s: requests that wait for it per second that it takes to load, in two digits.
        displacing: models that it may displace whatever their priority.
        displaces_below: models of a lower priority than this may go, too; what it gains by waiting does not count.
            By default none may.
    """

    name: str
    is_demand: bool
    priority: int
    position: int
    relief_per_s: float = 0.0
    displacing: frozenset[str] = frozenset()
    displaces_below: int = MIN_PRIORITY

    def may_displace(self, candidate: Candidate) -> bool:
        """Tell whether a model that nobody holds may go for it.

        A background load displaces nothing better and nothing that is promised to stay.
        """
        if self.is_demand or candidate.is_promised:
            return self.is_demand
        return candidate.priority < self.displaces_below or candidate.name in self.displacing


def ordered(wants: Iterable[Want]) -> list[Want]:
    """Return the wants in their order: demand before background, priority, relief per second, registration.

    Source: of jobs that wait for one machine, the one with the most weight per second first makes the sum of the
    weighted waits least (W. E. Smith, Various optimizers for single-stage production, Naval Research Logistics
    Quarterly 3, 1956). The weight of a load is the number of requests that wait for it.

    >>> [w.name for w in ordered([Want("a", False, 9, 0), Want("b", True, 1, 2), Want("c", True, 1, 1)])]
    ['c', 'b', 'a']
    >>> [w.name for w in ordered([Want("long", True, 5, 0, 2 / 30), Want("short", True, 5, 1, 1 / 3)])]
    ['short', 'long']
    """
    return sorted(wants, key=lambda want: (not want.is_demand, -want.priority, -want.relief_per_s, want.position))


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
