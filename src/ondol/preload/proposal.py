"""decision: what may be fetched ahead and who leaves for it, and what came of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ondol.preload.track import Track

__all__ = ["ALONE", "Needs", "Proposal", "Surroundings", "Tally", "without_needless"]


class Proposal(NamedTuple):
    """A model to fetch ahead, and who leaves for it."""

    name: str
    victims: tuple[str, ...]
    probability: float
    """Of its use by the time at which it would leave again."""


class Needs(NamedTuple):
    """What a model depends on, directly or not, and the bytes of what is missing of that."""

    names: frozenset[str] = frozenset()
    absent_bytes: int = 0


class Surroundings:
    """What the policy does not know of models by itself; this one says that there is nothing else to know."""

    def may_leave(self, name: str) -> bool:  # noqa: ARG002  # for those that know more
        """Tell whether a model in memory may leave: nobody holds it, nor is anything built on it."""
        return True

    def needs(self, wished: str) -> Needs:  # noqa: ARG002  # for those that know more
        """Return what has to be in memory for a model."""
        return Needs()


ALONE: Final = Surroundings()


class Tally:
    """What came of fetching ahead.

    Attributes:
        fetched: loads ahead of use that were proposed and begun.
        used: of them, those used before they left; ``wasted``: those that left unused.
        failed: of them, those whose load came to nothing: their room was taken, or the load failed.
        saved_s: seconds of loading that requests did not wait for because of it.
    """

    __slots__ = ("failed", "fetched", "saved_s", "used", "wasted")

    def __init__(self) -> None:
        """Begin at nothing."""
        self.fetched = self.used = self.wasted = self.failed = 0
        self.saved_s = 0.0


def without_needless(taken: list[Track], spare_bytes: int) -> tuple[str, ...]:
    """Return the names without those whose bytes are spare, the worthiest first."""
    going = list(taken)
    for track in reversed(taken):
        if track.size_bytes <= spare_bytes:
            spare_bytes -= track.size_bytes
            going.remove(track)
    return tuple(track.name for track in going)
