"""decision: the models in memory, those least worth keeping first, at a constant cost for each event."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.preload.track import RankEntry, Track

__all__ = ["Ranking"]

_SPARE_ENTRIES: Final = 64
_ABOUT_EQUAL: Final = 1.0000001


class Ranking:
    """A heap by what keeping a model was worth when it was last looked at.

    Worth changes with time by itself, but looking at everything for each decision is too dear. So a model is looked at
    when it is used; every other event looks at one anew, in turn; and what comes up as the least worth is looked at
    again before it is named.
    """

    def __init__(self, worth: Callable[[Track, float], float]) -> None:
        """Begin empty; ``worth`` says what keeping a model is worth at a time."""
        self._worth = worth
        self._heap: list[RankEntry] = []
        self._round: deque[Track] = deque()
        self._number = 0
        self._is_turn = False
        self._taken = 0
        """How many were taken out and not put back."""

    def place(self, track: Track, now_s: float) -> None:
        """Look at a model anew; it comes in if it is new."""
        heappush(self._heap, self._entry(track, self._worth(track, now_s)))
        if not track.is_on_round:
            track.is_on_round = True
            self._round.append(track)

    def _entry(self, track: Track, worth: float) -> RankEntry:
        """Give a model a new place; the old one does not count any more."""
        self._number += 1
        track.entry = entry = (worth, self._number, track)
        return entry

    def remove(self, track: Track) -> None:
        """Forget a model that has left."""
        track.entry = None

    def look_on(self, now_s: float) -> None:
        """Note that something has happened: each second time the next model of the round is looked at."""
        self._is_turn = not self._is_turn
        if not self._is_turn or not self._round:
            return
        track = self._round.popleft()
        track.is_on_round = False
        if track.entry is not None:
            self.place(track, now_s)
        if not self._taken and len(self._heap) > 2 * len(self._round) + _SPARE_ENTRIES:
            self._heap = [other.entry for other in self._round if other.entry is not None]
            heapify(self._heap)

    def look_at_all(self, now_s: float) -> None:
        """Look at every model: another expert decides."""
        self._heap.clear()
        for track in list(self._round):
            if track.entry is not None:
                self.place(track, now_s)

    def take(self, now_s: float) -> RankEntry | None:
        """Take out the place of the model that is worth least now; ``put_back`` all of them in the end."""
        heap, worth_of = self._heap, self._worth
        while heap:
            entry = heap[0]
            track = entry[2]
            if track.entry is not entry:
                heappop(heap)
                continue
            worth = worth_of(track, now_s)
            following = min(heap[1:3]) if len(heap) > 1 else None
            if following is None or worth <= following[0] * _ABOUT_EQUAL:
                self._taken += 1
                return heappop(heap)
            heapreplace(heap, self._entry(track, worth))
        return None

    def put_back(self, entries: Iterable[RankEntry]) -> None:
        """Put back what was taken, as far as it is still in memory and was not placed anew meanwhile."""
        self._taken = 0
        for entry in entries:
            if entry[2].entry is entry:
                heappush(self._heap, entry)
