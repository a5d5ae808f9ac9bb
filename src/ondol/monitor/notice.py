"""decision: what a notice is: the news of one group of alerts, as plain values."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.monitor.alerts import AlertEvent

__all__ = ["ALL_LABELS", "Notice", "NoticeAlert", "alert_of", "fingerprint_of", "group_key_of", "group_labels_of"]

ALL_LABELS: Final = "..."
"""As the only label to group by: every alert is a group of its own."""

_FNV_OFFSET: Final = 14695981039346656037
_FNV_PRIME: Final = 1099511628211
_SEPARATOR: Final = b"\xff"


class NoticeAlert(NamedTuple):
    """One alert in a notice."""

    status: Literal["firing", "resolved"]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    """``summary`` (what was measured), ``description`` (what to do, if the rule says it) and ``condition``."""
    starts_at: float
    """Wall-clock seconds since the Unix epoch."""
    ends_at: float | None
    """``None`` while it fires."""
    value: float | None
    fingerprint: str
    """The same for each notice of an alert with these labels."""


class Notice(NamedTuple):
    """What a notifier is to tell. Each alert in it is news for this notifier, unless the notice is a repetition."""

    group_key: str
    group_labels: Mapping[str, str]
    status: Literal["firing", "resolved"]
    """``firing`` as long as the receiver knows of an alert of the group that fires, listed here or told before."""
    alerts: tuple[NoticeAlert, ...]


def alert_of(event: AlertEvent, fingerprint: str) -> NoticeAlert:
    """Return the alert as its newest event says it is."""
    annotations = {"summary": event.reason, "description": event.message, "condition": event.condition}
    is_firing = event.state == "fired"
    return NoticeAlert(
        status="firing" if is_firing else "resolved",
        labels=MappingProxyType(dict(event.labels)),
        annotations=MappingProxyType({name: text for name, text in annotations.items() if text}),
        starts_at=event.starts_at,
        ends_at=None if is_firing else event.at,
        value=event.value,
        fingerprint=fingerprint,
    )


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Return 16 hex digits that stand for the labels; the same that Alertmanager gives them (FNV-1a, 64 bits)."""
    value = _FNV_OFFSET
    for name in sorted(labels):
        parts = (text.encode(errors="surrogatepass") + _SEPARATOR for text in (name, labels[name]))
        for byte in b"".join(parts):
            value = ((value ^ byte) * _FNV_PRIME) & 0xFFFF_FFFF_FFFF_FFFF
    return f"{value:016x}"


def group_labels_of(labels: Mapping[str, str], by: tuple[str, ...]) -> Mapping[str, str]:
    """Return the labels that name the alert's group; one that the alert does not have is left out."""
    names = sorted(labels) if by == (ALL_LABELS,) else [name for name in by if name in labels]
    return MappingProxyType({name: labels[name] for name in names})


def group_key_of(group_labels: Mapping[str, str]) -> str:
    """Return the group's key in Alertmanager's form.

    >>> group_key_of({"severity": "critical"})
    '{}:{severity="critical"}'
    """
    pairs = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(group_labels.items()))
    return "{}:{" + ", ".join(pairs) + "}"
