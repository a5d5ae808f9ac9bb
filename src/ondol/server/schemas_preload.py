"""adapter: the JSON forms of the plan of preloading, of what is foreseen of models, and of hints."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

__all__ = [
    "BlockedPreload",
    "ForeseenPreload",
    "LeftOutPreload",
    "PreloadForecast",
    "PreloadHint",
    "PreloadHintList",
    "PreloadHintRequest",
    "PreloadOutlook",
    "PreloadPlan",
]

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Words = Annotated[str, Meta(description="The same in words.")]
_Wall = Annotated[float | None, Meta(description="Seconds since 1970; null: never again.")]
_Ahead = Annotated[float | None, Meta(description="Seconds from now; null: not expected again, or never used.")]


class PreloadHintRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """When a model will be wanted; `at`, `repeat` or both."""

    model: Annotated[_Name, Meta(description="Its name; it may be registered later.")]
    at: Annotated[
        Annotated[str, Meta(max_length=64)] | float | None,
        Meta(description="`08:55`, ISO 8601 text, or seconds since 1970.", examples=["08:55"]),
    ] = None
    repeat: Annotated[
        Annotated[str, Meta(max_length=200)] | float | None,
        Meta(
            description="`daily`, `weekdays`, `weekends`, `weekly`, an interval such as `1h30m` or seconds, or a cron "
            "expression; once when null.",
            examples=["weekdays", "55 8 * * 1-5"],
        ),
    ] = None
    zone: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="An IANA name; the server's own when null.", examples=["Asia/Seoul"]),
    ] = None
    hold_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="How long the model is kept after each of the times.")
    ] = 300.0


class PreloadHint(msgspec.Struct, kw_only=True):
    """A hint, and what came of it."""

    id: Annotated[str, Meta(description="The same hint has always the same.")]
    model: str
    description: Annotated[str, Meta(examples=["every weekday at 08:55 (Asia/Seoul)"])]
    next_at_s: _Wall
    load_at_s: Annotated[float | None, Meta(description="When its load begins for that.")]
    lead_s: Annotated[float, Meta(description="How long before, by learnt load times.")]
    hold_s: float
    is_active: Annotated[bool, Meta(description="Its model is being loaded, or kept, for one of the times now.")]
    is_registered: Annotated[bool, Meta(description="Whether there is such a model yet.")]
    loads: int
    failures: Annotated[int, Meta(description="Of the loads, those that failed.")]
    missed: Annotated[int, Meta(description="Times at which no load was possible.")]
    last_error: Annotated[str | None, Meta(description="Of its last load; null when that succeeded.")]


class PreloadHintList(msgspec.Struct, kw_only=True):
    """Every hint, the one that acts next first."""

    data: list[PreloadHint]


class BlockedPreload(msgspec.Struct, kw_only=True):
    """A model that is wanted ahead of use and cannot be loaded."""

    name: str
    waits_on: list[str]
    reason: str


class LeftOutPreload(msgspec.Struct, kw_only=True):
    """A model that is wanted ahead of use and has no room."""

    name: str
    reason: str


class ForeseenPreload(msgspec.Struct, kw_only=True):
    """An absent model whose fetching ahead will be considered."""

    name: str
    in_s: Annotated[float, Meta(description="Seconds until then; every use changes it.")]
    probability: Annotated[float, Meta(description="Of its use before it would leave again, 0 to 1.")]
    worth: Annotated[float, Meta(description="In a unit of its own: what is worth more goes first.")]
    is_trusted: Annotated[bool, Meta(description="Whether enough such bets were won.")]
    words: _Words


class PreloadPlan(msgspec.Struct, kw_only=True):
    """What is loaded ahead of use now and next, what is not and why, and the figures."""

    is_enabled: bool
    paused_reason: Annotated[str | None, Meta(description="Why it is paused; null when it is not.")]
    loading: list[str]
    loads: Annotated[list[str], Meta(description="Come next, in this order.")]
    waiting: Annotated[list[str], Meta(description="Come when what they depend on is ready.")]
    left_out: list[LeftOutPreload]
    blocked: list[BlockedPreload]
    foreseen: Annotated[list[ForeseenPreload], Meta(description="The next 20, soonest first.")]
    hints: list[PreloadHint]
    words: Annotated[list[str], Meta(description="All of it as sentences.")]
    statistics: Annotated[dict[str, Any], Meta(description="As `preloader` in `/v1/stats`.")]


class PreloadOutlook(msgspec.Struct, kw_only=True):
    """What is foreseen of a model, with the figures behind it."""

    name: str
    is_loaded: bool
    is_loading: bool
    is_forbidden: Annotated[bool, Meta(description="It is never fetched ahead.")]
    is_promised: Annotated[bool, Meta(description="A hint keeps it.")]
    uses: int
    last_use_s: Annotated[float | None, Meta(description="Seconds ago; null: never used.")]
    next_use_s: Annotated[_Ahead, Meta(description="By then it is used with a probability of 50 %.")]
    next_use_90_s: Annotated[_Ahead, Meta(description="By then it is used with a probability of 90 %.")]
    probability_10_min: Annotated[float | None, Meta(description="Of a use within ten minutes, 0 to 1.")]
    load_s: float
    size_bytes: int
    worth: Annotated[float, Meta(description="Of keeping a byte, in the unit of `expert`.")]
    expert: Annotated[str, Meta(examples=["hazard", "frequency"])]
    worth_ahead: Annotated[float, Meta(description="Of fetching it now; 0: its use is not likely enough.")]
    worth_of_those_that_leave: float
    probability_ahead: float
    bets: Annotated[float, Meta(description="On fetching it ahead, of late.")]
    bets_won: float
    bets_of_its_class: Annotated[float, Meta(description="On uses worth as much, of all models.")]
    bets_of_its_class_won: float
    is_trusted: bool
    words: _Words
    is_pinned: bool | None = None
    last_error: Annotated[str | None, Meta(description="Of its last preload.")] = None
    hints: list[PreloadHint] | None = None


class PreloadForecast(msgspec.Struct, kw_only=True):
    """What is foreseen of each model: those in memory first, then by worth."""

    data: list[PreloadOutlook]
    total: Annotated[int, Meta(description="How many there are beyond the limit, too.")]
