"""adapter: the JSON forms of alert rules, of alerts and their history, and of silences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "ActiveAlert",
    "AlertHistory",
    "AlertOverview",
    "AlertRuleState",
    "AlertSilence",
    "AlertSilenceRequest",
    "AlertTransition",
]

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Wall = Annotated[float, Meta(description="Seconds since 1970.")]
_Labels = Annotated[
    dict[str, str], Meta(description="`alertname`, `severity`, `metric`, and those of the rule: what silences go by.")
]
_Matchers = Annotated[
    dict[_Name, _Name],
    Meta(
        min_length=1,
        max_length=16,
        description="By label (`alertname`, `severity`, `metric`, or one of the rule's own) a value or a glob; alerts "
        "must fit all of them.",
        examples=[{"alertname": "memory_high"}, {"severity": "info"}],
    ),
]


class AlertRuleState(msgspec.Struct, kw_only=True):
    """A rule, and where its alert is."""

    name: str
    condition: Annotated[str, Meta(examples=["system.memory_percent >= 90 for 30 s, clear at 85"])]
    severity: Annotated[str, Meta(examples=["info", "warning", "critical"])]
    state: Literal["inactive", "pending", "firing"]
    value: Annotated[float | None, Meta(description="The newest figure; null while there is none.")]
    since_seconds: Annotated[float, Meta(description="For how long it has been in this state.")]
    message: Annotated[str, Meta(description="What to do about it.")]
    labels: _Labels


class AlertTransition(msgspec.Struct, kw_only=True):
    """An alert fired, or it was resolved."""

    name: str
    state: Literal["fired", "resolved"]
    severity: str
    metric_name: str
    condition: str
    threshold: float
    value: Annotated[float | None, Meta(description="The figure then; null when there was none.")]
    at: _Wall
    active_seconds: Annotated[
        float, Meta(description="How long the condition had held; of a resolved alert, how long ago it had fired.")
    ]
    message: Annotated[str, Meta(description="What to do about it.")]
    reason: str
    labels: _Labels
    starts_at: Annotated[float, Meta(description="When it fired, in seconds since 1970.")]


class ActiveAlert(AlertTransition, kw_only=True):
    """An alert that fires: as it was when it did, with the newest figure."""

    value: Annotated[float | None, Meta(description="The newest figure; null while there is none.")]
    fired_value: Annotated[float | None, Meta(description="The figure when it fired; null when there was none.")]
    since_seconds: Annotated[float, Meta(description="For how long it has been firing.")]
    silenced_by: Annotated[str | None, Meta(description="The silence that holds back its notices; null: none.")]


class AlertSilenceRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which notices are held back, and for how long."""

    matchers: _Matchers
    duration_seconds: Annotated[
        Annotated[str, Meta(max_length=64)] | float,
        Meta(description="Seconds, or a text such as `2h` or `1h30m`; at most 365 days.", examples=[7200, "2h"]),
    ]
    comment: Annotated[str, Meta(max_length=1000, description="Why.")] = ""
    created_by: Annotated[str, Meta(max_length=200, description="Who.")] = ""


class AlertSilence(msgspec.Struct, kw_only=True):
    """Holds back the notices of the alerts it fits; the alerts themselves go on."""

    id: str
    matchers: dict[str, str]
    starts_at: _Wall
    ends_at: _Wall
    comment: str
    created_by: str
    state: Literal["active", "future"]
    ends_in_seconds: float
    rules: Annotated[list[str], Meta(description="The rules it fits, of those there are.")]


class AlertOverview(msgspec.Struct, kw_only=True):
    """Everything about alerts at this moment."""

    is_enabled: Annotated[
        bool,
        Meta(
            description="Whether the rules are watched; not with `ENABLE_PERFORMANCE_MONITORING=false`: no alert fires."
        ),
    ]
    rules: list[AlertRuleState]
    active: Annotated[list[ActiveAlert], Meta(description="Those that fire, in the order of the rules.")]
    silences: Annotated[list[AlertSilence], Meta(description="Active or still to come.")]
    notices: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="By notifier: what was sent, what failed, what waits, and the last error."),
    ]
    fired: Annotated[int, Meta(description="How often an alert fired since the start.")]
    resolved: int


class AlertHistory(msgspec.Struct, kw_only=True):
    """The last transitions, newest first."""

    data: list[AlertTransition]
    total: Annotated[int, Meta(description="How many are kept; the last 1000 are.")]
