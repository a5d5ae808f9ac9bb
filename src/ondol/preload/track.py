"""decision: what the policy knows of one model: its figures, its uses, and where it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ondol.preload.curve import Curve
from ondol.preload.gaps import GapHistogram, bin_of

if TYPE_CHECKING:
    from ondol.preload.gaps import GapPrior

__all__ = ["RankEntry", "Track"]

UNKNOWN_BYTES: Final = 64 * 1024 * 1024
UNKNOWN_LOAD_S: Final = 1.0
_LEAST_LOAD_S: Final = 0.001
_MEAN_PRIORITY: Final = 5
_WEIGHT_OF_A_STEP: Final = 2.0**0.5
"""Two steps of priority count like twice as much waiting."""
_NEW_SHARE: Final = 0.25
_MOST_GAPS: Final = 20

RankEntry = tuple[float, int, "Track"]
"""A place in an order: the key, a number that tells equal keys apart, the model."""


class Track:
    """One model. Times are monotonic seconds.

    Attributes:
        density: what it saves to have it in memory at a use: seconds of loading per byte, weighed by its priority.
        count: its uses; ``last_s`` when the last was, ``last_event`` which of all uses that was.
        curve: what its gaps say, as of the last look (``draw`` renews it); ``None`` before the first.
        fresh_uses: uses since then; with ``stale_uses`` of them it is out of date.
        entry: its place among those in memory, by what keeping it was found to be worth.
        due_s: when it is looked at next; infinite: not before something happens to it.
        bet: how sure its next use was when the policy would have fetched it ahead; ``None``: it would not have.
        bets, wins: how many such bets were made and won, of late.
        is_fetched: it was fetched ahead and not used since.
        promised_until_s: a hint says that it is wanted until then.
    """

    __slots__ = (
        "bet",
        "bets",
        "count",
        "curve",
        "density",
        "due_s",
        "entry",
        "fresh_uses",
        "gaps",
        "is_fetched",
        "is_forbidden",
        "is_loading",
        "is_on_round",
        "is_resident",
        "is_sampled",
        "last_event",
        "last_s",
        "load_s",
        "name",
        "promised_until_s",
        "size_bytes",
        "stale_uses",
        "wins",
    )

    def __init__(self, name: str) -> None:
        """Begin with nothing known but the name."""
        self.name = name
        self.size_bytes, self.load_s, self.density = UNKNOWN_BYTES, UNKNOWN_LOAD_S, UNKNOWN_LOAD_S / UNKNOWN_BYTES
        self.gaps = GapHistogram()
        self.count = self.last_event = self.fresh_uses = 0
        self.last_s = -math.inf
        self.stale_uses = 1.0
        self.curve: Curve | None = None
        self.entry: RankEntry | None = None
        self.is_resident = self.is_loading = self.is_on_round = self.is_sampled = False
        self.is_fetched = self.is_forbidden = False
        self.due_s = math.inf
        self.bet: int | None = None
        self.bets = self.wins = 0.0
        self.promised_until_s = -math.inf

    def describe(self, size_bytes: int | None, load_s: float | None, priority: int) -> None:
        """Take the figures of the model, as far as they are known."""
        self.size_bytes = size_bytes or UNKNOWN_BYTES
        self.load_s = UNKNOWN_LOAD_S if load_s is None else max(load_s, _LEAST_LOAD_S)
        weight: float = _WEIGHT_OF_A_STEP ** (priority - _MEAN_PRIORITY)
        self.density = weight * self.load_s / self.size_bytes

    def note_use(self, now_s: float, event: int, prior: GapPrior) -> None:
        """Count a use. Cost: constant; its curve is made anew when it is asked for next."""
        count = self.count
        if count:
            gap_bin = bin_of(now_s - self.last_s)
            self.gaps.note(gap_bin)
            prior.end(count, gap_bin)
        self.count = count = count + 1
        self.last_s, self.last_event = now_s, event
        prior.begin(count)
        self.fresh_uses += 1

    def draw(self, prior: GapPrior) -> Curve:
        """Return the curve, made anew if a quarter of what it would be made of is new."""
        curve = self.curve
        if curve is None or self.fresh_uses >= self.stale_uses:
            self.fresh_uses = 0
            self.stale_uses = max(1.0, _NEW_SHARE * min(self.count, _MOST_GAPS))
            curve = self.curve = Curve(self.gaps.bins(), prior.masses(max(1, self.count)))
        return curve
