"""decision: when which model is to be looked at, and which absent ones are wished for."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ondol.preload.track import Track

__all__ = ["Schedule"]


_MOST_WISHES: Final = 512


class Schedule:
    """Two heaps of times, one for the models in memory and one for the absent ones, and one of wishes by their worth.

    A look that is planned earlier stands: when it comes and nothing is to be seen yet, the next is planned. So a model
    that is used all the time adds nothing to the heaps.
    """

    __slots__ = ("_absent", "_number", "_resident", "_wishes")

    def __init__(self) -> None:
        """Begin with nothing planned."""
        self._resident: list[tuple[float, int, Track]] = []
        self._absent: list[tuple[float, int, Track]] = []
        self._wishes: list[tuple[float, int, Track]] = []
        self._number = 0

    def look(self, track: Track, at_s: float) -> None:
        """Look at a model then, unless a look is planned before."""
        if at_s < track.due_s:
            track.due_s = at_s
            self._number += 1
            heappush(self._resident if track.is_resident else self._absent, (at_s, self._number, track))

    def forget(self, track: Track) -> None:
        """Plan no look at a model."""
        track.due_s = math.inf

    def next_due(self, now_s: float) -> Track | None:
        """Return a model whose time has come, once."""
        for heap in (self._resident, self._absent):
            while heap and heap[0][0] <= now_s:
                at_s, _, track = heappop(heap)
                if at_s == track.due_s:
                    track.due_s = math.inf
                    return track
        return None

    def wake_at_s(self) -> float:
        """Return when an absent model is to be looked at; infinite: none. Those in memory can wait for an event."""
        heap = self._absent
        while heap and heap[0][0] != heap[0][2].due_s:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def wish(self, track: Track, worth: float) -> None:
        """Wish for an absent model."""
        self._number += 1
        heappush(self._wishes, (-worth, self._number, track))
        if len(self._wishes) > _MOST_WISHES:
            self._wishes = sorted({entry[2].name: entry for entry in sorted(self._wishes, reverse=True)}.values())
            del self._wishes[_MOST_WISHES // 2 :]

    def best_wish(self) -> Track | None:
        """Return the model wished for most, as of when it was looked at."""
        return self._wishes[0][2] if self._wishes else None

    def drop_wish(self) -> None:
        """Take back the best wish."""
        heappop(self._wishes)

    def lower_wish(self, track: Track, worth: float) -> bool:
        """Put the best wish in its place when it is worth less by now; return whether it was."""
        if worth >= -self._wishes[0][0] * 0.999:
            return False
        heappop(self._wishes)
        self.wish(track, worth)
        return True
