"""decision: what the live status page shows, drawn from the service's statistics as plain JSON values.

The page must go on showing the rest when one part of the statistics is missing or odd, so every value is looked up
with care: what is absent, of another kind, or not a finite number becomes ``None`` (the page shows a dash).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["MAX_DECISIONS", "MAX_EVENTS", "MAX_RATE_GAP_S", "REQUEST_METRIC", "snapshot"]

REQUEST_METRIC: Final = "http.request_seconds"
"""The metric that holds the duration of every request the server answered."""

MAX_RATE_GAP_S: Final = 10.0
"""Snapshots further apart than this give no request rate: it would be the mean of a time nobody was watching."""

MAX_DECISIONS: Final = 8
"""Most tuning decisions shown, newest first."""

MAX_EVENTS: Final = 5
"""Most transitions of alerts shown, newest first."""

_URGENCY: Final = ("critical", "warning", "info")
_MODEL_FIELDS: Final = (
    *("size_bytes", "load_seconds", "leases", "priority", "progress", "eta_s", "retry_in_s"),
    *("since_s", "changed_at", "last_used_at", "last_error_at"),
)


def snapshot(
    stats: Mapping[str, Any], readiness: Mapping[str, Any], *, previous: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return one snapshot for the page; every leaf is a string, boolean, finite number or ``None``.

    Args:
        stats: what ``OptimizationService.get_stats()`` returns.
        readiness: what ``OptimizationService.readiness()`` returns.
        previous: the snapshot before this one; the request rate is the difference to it.
    """
    health = _mapping(stats.get("system_health"))
    monitor = _mapping(stats.get("monitor"))
    uptime_s = _number(stats.get("uptime_seconds"))
    return {
        "environment": _text(stats.get("environment")),
        "is_ready": readiness.get("ready") is True,
        "uptime_s": uptime_s,
        "models": _models(_mapping(stats.get("models")), readiness),
        "model_memory": _pick(stats.get("models"), "used_bytes", "limit_bytes"),
        "memory": _memory(health),
        "process": {
            "cpu_percent": _number(health.get("cpu_percent")),
            "threads": _number(health.get("threads")),
            "open_files": _number(health.get("open_files")),
            "loop_lag_s": _number(health.get("loop_lag_seconds")),
        },
        "cache": _cache(_mapping(stats.get("cache"))),
        "preloader": _preloader(_mapping(stats.get("preloader"))),
        "is_monitored": monitor.get("is_enabled") is not False,
        "alerts": _alerts(monitor.get("alerts")),
        **_around_alerts(_mapping(monitor.get("alerts"))),
        "tuner": _tuner(_mapping(stats.get("tuner"))),
        "requests": _requests(_mapping(monitor.get("metrics")), uptime_s, previous or {}),
    }


