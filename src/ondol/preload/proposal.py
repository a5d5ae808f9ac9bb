"""decision: what may be fetched ahead and who leaves for it, and what came of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ondol.preload.track import Track

__all__ = ["Proposal", "Tally", "without_needless"]


class Proposal(NamedTuple):
    """A model to fetch ahead, and who leaves for it."""

    name: str
    victims: tuple[str, ...]
    probability: float
    """Of its use by the time at which it would leave again."""


class Tally:
    """What came of fetching ahead.

    Attributes:
        fetched: loads ahead of use that were proposed and begun.
        used: of them, those used before they left; ``wasted``: those that left unused.
        saved_s: seconds of loading that requests did not wait for because of it.
    """

    __slots__ = ("fetched", "saved_s", "used", "wasted")

    def __init__(self) -> None:
        """Begin at nothing."""
        self.fetched = self.used = self.wasted = 0
        self.saved_s = 0.0


def without_needless(taken: list[Track], spare_bytes: int) -> tuple[str, ...]:
    """Return the names without those whose bytes are spare, the worthiest first."""
    going = list(taken)
    for track in reversed(taken):
        if track.size_bytes <= spare_bytes:
            spare_bytes -= track.size_bytes
            going.remove(track)
    return tuple(track.name for track in going)
