"""decision: which absent models will be fetched ahead next, and when; and which may leave for one hinted at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ondol.preload.policy import LEAST_GAPS
from ondol.units import format_seconds

if TYPE_CHECKING:
    from ondol.preload.policy import KeepWarmPolicy
    from ondol.preload.track import Track

__all__ = ["foreseen", "unpromised"]

_MOST_ROWS: Final = 20
_MOST_EDGES: Final = 8
_JUST_AFTER_S: Final = 0.01


def unpromised(policy: KeepWarmPolicy, now_s: float) -> list[str]:
    """Return the models in memory but for those that a hint keeps there."""
    return [track.name for track in policy.tracks.values() if track.is_resident and not now_s < track.promised_until_s]


def foreseen(policy: KeepWarmPolicy, now_s: float) -> list[dict[str, Any]]:
    """Return the absent models whose fetching ahead will be considered, soonest first, with the figures and in words.

    ``in_s`` is the time until then, as things are now; every use changes it.
    """
    found = [row for track in policy.tracks.values() if (row := _row(policy, track, now_s)) is not None]
    return sorted(found, key=lambda row: (row["in_s"], -row["worth"]))[:_MOST_ROWS]


def _row(policy: KeepWarmPolicy, track: Track, now_s: float) -> dict[str, Any] | None:
    is_absent = not (track.is_resident or track.is_loading or track.is_forbidden)
    if not is_absent or track.count < LEAST_GAPS or track.curve is None:
        return None
    at_s = now_s
    worth, probability = policy.worth_ahead(track, at_s)
    for _ in range(_MOST_EDGES):
        if worth > 0.0:
            break
        edge_s = track.curve.edge_after(at_s - track.last_s + track.load_s + _JUST_AFTER_S)
        if edge_s == math.inf:
            return None
        at_s = track.last_s + edge_s - track.load_s
        worth, probability = policy.worth_ahead(track, at_s)
    if worth <= 0.0:
        return None
    is_trusted = policy.trust.allows(track, worth)
    row = {
        "name": track.name,
        "in_s": max(0.0, at_s - now_s),
        "probability": probability,
        "worth": worth,
        "is_trusted": is_trusted,
    }
    return {**row, "words": _words(row)}


def _words(row: dict[str, Any]) -> str:
    when = "now" if row["in_s"] <= 0.0 else f"in {format_seconds(row['in_s'])}"
    used = f"it is used with a probability of {row['probability']:.0%} before it would leave again"
    if not row["is_trusted"]:
        return f"would be fetched {when}, but such bets were lost too often: {used}"
    return f"is fetched {when} if nobody waits and what leaves for it is worth less: {used}"
