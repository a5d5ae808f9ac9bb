"""decision: a notice as the body of Alertmanager's webhook (version 4), and the signature that proves who sent it."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ondol.monitor.notice import Notice, NoticeAlert

__all__ = ["SIGNATURE_HEADER", "encode_notice", "rfc3339", "sign", "verify_signature"]

SIGNATURE_HEADER: Final = "X-Ondol-Signature"
NOT_ENDED: Final = "0001-01-01T00:00:00Z"
"""What Alertmanager sends as ``endsAt`` of an alert that fires."""


def encode_notice(notice: Notice, receiver: str, external_url: str = "") -> bytes:
    """Return the JSON body.

    Args:
        notice: what to tell.
        receiver: the name of who is told.
        external_url: where a reader can look at the service that sends it.
    """
    body = {
        "version": "4",
        "groupKey": notice.group_key,
        "truncatedAlerts": 0,
        "status": notice.status,
        "receiver": receiver,
        "groupLabels": dict(notice.group_labels),
        "commonLabels": _common(alert.labels for alert in notice.alerts),
        "commonAnnotations": _common(alert.annotations for alert in notice.alerts),
        "externalURL": external_url,
        "alerts": [_encode_alert(alert, external_url) for alert in notice.alerts],
    }
    # A lone surrogate in a label has no UTF-8 form: it must not keep the rest from being told.
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")


def _encode_alert(alert: NoticeAlert, external_url: str) -> dict[str, Any]:
    return {
        "status": alert.status,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": NOT_ENDED if alert.ends_at is None else rfc3339(alert.ends_at),
        "generatorURL": external_url,
        "fingerprint": alert.fingerprint,
    }


def _common(mappings: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what all mappings have in common."""
    first, *others = (dict(mapping) for mapping in mappings)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def rfc3339(wall_s: float) -> str:
    """Return seconds since the Unix epoch as a UTC time with milliseconds.

    >>> rfc3339(1_750_000_000.25)
    '2025-06-15T15:06:40.250Z'
    """
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sign(secret: str, body: bytes, now_s: float) -> str:
    """Return the value of the header ``X-Ondol-Signature`` for ``body``, sent at ``now_s`` (Unix seconds)."""
    stamp = int(now_s)
    return f"t={stamp},v1={_digest(secret, body, str(stamp))}"


def _digest(secret: str, body: bytes, stamp: str) -> str:
    return hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()


def verify_signature(secret: str, body: bytes, header: str, now: float, tolerance_s: float = 300.0) -> bool:
    """Return whether ``body`` was signed with ``secret`` and not long ago; for programs that receive notices.

    A receiver calls it with the bytes of the request as they came, before it parses them. Takes the same time for
    every wrong signature. Several ``v1`` are allowed, one of them has to match.

    Args:
        secret: what sender and receiver share.
        body: the request's body.
        header: the value of ``X-Ondol-Signature``.
        now: seconds since the Unix epoch.
        tolerance_s: how old (or, with clocks that differ, how new) a signature may be, against replays.

    >>> header = sign("geheim", b"{}", 1_750_000_000)
    >>> verify_signature("geheim", b"{}", header, now=1_750_000_010)
    True
    >>> verify_signature("geheim", b"{} ", header, now=1_750_000_010)
    False
    """
    fields = [field.strip().partition("=")[::2] for field in header.split(",")]
    stamps = [value for name, value in fields if name == "t"]
    given = [value.encode() for name, value in fields if name == "v1"]
    if len(stamps) != 1 or not _is_recent(stamps[0], now, tolerance_s):
        return False
    wanted = _digest(secret, body, stamps[0]).encode()
    return any([hmac.compare_digest(wanted, value) for value in given])  # noqa: C419  # each is compared, always


def _is_recent(stamp: str, now: float, tolerance_s: float) -> bool:
    return stamp.isascii() and stamp.isdigit() and len(stamp) <= 15 and abs(now - int(stamp)) <= tolerance_s