def _cache(cache: Mapping[str, Any]) -> dict[str, Any]:
    policy = _mapping(cache.get("policy"))
    figures = ("hit_rate", "hits", "misses", "entries", "used_bytes", "max_bytes", "evictions", "saved_seconds")
    return {
        **_pick(cache, *figures),
        "policy": policy.get("policy"),
        "policy_in_charge": policy.get("in_charge", policy.get("policy")),
        "tiers": {
            name: _pick(tier, "hits", "misses", "entries", "used_bytes", "max_bytes")
            | {"is_up": tier.get("is_up", tier.get("is_open"))}
            for name, tier in _mapping(cache.get("tiers")).items()
            if name != "memory"
        },
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    # Percent and its like are floats with their own text form; the page gets the bare number.
    return value if type(value) is int else float(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else []


def _pick(source: object, *names: str) -> dict[str, Any]:
    mapping = _mapping(source)
    return {name: _number(mapping.get(name)) for name in names}


def _models(stats: Mapping[str, Any], readiness: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Join the pool's figures and the readiness report by name; each may know models the other does not."""
    figures = {_text(model.get("name")): model for model in map(_mapping, _items(stats.get("models")))}
    reports = {_text(model.get("name")): model for model in map(_mapping, _items(readiness.get("models")))}
    return [_model(name, figures.get(name, {}), reports.get(name, {})) for name in {**figures, **reports}]


def _model(name: str, figures: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    state = _text(report.get("state") or figures.get("state")).lower()
    return {
        "name": name,
        "state": state,
        "is_ready": report.get("ready") is True or state == "ready",
        "reason": _text(report.get("reason") or figures.get("reason")),
        "last_error": _text(figures.get("last_error")),
        "is_pinned": figures.get("is_pinned") is True,
        **_pick(figures, *_MODEL_FIELDS),
    }


def _memory(health: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rss_bytes": _number(health.get("rss_bytes")),
        "used_bytes": _number(health.get("memory_used_bytes")),
        "limit_bytes": _number(health.get("memory_limit_bytes")),
        "percent": _number(health.get("memory_percent")),
    }


def _count(value: object) -> float | int | None:
    return len(value) if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) else _number(value)


def _preloader(stats: Mapping[str, Any]) -> dict[str, Any]:
    blocked = _mapping(stats.get("blocked"))
    foresight = _mapping(stats.get("foresight"))
    return {
        "success_rate": _number(stats.get("success_rate")),
        "attempts": _count(stats.get("attempts")),
        "failed": _count(stats.get("failed")),
        "queued": _count(stats.get("queued")),
        "loading": _count(stats.get("loading")),
        "blocked": [
            {"name": _text(name), "waits_on": [_text(other) for other in _items(missing)]}
            for name, missing in blocked.items()
        ],
        "paused_reason": _text(stats.get("paused_reason")),
        **_pick(foresight, "fetched", "precision", "wasted", "waiting_saved_s"),
        "expert": _text(foresight.get("expert")),
    }


def _alerts(alerts: object) -> list[dict[str, Any]]:
    """Return what fires, the most severe first."""
    active = _mapping(alerts).get("active", alerts)
    if isinstance(active, Mapping):
        active = [{"name": name, **_mapping(alert)} for name, alert in active.items()]
    ends = {
        _text(silence.get("id")): _number(silence.get("ends_at"))
        for silence in map(_mapping, _items(_mapping(alerts).get("silences")))
    }
    return sorted((_alert(alert, ends) for alert in _items(active)), key=_urgency)


def _urgency(alert: Mapping[str, Any]) -> int:
    severity = alert["severity"]
    return _URGENCY.index(severity) if severity in _URGENCY else len(_URGENCY)


def _alert(alert: object, silence_ends: Mapping[str, Any]) -> dict[str, Any]:
    given = _mapping(alert)
    silence = given.get("silenced_by")
    return {
        "name": _text(given.get("name") or given.get("rule")) if given else _text(alert),
        "severity": _text(given.get("severity")) or "warning",
        # The value beside it is the newest: not the reason, which names the one that it had when it fired.
        "reason": _text(given.get("condition") or given.get("reason")),
        "message": _text(given.get("message")),
        "starts_at": _number(given.get("starts_at") or None),
        "is_silenced": silence is not None,
        "silenced_until": None if silence is None else silence_ends.get(_text(silence)),
        **_pick(given, "value", "since_seconds"),
    }


def _around_alerts(alerts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may fire soon, the last transitions, and how the notices fare."""
    pending = sorted((_alert(rule, {}) for rule in map(_mapping, _items(alerts.get("pending"))) if rule), key=_urgency)
    events = [_event(event) for event in map(_mapping, _items(alerts.get("recent"))) if event]
    notices = _mapping(alerts.get("notices")).items()
    return {
        "pending_alerts": pending,
        "alert_events": events[-MAX_EVENTS:][::-1],
        "notices": [
            {"name": name, "last_error": _text(_mapping(figures).get("last_error"))}
            | _pick(figures, "sent", "failed", "queued", "dropped")
            for name, figures in notices
        ],
    }


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: _text(event.get(name)) for name in ("name", "state", "severity", "reason")},
        **_pick(event, "at", "value", "active_seconds"),
    }


def _tuner(stats: Mapping[str, Any]) -> dict[str, Any]:
    decisions = [_decision(decision) for decision in _items(stats.get("decisions"))]
    return {
        "mode": _text(stats.get("mode")),
        "state": _text(stats.get("state")),
        "decisions": decisions[-MAX_DECISIONS:][::-1],
    }


def _decision(decision: object) -> str:
    if isinstance(decision, Mapping):
        return _text(decision.get("sentence") or decision.get("message") or decision.get("reason"))
    return _text(decision)


def _requests(
    metrics: Mapping[str, Any], uptime_s: float | None, previous: Mapping[str, Any]
) -> dict[str, float | int | None]:
    metric = _mapping(metrics.get(REQUEST_METRIC))
    count = _number(metric.get("count"))
    before = _number(_mapping(previous.get("requests")).get("count"))
    before_s = _number(previous.get("uptime_s"))
    per_s = None
    if count is not None and before is not None and uptime_s is not None and before_s is not None:
        gap_s = uptime_s - before_s
        # A restarted service counts from zero again: no rate until the next snapshot.
        per_s = (count - before) / gap_s if 0 < gap_s <= MAX_RATE_GAP_S and count >= before else None
    recent = _mapping(_mapping(metric.get("windows")).get("5m"))
    return {"count": count, "per_s": per_s, "p50_s": _number(recent.get("p50")), "p99_s": _number(recent.get("p99"))}
