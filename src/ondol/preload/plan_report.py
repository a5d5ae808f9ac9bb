"""decision: the plan of preloading as plain data, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ondol.preload.hint import HintStatus
    from ondol.preload.plan import Plan

__all__ = ["PlanFacts", "hint_in_words", "plan_report"]


class PlanFacts(NamedTuple):
    """What there is beside the plan. ``now_s`` is of the wall clock; ``errors`` are the last ones, by model."""

    is_enabled: bool
    paused_reason: str | None
    loading: Sequence[str]
    registered: Collection[str]
    errors: Mapping[str, str]
    foreseen: Sequence[Mapping[str, Any]]
    hints: Sequence[HintStatus]
    now_s: float


def plan_report(plan: Plan, facts: PlanFacts) -> dict[str, Any]:
    """Return what is loaded ahead of use now and next, what is not and why, what is foreseen, and the hints."""
    found = {
        "is_enabled": facts.is_enabled,
        "paused_reason": facts.paused_reason,
        "loading": list(facts.loading),
        "loads": [name for name in plan.loads if name not in facts.loading],
        "waiting": list(plan.waiting),
        "left_out": [{"name": name, "reason": reason} for name, reason in plan.left_out.items()],
        "blocked": [
            {"name": name, "waits_on": list(obstacles), "reason": _obstacles(name, obstacles, facts)}
            for name, obstacles in plan.blocked.items()
        ],
        "foreseen": [dict(row) for row in facts.foreseen],
        "hints": [hint.as_dict() for hint in facts.hints],
    }
    return {**found, "words": _in_words(found, facts)}


def _obstacles(name: str, obstacles: Sequence[str], facts: PlanFacts) -> str:
    return "; ".join(_obstacle(name, other, facts) for other in obstacles)


def _obstacle(name: str, other: str, facts: PlanFacts) -> str:
    who = "it" if other == name else other
    if other not in facts.registered:
        return f"{who} is not registered"
    return f"{who} could not be preloaded: {facts.errors.get(other, 'its last preload failed')}"


def _in_words(found: Mapping[str, Any], facts: PlanFacts) -> list[str]:
    lines = [_state_in_words(facts)]
    for name, text in (("loading", "Loads now"), ("loads", "Comes next"), ("waiting", "Waits for dependencies")):
        if found[name]:
            lines.append(f"{text}: {', '.join(found[name])}.")
    lines += [f"{row['name']} is left out: it {row['reason']}." for row in found["left_out"]]
    lines += [f"{row['name']} is blocked: {row['reason']}." for row in found["blocked"]]
    lines += [f"{row['name']} {row['words']}." for row in found["foreseen"]]
    lines += [f"{hint.model}: {hint_in_words(hint, facts.now_s)}" for hint in facts.hints]
    return lines


def _state_in_words(facts: PlanFacts) -> str:
    if not facts.is_enabled:
        return "Preloading is off."
    if facts.paused_reason is not None:
        return f"Preloading is paused: {facts.paused_reason}."
    return "Preloading is on."


def hint_in_words(hint: HintStatus, now_s: float) -> str:
    """Return what a hint says and does, as sentences."""
    words = [f"Hint {hint.id}: wanted {hint.description}."]
    if not hint.is_registered:
        words.append("There is no such model yet.")
    if hint.is_active:
        words.append("Its time is now: the model is loaded and kept.")
    if hint.load_at_s is not None:
        in_s = max(0.0, hint.load_at_s - now_s)
        words.append(f"{'Then' if hint.is_active else 'It'} loads in {format_seconds(in_s)}.")
    if hint.last_error is not None:
        words.append(f"Its last load failed: {hint.last_error}.")
    return " ".join(words)
