"""service: the alerts, their history, and silences, over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from ondol.errors import MonitorError
from ondol.server.decoding import read_limit, read_request
from ondol.server.plain import to_plain
from ondol.server.problems import FieldError, InvalidRequestError, UnknownSilenceError
from ondol.server.schemas_alerts import (
    AlertHistory,
    AlertOverview,
    AlertSilence,
    AlertSilenceRequest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from ondol.monitor.silences import Silence
    from ondol.server.ports import Monitor

__all__ = ["add_silence", "delete_silence", "get_alerts", "get_history", "seconds_of"]

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_SILENCE_DECODER: Final = msgspec.json.Decoder(AlertSilenceRequest)
_NO_STORE: Final = {"Cache-Control": "no-store"}
_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION: Final = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_UNITS_S: Final = (86400.0, 3600.0, 60.0, 1.0)


async def get_alerts(request: Request) -> Response:
    """Answer with each rule and where its alert is, what fires, the silences, and how the notices fare."""
    monitor = _monitor(request)
    rules = monitor.alert_states()
    alerts = monitor.alert_stats()
    fitted = {silence.id: _fitted(silence, rules) for silence in monitor.silences()}
    overview = {
        "is_enabled": alerts["is_enabled"],
        "rules": rules,
        "active": alerts["active"],
        "silences": [{**silence, "rules": fitted.get(silence["id"], [])} for silence in alerts["silences"]],
        "notices": alerts["notices"],
        "fired": alerts["fired"],
        "resolved": alerts["resolved"],
    }
    return _json(overview, AlertOverview)


async def get_history(request: Request) -> Response:
    """Answer with the last transitions, newest first."""
    limit = read_limit(request.query_params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
    events = _monitor(request).alert_history()
    newest = [event.as_dict() for event in reversed(events[-limit:])]
    return _json({"data": newest, "total": len(events)}, AlertHistory)


async def add_silence(request: Request) -> Response:
    """Hold back the notices of some alerts for a while."""
    body = await read_request(request, _SILENCE_DECODER)
    monitor = _monitor(request)
    duration_s = _duration_s(body.duration_seconds)
    try:
        silence = monitor.silence_alerts(body.matchers, duration_s, comment=body.comment, created_by=body.created_by)
    except MonitorError as exc:
        # The monitor's own word for it; a client is told the name that it gave.
        field = "duration_seconds" if str(exc).startswith("silence: duration_s=") else "body"
        raise InvalidRequestError(str(exc), FieldError(field, str(exc))) from exc
    shown = {
        **silence.as_dict(),
        "state": "active",
        "ends_in_seconds": duration_s,
        "rules": _fitted(silence, monitor.alert_states()),
    }
    return _json(shown, AlertSilence, 201)


async def delete_silence(request: Request) -> Response:
    """End a silence."""
    silence_id: str = request.path_params["silence_id"]
    if not _monitor(request).end_silence(silence_id):
        detail = f"no silence has the id {silence_id!r:.100}; GET /v1/alerts or `ondol alerts silences` lists them"
        raise UnknownSilenceError(detail, FieldError("id", detail))
    return Response(status_code=204, headers=_NO_STORE)


def seconds_of(text: str) -> float | None:
    """Return a duration such as ``2h`` or ``1h30m`` (of d, h, m and s, each at most once) in seconds.

    >>> seconds_of("2h"), seconds_of("1h30m"), seconds_of("0.5d"), seconds_of("soon"), seconds_of("")
    (7200.0, 5400.0, 43200.0, None, None)
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        return None
    return sum(float(number) * unit_s for number, unit_s in zip(found.groups(), _UNITS_S, strict=True) if number)


def _duration_s(given: float | str) -> float:
    if not isinstance(given, str):
        return given
    duration_s = seconds_of(given)
    if duration_s is None:
        message = f"must be seconds, or a text such as '45m', '2h' or '1d12h', not {given!r:.80}"
        raise InvalidRequestError(f"duration_seconds {message}", FieldError("duration_seconds", message))
    return duration_s


def _monitor(request: Request) -> Monitor:
    monitor: Monitor = request.app.state.service.monitor
    return monitor


def _fitted(silence: Silence, rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [rule["name"] for rule in rules if silence.is_matching(rule["labels"])]


def _json(answer: Mapping[str, Any], form: type[msgspec.Struct], status: int = 200) -> Response:
    """Return ``answer`` in the form that is described; what the form does not know is left out."""
    return Response(msgspec.json.encode(msgspec.convert(to_plain(answer), form)), status, _NO_STORE, "application/json")
