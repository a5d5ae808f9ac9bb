"""decision: what is foreseen of each model, with the figures behind it, and in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ondol.preload.policy import LEAST_GAPS, LEAST_PROBABILITY
from ondol.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.preload.policy import KeepWarmPolicy
    from ondol.preload.track import Track

__all__ = ["in_words", "outlook_of", "wanted_within"]

_LIKELY: Final = 0.5
_SOON_S: Final = 600.0
_EXPERTS: Final = {
    "hazard": "how likely its next use is at this age",
    "frequency": "how often and how lately it was used",
}


def wanted_within(policy: KeepWarmPolicy, within_s: float, now_s: float) -> list[str]:
    """Return the absent models that are used within a time with a probability of at least one half, best first."""
    found = [
        (-policy.worth_of(track.name, now_s), track.name)
        for track in policy.tracks.values()
        if track.count >= LEAST_GAPS
        and not (track.is_resident or track.is_loading or track.is_forbidden)
        and track.draw(policy.prior).probability(now_s - track.last_s, within_s) >= _LIKELY
    ]
    return [name for _, name in sorted(found)]


def outlook_of(policy: KeepWarmPolicy, name: str, now_s: float) -> dict[str, Any] | None:
    """Return what is foreseen of a model as plain figures; ``None`` for one that nobody has heard of."""
    track = policy.tracks.get(name)
    if track is None:
        return None
    worth_ahead, probability = policy.worth_ahead(track, now_s) if track.count else (0.0, 0.0)
    bets, wins = policy.trust.precision(worth_ahead)
    found = {
        "name": name,
        "is_loaded": track.is_resident,
        "is_loading": track.is_loading,
        "is_forbidden": track.is_forbidden,
        "is_promised": now_s < track.promised_until_s,
        "uses": track.count,
        **_times(policy, track, now_s),
        "load_s": track.load_s,
        "size_bytes": track.size_bytes,
        "worth": policy.worth_of(name, now_s),
        "expert": policy.experts.chosen,
        "worth_ahead": worth_ahead,
        "worth_of_those_that_leave": policy.trust.margin_worth,
        "probability_ahead": probability,
        "bets": track.bets,
        "bets_won": track.wins,
        "bets_of_its_class": bets,
        "bets_of_its_class_won": wins,
        "is_trusted": policy.trust.allows(track, worth_ahead),
    }
    return {**found, "words": in_words(found)}


def _times(policy: KeepWarmPolicy, track: Track, now_s: float) -> dict[str, float | None]:
    if not track.count:
        return dict.fromkeys(("last_use_s", "next_use_s", "next_use_90_s", "probability_10_min"))
    curve = track.draw(policy.prior)
    age_s = now_s - track.last_s
    return {
        "last_use_s": age_s,
        "next_use_s": _finite(curve.quantile(age_s, 0.5) - age_s),
        "next_use_90_s": _finite(curve.quantile(age_s, 0.9) - age_s),
        "probability_10_min": curve.probability(age_s, _SOON_S),
    }


def _finite(number: float) -> float | None:
    return number if number < math.inf else None


def in_words(found: Mapping[str, Any]) -> str:
    """Return the figures of an outlook in sentences."""
    return " ".join(filter(None, [_use_in_words(found), _stay_in_words(found), _ahead_in_words(found)]))


def _use_in_words(found: Mapping[str, Any]) -> str:
    if not found["uses"]:
        return "It was never used, so nothing is foreseen of it."
    half, most = found["next_use_s"], found["next_use_90_s"]
    when = "is not expected again" if half is None else f"is expected within {format_seconds(half)}"
    if half is not None and most is not None:
        when += f" (nine times of ten within {format_seconds(most)})"
    times = "once" if found["uses"] == 1 else f"{found['uses']} times"
    return (
        f"It was used {times}, last {format_seconds(found['last_use_s'])} ago, and {when}; within ten minutes with a "
        f"probability of {found['probability_10_min']:.0%}."
    )


def _stay_in_words(found: Mapping[str, Any]) -> str:
    figures = f"{format_bytes(found['size_bytes'])} that take {format_seconds(found['load_s'])} to load"
    if not found["is_loaded"]:
        hint = "; a hint says that it is wanted" * found["is_promised"]
        return f"It is {'being loaded' if found['is_loading'] else 'not loaded'}: {figures}{hint}."
    if found["is_promised"]:
        return f"Its {figures} stay: a hint says that it is wanted."
    compared = found["worth_of_those_that_leave"]
    times = f", {found['worth'] / compared:.3g} times what left last was worth" if _is_comparable(found) else ""
    return f"It is loaded: {figures}, worth {found['worth']:.3g} by {_EXPERTS[found['expert']]}{times}."


def _is_comparable(found: Mapping[str, Any]) -> bool:
    return bool(found["expert"] == "hazard" and found["worth_of_those_that_leave"] > 0.0)


def _ahead_in_words(found: Mapping[str, Any]) -> str:
    if found["is_forbidden"]:
        return "It is never fetched ahead: that was forbidden."
    if found["is_loaded"] or found["is_loading"]:
        return ""
    if found["uses"] < LEAST_GAPS:
        return f"It is not fetched ahead before it was used {LEAST_GAPS} times."
    if not found["worth_ahead"]:
        return f"It is not fetched ahead: at no time soon is its use as likely as {LEAST_PROBABILITY:.0%}."
    record = (
        f"of {found['bets']:.0f} such bets on it {found['bets_won']:.0f} were won, of "
        f"{found['bets_of_its_class']:.0f} on uses worth as much {found['bets_of_its_class_won']:.0f}"
    )
    if not found["is_trusted"]:
        return f"It is not fetched ahead, though its use is likely: {record}."
    return f"It is fetched ahead as soon as nobody waits and what would leave is worth less: {record}."
