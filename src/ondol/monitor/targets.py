"""decision: where notices go and how they are grouped: plain values that file and settings give."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AppriseTarget", "Grouping", "WebhookTarget"]


class WebhookTarget(NamedTuple):
    """An HTTP address that takes Alertmanager's webhook format."""

    url: str
    secret: str | None = None
    """Signs each body (HMAC-SHA256); ``None``: not signed."""
    timeout_s: float = 10.0
    retry_for_s: float = 300.0
    """How long a notice that cannot be delivered is tried again."""
    sends_resolved: bool = True
    name: str = "webhook"


class AppriseTarget(NamedTuple):
    """Addresses in Apprise's form, such as ``mailto://…`` or ``slack://…``; they hold secrets."""

    urls: tuple[str, ...]
    timeout_s: float = 30.0
    retry_for_s: float = 300.0
    sends_resolved: bool = True
    name: str = "apprise"


class Grouping(NamedTuple):
    """Which alerts share a notice, and when it is sent; the terms are Alertmanager's."""

    by: tuple[str, ...] = ("severity",)
    """Labels that alerts of one group have in common."""
    wait_s: float = 10.0
    """How long the first notice of a group waits for others to join it."""
    interval_s: float = 300.0
    """Least time between two notices of a group when alerts join or leave it."""
    repeat_s: float = 0.0
    """A notice of what still fires is sent again after so long; 0: never, one notice per problem."""
