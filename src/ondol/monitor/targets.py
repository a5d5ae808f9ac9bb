"""decision: where notices go and how they are grouped: plain values that file and settings give."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["AppriseTarget", "Grouping", "WebhookTarget"]

_MASK: Final = "…"


class WebhookTarget(NamedTuple):
    """An HTTP address that takes Alertmanager's webhook format; its ``repr`` shows no secret."""

    url: str
    secret: str | None = None
    """Signs each body (HMAC-SHA256); ``None``: not signed."""
    timeout_s: float = 10.0
    retry_for_s: float = 300.0
    """How long a notice that cannot be delivered is tried again."""
    sends_resolved: bool = True
    name: str = "webhook"

    def __repr__(self) -> str:
        """Return the values as logs may show them: of the address only scheme and host."""
        hidden = self._asdict() | {"url": _masked(self.url, shows_host=True), "secret": self.secret and _MASK}
        return _written("WebhookTarget", hidden)


class AppriseTarget(NamedTuple):
    """Addresses in Apprise's form, such as ``mailto://…`` or ``slack://…``.

    They hold secrets, which the ``repr`` does not show.
    """

    urls: tuple[str, ...]
    timeout_s: float = 30.0
    retry_for_s: float = 300.0
    sends_resolved: bool = True
    name: str = "apprise"

    def __repr__(self) -> str:
        """Return the values as logs may show them: of the addresses only the scheme; a token may be the host."""
        hidden = self._asdict() | {"urls": tuple(_masked(url, shows_host=False) for url in self.urls)}
        return _written("AppriseTarget", hidden)


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


def _masked(url: str, *, shows_host: bool) -> str:
    scheme, found, _ = url.partition("://")
    if not found or not scheme.isalnum():
        return _MASK
    try:
        host = urlsplit(url).hostname if shows_host else None
    except ValueError:
        host = None
    return f"{scheme}://{host}/{_MASK}" if host else f"{scheme}://{_MASK}"


def _written(name: str, values: dict[str, object]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"
