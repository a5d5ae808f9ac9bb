"""adapter: the tables of `ondol alerts`, their times by this machine's clock."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.figures import by_urgency
from ondol.cli.layout import Column
from ondol.cli.output import print_table
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "UNWATCHED",
    "alert_rows",
    "event_row",
    "fate",
    "file_rule_row",
    "moment",
    "print_rows",
    "rule_row",
    "silence_row",
]

UNWATCHED: Final = "Monitoring is off (ENABLE_PERFORMANCE_MONITORING): the rules are not watched, no alert can fire."
"""What a server without monitoring has to say of its alerts."""


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print a table, or the sentence ``nothing`` when it has no rows. Columns marked with ``!`` are never wrapped."""
    if rows:
        print_table([Column(title.removesuffix("!"), is_whole=title.endswith("!")) for title in titles], rows)
    else:
        click.echo(nothing)


def fate(notifier: Mapping[str, Any]) -> str:
    """Return how the notices of a notifier fare."""
    counts = ("sent", "failed", "retries", "queued", "dropped")
    parts = [f"{notifier.get(name, 0)} {name}" for name in counts if notifier.get(name) or name == "sent"]
    if notifier.get("last_error"):
        parts.append(f"last error: {notifier['last_error']}")
    return ", ".join(parts)


def alert_rows(overview: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of what fires, the most severe first, and of what may fire soon."""
    ends = {silence.get("id"): silence.get("ends_at") for silence in overview["silences"]}
    silenced = {alert.get("name"): alert.get("silenced_by") for alert in overview["active"]}
    rows = []
    for rule in by_urgency(rule for rule in overview["rules"] if rule.get("state") in {"firing", "pending"}):
        row = rule_row(rule)
        if (silence := silenced.get(rule.get("name"))) is not None:
            row[1] += f", silenced until {moment(ends.get(silence))}"
        rows.append(row)
    return rows


def rule_row(rule: Mapping[str, Any]) -> list[str]:
    """Return the row of a rule and where its alert is."""
    return [
        str(rule.get("name")),
        str(rule.get("state")),
        str(rule.get("severity")),
        _span(rule.get("since_seconds")),
        _figure(rule.get("value")),
        str(rule.get("condition")),
        str(rule.get("message") or ""),
    ]


def _span(seconds: object) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return f"{seconds:.0f} s" if seconds < 60 else format_seconds(seconds)


def _figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else "-"


def moment(at_s: object) -> str:
    """Return a time by this machine's clock."""
    if not isinstance(at_s, (int, float)):
        return "-"
    try:
        return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):  # no year that a calendar has
        return "-"


def event_row(event: Mapping[str, Any]) -> list[str]:
    """Return the row of a transition."""
    is_over = event.get("state") == "resolved"
    return [
        moment(event.get("at")),
        str(event.get("name")),
        str(event.get("state")),
        str(event.get("severity")),
        _figure(event.get("value")),
        _span(event.get("active_seconds")) if is_over else "",
        str(event.get("reason") or ""),
    ]


def silence_row(silence: Mapping[str, Any]) -> list[str]:
    """Return the row of a silence."""
    return [
        str(silence.get("id")),
        " ".join(f"{label}={glob}" for label, glob in (silence.get("matchers") or {}).items()),
        str(silence.get("state")),
        moment(silence.get("ends_at")),
        str(silence.get("created_by") or ""),
        str(silence.get("comment") or ""),
    ]


def file_rule_row(rule: Mapping[str, Any]) -> list[str]:
    """Return the row of a rule that a file makes or leaves."""
    origin = "default" if rule["is_default"] else "file"
    return [rule["name"], origin, rule["severity"], rule["condition"], rule["message"]]
