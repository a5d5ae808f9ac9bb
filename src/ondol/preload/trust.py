"""decision: whether a foreseen use is to be trusted, from how such bets have ended, also those only made on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

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
_KEPT: Final = 0.998
_KEPT_OF_MODEL: Final = 0.8
_NEW_SHARE: Final = 0.05


class Trust:
    """The measured precision of fetching ahead, by how much a use is worth beside what leaves for want of room.

    A bet is won when the model is used before it would have had to leave again. Bets are made whether or not anything
    is loaded for them, so precision is known before the first load is wasted, and comes back after it was lost.

    Attributes:
        margin_worth: what those were worth, of late, that had to leave.
    """

    __slots__ = ("_ended", "margin_worth")

    def __init__(self) -> None:
        """Begin without any experience."""
        self.margin_worth = 0.0
        self._ended = [[0.0, 0.0] for _ in range(CLASSES)]

    def note_leaving(self, worth: float) -> None:
        """Take in what a model was worth that had to leave."""
        self.margin_worth += _NEW_SHARE * (worth - self.margin_worth)

    def class_of(self, worth: float) -> int:
        """Return the class of a bet: half octaves of its worth over that of those which leave."""
        if self.margin_worth <= 0.0 or worth <= 0.0:
            return CLASSES - 1
        octaves = math.log2(worth / self.margin_worth)
        return max(0, min(CLASSES - 1, int(_CLASSES_OF_AN_OCTAVE * octaves + _CLASS_OF_EQUAL)))

    def settle(self, track: Track, *, is_won: bool) -> None:
        """End the bet on a model."""
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
        is_class_good = bets >= LEAST_BETS and wins >= LEAST_PRECISION * bets
        return is_class_good and track.wins + 0.5 >= LEAST_PRECISION_OF_MODEL * (track.bets + 1.0)

    def precision(self, worth: float) -> tuple[float, float]:
        """Return the bets that have ended in the class of ``worth``, and those won, of late."""
        bets, wins = self._ended[self.class_of(worth)]
        return bets, wins

    def to_plain(self) -> list[Any]:
        """Return it as numbers."""
        return [self.margin_worth, [[round(bets, 2), round(wins, 2)] for bets, wins in self._ended]]

    def take_in(self, plain: Any) -> None:
        """Become what ``to_plain`` was called on.

        Raises:
            ValueError: it is damaged; nothing was changed.
        """
        message = f"the precision of earlier bets is damaged: {str(plain)[:80]}"
        try:
            margin, rows = plain
            ended = [[float(bets), float(wins)] for bets, wins in rows]
            margin = float(margin)
        except (TypeError, ValueError) as exc:
            raise ValueError(message) from exc
        if len(ended) != CLASSES or not all(0.0 <= wins <= bets < math.inf for bets, wins in ended):
            raise ValueError(message)
        if not 0.0 <= margin < math.inf:
            raise ValueError(message)
        self.margin_worth, self._ended = margin, ended
