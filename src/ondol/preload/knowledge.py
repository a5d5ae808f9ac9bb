"""decision: what the policy has learnt, as plain data that outlives the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.preload.gaps import GapHistogram, GapPrior, is_figure
from ondol.preload.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.preload.policy import KeepWarmPolicy
    from ondol.preload.track import Track

__all__ = ["FORMAT", "knowledge_of", "take_in"]

FORMAT: Final = 1
_MOST_MODELS: Final = 10_000
_FIGURES: Final = 6


def knowledge_of(policy: KeepWarmPolicy, now_s: float) -> dict[str, Any]:
    """Return what was learnt, ready for JSON; at most about 300 bytes a model.

    Times are ages: how long ago, as of ``now_s``. For each model: age of its last use in seconds and in events, uses,
    bets made and won of late, and its gaps.
    """
    used = [track for track in policy.tracks.values() if track.count]
    used.sort(key=lambda track: track.last_s)
    return {
        "format": FORMAT,
        "events": policy.events,
        "least_s": round(policy.least_s, 3),
        "prior": policy.prior.to_plain(),
        "trust": policy.trust.to_plain(),
        "expert": policy.experts.chosen,
        "models": {track.name: _row(track, policy.events, now_s) for track in used[-_MOST_MODELS:]},
    }


def _row(track: Track, events: int, now_s: float) -> list[Any]:
    age_s = round(max(0.0, now_s - track.last_s), 3)
    bets = [round(track.bets, 3), round(track.wins, 3)]
    return [age_s, events - track.last_event, track.count, *bets, track.gaps.to_plain()]


def take_in(policy: KeepWarmPolicy, plain: Mapping[str, Any], now_s: float) -> int:
    """Add what ``plain`` says of models of which less is known; return of how many.

    Ages count from ``now_s``: the time between is not taken for a gap. What is common to all models (the prior, the
    precision of bets, the expert) is taken over if ``plain`` has seen more.

    Raises:
        ValueError: it is damaged, or of another format; nothing was taken in.
    """
    if plain.get("format") != FORMAT:
        message = f"the knowledge of use is of format {plain.get('format')!r}, not {FORMAT}"
        raise ValueError(message)
    models: Any = plain.get("models")
    events: Any = plain.get("events")
    least_s: Any = plain.get("least_s")
    expert = plain.get("expert")
    is_counted = (
        isinstance(events, int) and is_figure(events) and isinstance(least_s, int | float) and is_figure(least_s)
    )
    if not isinstance(models, dict) or not isinstance(expert, str) or not is_counted:
        message = "the knowledge of use is damaged: it has no models, events, least_s or expert that make sense"
        raise ValueError(message)
    found = {str(name): _checked(name, row) for name, row in list(models.items())[-_MOST_MODELS:]}
    prior, trust = GapPrior.from_plain(plain.get("prior")), Trust()
    trust.take_in(plain.get("trust"))
    if events > policy.events:
        policy.trust = trust
        policy.take_over(prior, expert, float(least_s), events)
    count = 0
    for name, (age_s, age_events, uses, bets, wins, gaps) in found.items():
        if policy.learn(name, gaps, uses, now_s - age_s, age_events, now_s):
            track = policy.tracks[name]
            track.bets, track.wins = bets, min(wins, bets)
            count += 1
    return count


def _checked(name: object, row: Any) -> tuple[float, int, int, float, float, GapHistogram]:
    message = f"the knowledge of the use of model {name!r} is damaged"
    if not isinstance(row, list) or len(row) != _FIGURES:
        raise ValueError(message)
    age_s, age_events, uses, bets, wins, gaps = row
    is_counted = type(age_events) is int and type(uses) is int and uses > 0
    if not is_counted or not all(map(is_figure, (age_s, age_events, uses, bets, wins))):
        raise ValueError(message)
    return float(age_s), age_events, uses, float(bets), float(wins), GapHistogram.from_plain(gaps)
