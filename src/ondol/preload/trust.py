"""decision: whether a foreseen use is to be trusted, from how such bets have ended, also those only made on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ondol.preload.gaps import is_figure

if TYPE_CHECKING:
    from ondol.preload.track import Track

__all__ = ["Trust"]

CLASSES: Final = 16
_CLASSES_OF_AN_OCTAVE: Final = 2
_CLASS_OF_EQUAL: Final = 4
LEAST_BETS: Final = 20
"""Nothing is fetched ahead before so many bets of its class have ended."""
LEAST_PRECISION: Final = 0.6
LEAST_PRECISION_OF_MODEL: Final = 0.4
LEAST_PRECISION_OF_FETCHES: Final = 0.88
"""With fewer of the loads ahead of use used, the bets of a class have to be won that often, too."""
_KEPT_OF_FETCHES: Final = 0.98
_GOODWILL: Final = 20.0
"""So many loads count as used before the first: one that is wasted early says little."""
_KEPT: Final = 0.998
_LEAST_RATIO: Final = 2.0**-20
_LARGEST_RATIO: Final = 2.0**20
_KEPT_OF_MODEL: Final = 0.8
_NEW_SHARE: Final = 0.05


class Trust:
    """The measured precision of fetching ahead, by how much a use is worth beside what leaves for want of room.

    A bet is won when the model is used before it would have had to leave again. Bets are made whether or not anything
    is loaded for them, so precision is known before the first load is wasted, and comes back after it was lost.

    Attributes:
        margin_worth: what those were worth, of late, that had to leave.
    """

    __slots__ = ("_ended", "_fetches", "_fetches_used", "margin_worth")

    def __init__(self) -> None:
        """Begin without any experience."""
        self.margin_worth = 0.0
        self._ended = [[0.0, 0.0] for _ in range(CLASSES)]
        self._fetches = self._fetches_used = 0.0

    def note_leaving(self, worth: float) -> None:
        """Take in what a model was worth that had to leave."""
        self.margin_worth += _NEW_SHARE * (worth - self.margin_worth)

    def class_of(self, worth: float) -> int:
        """Return the class of a bet: half octaves of its worth over that of those which leave."""
        if self.margin_worth <= 0.0 or worth <= 0.0:
            return CLASSES - 1
        octaves = math.log2(max(_LEAST_RATIO, min(_LARGEST_RATIO, worth / self.margin_worth)))
        return max(0, min(CLASSES - 1, int(_CLASSES_OF_AN_OCTAVE * octaves + _CLASS_OF_EQUAL)))

    def settle(self, track: Track, *, is_won: bool, is_real: bool = False) -> None:
        """End the bet on a model; ``is_real``: it was fetched for it."""
        if is_real:
            self._fetches = self._fetches * _KEPT_OF_FETCHES + 1.0
            self._fetches_used = self._fetches_used * _KEPT_OF_FETCHES + is_won
        ended = self._ended[track.bet] if track.bet is not None else None
        track.bet = None
        track.bets = track.bets * _KEPT_OF_MODEL + 1.0
        track.wins = track.wins * _KEPT_OF_MODEL + is_won
        if ended is not None:
            ended[0] = ended[0] * _KEPT + 1.0
            ended[1] = ended[1] * _KEPT + is_won

    def allows(self, track: Track, worth: float) -> bool:
        """Tell whether bets of this class, and those on this model, have been won often enough."""
        bets, wins = self._ended[self.class_of(worth)]
        is_class_good = bets >= LEAST_BETS and wins >= self._least_precision() * bets
        return is_class_good and track.wins + 0.5 >= LEAST_PRECISION_OF_MODEL * (track.bets + 1.0)

    def _least_precision(self) -> float:
        used, fetches = self._fetches_used + _GOODWILL, self._fetches + _GOODWILL
        are_fetches_used = used >= LEAST_PRECISION_OF_FETCHES * fetches
        return LEAST_PRECISION if are_fetches_used else LEAST_PRECISION_OF_FETCHES

    def precision(self, worth: float) -> tuple[float, float]:
        """Return the bets that have ended in the class of ``worth``, and those won, of late."""
        bets, wins = self._ended[self.class_of(worth)]
        return bets, wins

    def to_plain(self) -> list[Any]:
        """Return it as numbers."""
        rows = [[round(bets, 2), round(wins, 2)] for bets, wins in self._ended]
        return [self.margin_worth, rows, [round(self._fetches, 2), round(self._fetches_used, 2)]]

    def take_in(self, plain: Any) -> None:
        """Become what ``to_plain`` was called on.

        Raises:
            ValueError: it is damaged; nothing was changed.
        """
        message = f"the precision of earlier bets is damaged: {str(plain)[:80]}"
        if not isinstance(plain, list) or len(plain) not in {2, 3} or not is_figure(plain[0]):
            raise ValueError(message)
        margin_worth, rows, fetches = plain if len(plain) > 2 else [*plain, [0.0, 0.0]]
        if not isinstance(rows, list) or len(rows) != CLASSES:
            raise ValueError(message)
        for row in (*rows, fetches):
            if not isinstance(row, list) or len(row) != 2 or not all(map(is_figure, row)) or row[1] > row[0]:
                raise ValueError(message)
        self.margin_worth = float(margin_worth)
        self._ended = [[float(bets), float(wins)] for bets, wins in rows]
        self._fetches, self._fetches_used = map(float, fetches)
