"""decision: a server's snapshot as headings, names and values for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ondol.units import Percent, format_bytes, format_seconds

__all__ = [
    "about_time",
    "ago",
    "by_urgency",
    "figures",
    "reason_beyond",
    "size_of",
    "with_numbers",
]

Fields = list[tuple[str, str]]

_MISSING: Final = "-"
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_EXPERTS: Final = {"hazard": "likelihood of the next use", "frequency": "frequency of use"}
_URGENCY: Final = ("critical", "warning", "info")
_PERCENTAGE: Final = re.compile(r"[0-9]+(\.[0-9]+)?%")


def with_numbers(value: Any) -> Any:
    """Return ``value`` with percentages that came as text turned back into numbers.

    >>> with_numbers({"hit_rate": "83.2%", "reason": "90% full", "rows": ["5%"]})
    {'hit_rate': Percent(83.2), 'reason': '90% full', 'rows': [Percent(5.0)]}
    """
    if isinstance(value, Mapping):
        return {key: with_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_numbers(each) for each in value]
    is_percentage = isinstance(value, str) and _PERCENTAGE.fullmatch(value)
    return Percent(value.removesuffix("%")) if is_percentage else value


def reason_beyond(state: str, reason: str) -> str:
    """Return what ``reason`` says that the name of the state does not.

    >>> reason_beyond("registered", "registered, not asked for yet"), reason_beyond("failed", "no such file")
    ('not asked for yet', 'no such file')
    """
    return reason.removeprefix(state).lstrip(",:; ")


def about_time(progress: object, eta_s: object) -> str:
    """Return how far something is and how long it still takes, as far as that is known.

    >>> about_time(0.421, 3.14), about_time(None, 75.0), about_time(0.99, None), about_time(None, None)
    ('42 %, 3.10 s left', '1 min 15 s left', '99 %', '')
    """
    parts = []
    if isinstance(progress, (int, float)):
        parts.append(f"{progress:.0%}".replace("%", " %"))
    if isinstance(eta_s, (int, float)):
        parts.append(f"{format_seconds(round(eta_s, 1))} left")
    return ", ".join(parts)


def ago(seconds: object) -> str:
    """Return how long ago something was, in one unit; nothing when that is not known.

    >>> ago(0.2), ago(59.9), ago(200), ago(90000), ago(None)
    ('just now', '59 s ago', '3 min ago', '1 d ago', '')
    """
    if not isinstance(seconds, (int, float)):
        return ""
    for unit, length_s in _UNITS:
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit} ago"
    return "just now"


def size_of(size_bytes: object, *, is_known: bool) -> str:
    """Return a size; one that is only expected is marked so.

    >>> size_of(1024, is_known=True), size_of(1024, is_known=False), size_of(None, is_known=True)
    ('1.0 KiB', '≈ 1.0 KiB', '')
    """
    if not isinstance(size_bytes, (int, float)):
        return ""
    return format_bytes(size_bytes) if is_known else f"≈ {format_bytes(size_bytes)}"


def by_urgency(alerts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what fires before what may fire soon, and the most severe first.

    >>> [alert["n"] for alert in by_urgency([{"n": 1, "state": "pending"}, {"n": 2, "severity": "info"},
    ...                                      {"n": 3, "severity": "critical"}])]
    [3, 2, 1]
    """

    def key(alert: Mapping[str, Any]) -> tuple[bool, int]:
        severity = alert.get("severity")
        return alert.get("state") == "pending", _URGENCY.index(severity) if severity in _URGENCY else len(_URGENCY)

    return sorted(alerts, key=key)


def figures(url: str, snapshot: Mapping[str, Any], similarity: object = None) -> list[tuple[str, Fields]]:
    """Return the parts of ``snapshot``, each a heading and its fields; what is absent shows as a dash.

    Args:
        url: where the server is.
        snapshot: what :func:`ondol.server.snapshot.snapshot` makes.
        similarity: the similarity engine's statistics; only their plain numbers are shown.
    """
    return [
        ("Server", _server(url, snapshot)),
        ("Models", _models(snapshot)),
        ("Cache", _cache(_part(snapshot, "cache"))),
        *_similarity(similarity),
        ("Preloading", _preloading(_part(snapshot, "preloader"))),
        ("Machine", _machine(_part(snapshot, "memory"), _part(snapshot, "process"))),
        ("Alerts", _alerts(snapshot)),
        ("Tuning", _tuning(_part(snapshot, "tuner"))),
    ]


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name)
    return part if isinstance(part, Mapping) else {}


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def _text(value: object) -> str:
    return _MISSING if value is None or value == "" else str(value)


def _number(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return _MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _bytes(value: Any) -> str:
    return format_bytes(value) if isinstance(value, (int, float)) else _MISSING


def _seconds(value: Any) -> str:
    return format_seconds(value) if isinstance(value, (int, float)) else _MISSING


def _percent(value: Any) -> str:
    return str(Percent(value)) if isinstance(value, (int, float)) else _MISSING


def _server(url: str, snapshot: Mapping[str, Any]) -> Fields:
    requests = _part(snapshot, "requests")
    median, slow = _seconds(requests.get("p50_s")), _seconds(requests.get("p99_s"))
    return [
        ("address", url),
        ("environment", _text(snapshot.get("environment"))),
        ("ready", "yes" if snapshot.get("is_ready") else "no"),
        ("up for", _seconds(snapshot.get("uptime_s"))),
        ("requests", _requests(requests)),
        ("answer time", f"median {median}, 99 % within {slow} (last 5 minutes)"),
    ]


def _requests(requests: Mapping[str, Any]) -> str:
    per_s = requests.get("per_s")
    return _number(requests.get("count")) + (f", {per_s:,.1f} a second" if isinstance(per_s, (int, float)) else "")


def _models(snapshot: Mapping[str, Any]) -> Fields:
    memory = _part(snapshot, "model_memory")
    rows = [("memory", f"{_bytes(memory.get('used_bytes'))} of {_bytes(memory.get('limit_bytes'))}")]
    return rows + [
        (_text(model.get("name")), _model_state(model)) for model in filter(_is_mapping, _items(snapshot.get("models")))
    ]


def _model_state(model: Mapping[str, Any]) -> str:
    state = _text(model.get("state"))
    parts = [state]
    if model.get("is_ready"):
        parts += [_bytes(model.get("size_bytes")), f"loaded in {_seconds(model.get('load_seconds'))}"]
    else:
        parts.append(reason_beyond(state, str(model.get("reason") or "")))
        parts.append(about_time(model.get("progress"), model.get("eta_s")))
    return ", ".join(filter(None, parts))


def _cache(cache: Mapping[str, Any]) -> Fields:
    hits, misses = _number(cache.get("hits")), _number(cache.get("misses"))
    # Of nothing there is no rate, here and below.
    rate = _MISSING if hits == misses == "0" else _percent(cache.get("hit_rate"))
    used, bound = _bytes(cache.get("used_bytes")), _bytes(cache.get("max_bytes"))
    return [
        ("hit rate", f"{rate} ({hits} hits, {misses} misses)"),
        ("size", f"{used} of {bound}, {_number(cache.get('entries'))} entries"),
        ("evictions", _number(cache.get("evictions"))),
        ("policy", _policy(cache)),
        ("time saved", _seconds(cache.get("saved_seconds"))),
        *((f"{name} tier", _tier(_part(cache["tiers"], name))) for name in _part(cache, "tiers")),
    ]


def _policy(cache: Mapping[str, Any]) -> str:
    policy, in_charge = cache.get("policy"), cache.get("policy_in_charge")
    return f"{policy}, {in_charge} in charge" if in_charge != policy else str(policy or "-")


def _tier(tier: Mapping[str, Any]) -> str:
    state = "up" if tier.get("is_up") else "down"
    entries = "" if tier.get("entries") is None else f", {_number(tier['entries'])} entries"
    return f"{state}, {_number(tier.get('hits'))} hits{entries}"


def _similarity(stats: object) -> list[tuple[str, Fields]]:
    if not isinstance(stats, Mapping):
        return []
    numbers = [(str(name), value) for name, value in stats.items() if isinstance(value, (int, float))]
    fields = [
        (name.removesuffix("_bytes").replace("_", " "), _bytes(value) if name.endswith("_bytes") else _number(value))
        for name, value in numbers
    ]
    return [("Similarity", fields)] if fields else []


def _preloading(preloader: Mapping[str, Any]) -> Fields:
    attempts = preloader.get("attempts")
    fields = [
        (
            "success rate",
            f"{_percent(preloader.get('success_rate'))} of {_number(attempts)} loads" if attempts else _MISSING,
        ),
        ("queued", _number(preloader.get("queued"))),
        ("loading", _number(preloader.get("loading"))),
    ]
    if preloader.get("fetched") is not None:
        fields.append(("fetched ahead", _fetched(preloader)))
        fields.append(("waiting saved", _seconds(preloader.get("waiting_saved_s"))))
        fields.append(("stays by", _text(_EXPERTS.get(str(preloader.get("expert")), preloader.get("expert")))))
    if preloader.get("paused_reason"):
        fields.append(("paused", str(preloader["paused_reason"])))
    for blocked in filter(_is_mapping, _items(preloader.get("blocked"))):
        waits_on = ", ".join(map(str, _items(blocked.get("waits_on"))))
        fields.append(("blocked", f"{_text(blocked.get('name'))} waits for {waits_on or _MISSING}"))
    return fields


def _fetched(preloader: Mapping[str, Any]) -> str:
    if not preloader.get("fetched"):
        return _MISSING
    precision, wasted = _percent(preloader.get("precision")), _number(preloader.get("wasted"))
    return f"{_number(preloader.get('fetched'))} models, {precision} of them used in time, {wasted} in vain"


def _machine(memory: Mapping[str, Any], process: Mapping[str, Any]) -> Fields:
    used = (
        f"{_bytes(memory.get('used_bytes'))} of {_bytes(memory.get('limit_bytes'))} ({_percent(memory.get('percent'))})"
    )
    return [
        ("memory", used),
        ("this process", _bytes(memory.get("rss_bytes"))),
        ("CPU", _percent(process.get("cpu_percent"))),
        ("threads", _number(process.get("threads"))),
        ("open files", _number(process.get("open_files"))),
    ]


def _alerts(snapshot: Mapping[str, Any]) -> Fields:
    firing = [(alert, "") for alert in filter(_is_mapping, _items(snapshot.get("alerts")))]
    pending = [(alert, "pending, ") for alert in filter(_is_mapping, _items(snapshot.get("pending_alerts")))]
    rows = [(_text(alert.get("name")), _alert(alert, state)) for alert, state in firing + pending]
    if snapshot.get("is_monitored") is False:
        rows.append(("active", "unknown: monitoring is off (ENABLE_PERFORMANCE_MONITORING), the rules are not watched"))
    return rows or [("active", "none")]


def _alert(alert: Mapping[str, Any], state: str) -> str:
    since_s = alert.get("since_seconds")
    since = f" for {_span(since_s)}" if isinstance(since_s, (int, float)) and since_s >= 1 else ""
    silenced = ", silenced" if alert.get("is_silenced") else ""
    return f"{state}{_text(alert.get('severity'))}{since}{silenced}: {_text(alert.get('message'))}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else format_seconds(seconds)


def _tuning(tuner: Mapping[str, Any]) -> Fields:
    decisions = [("decision", str(decision)) for decision in _items(tuner.get("decisions"))]
    return [("mode", f"{_text(tuner.get('mode'))}, {_text(tuner.get('state'))}"), *decisions]
