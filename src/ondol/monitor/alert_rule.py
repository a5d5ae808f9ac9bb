"""decision: an alert rule: which figure of which metric, what of it is a problem, for how long, and when it is over."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from ondol.errors import MonitorError
from ondol.monitor.names import check_name, label_text
from ondol.monitor.query import AGGREGATES, WINDOWS_S, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NO_DATA_CHOICES", "NO_DATA_S", "OPERATORS", "OWN_LABELS", "SEVERITIES", "AlertRule", "refusals", "shown"]

SEVERITIES: Final = ("info", "warning", "critical")
OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
NO_DATA_CHOICES: Final = ("resolve", "keep", "alert")
NO_DATA_S: Final = 300.0
"""A metric without a value for so long has no data."""

OWN_LABELS: Final = ("alertname", "metric", "severity")
"""Labels that every alert has of itself."""

MAX_LABELS: Final = 8
MAX_LABEL_CHARS: Final = 120
_LABEL: Final = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_LABEL_CHARS - 1}}}")


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Fires when a figure of a metric has been beyond the threshold for ``duration_seconds``.

    The last value must have come so long after the first: one value and then none does not fire. A figure over a
    window (``aggregate`` other than ``"last"``) counts as long as there is one.

    Args:
        name: unique among the rules.
        metric_name: what is watched.
        threshold: what the figure is compared with.
        operator: one of ``> >= < <= == !=``.
        duration_seconds: how long the condition must hold before the alert fires.
        severity: ``"info"``, ``"warning"`` or ``"critical"``.
        message: what to do about it.
        clear_threshold: an active alert is over only beyond this one, so that a value that sways around the
            threshold makes one alert. ``None``: the threshold itself.
        keep_firing_seconds: how long the condition must have been over before the alert is resolved.
        aggregate: one of :data:`ondol.monitor.query.AGGREGATES`.
        window_seconds: what the aggregate is over: 60, 300, 3600 or 86400; without meaning for ``"last"``.
        no_data: what five minutes without a value mean: ``"resolve"``: no problem; ``"keep"``: nothing changes;
            ``"alert"``: a problem, also when the metric never came since the rule was added.
        labels: go with the alert, for grouping, routing and silences.
        where: labels that a series of the metric must have to count.

    Raises:
        MonitorError: a field is not valid; the message names it and what it may be.
    """

    name: str
    metric_name: str
    threshold: float
    operator: str
    duration_seconds: float = 0.0
    severity: str = "warning"
    message: str = ""
    _: KW_ONLY
    clear_threshold: float | None = None
    keep_firing_seconds: float = 0.0
    aggregate: str = "last"
    window_seconds: float = 60.0
    no_data: Literal["resolve", "keep", "alert"] = "resolve"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    where: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field; copy the mappings, so that nobody changes them afterwards."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        for _name, sentence in refusals(given):
            raise MonitorError(f"alert rule {shown(self.name)}: {sentence}")
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        object.__setattr__(self, "where", MappingProxyType(dict(self.where)))

    def __reduce__(self) -> tuple[Callable[..., AlertRule], tuple[dict[str, Any]]]:
        """Let rules be copied and sent to other processes, which read-only mappings cannot be."""
        return _made, (self.as_dict(),)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "labels": dict(self.labels), "where": dict(self.where)}

    @property
    def query(self) -> Query:
        """What is asked of the metrics."""
        where = tuple(sorted((name, label_text(value)) for name, value in self.where.items()))
        return Query(self.metric_name, self.aggregate, float(self.window_seconds), where)

    @property
    def subject(self) -> str:
        """What is watched, in words, such as ``p99 of api.response_time{route="/x"} over 300 s``."""
        pairs = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.query.where)
        series = f"{self.metric_name}{{{pairs}}}" if pairs else self.metric_name
        if self.aggregate == "last":
            return series
        return f"{self.aggregate} of {series} over {self.window_seconds:g} s"

    @property
    def condition(self) -> str:
        """The rule in words, such as ``api.response_time > 2 for 60 s, clear at 1.5``."""
        text = f"{self.subject} {self.operator} {self.threshold:g}"
        if self.duration_seconds:
            text += f" for {self.duration_seconds:g} s"
        if self.no_data == "alert":
            text += f" or no value for {NO_DATA_S:g} s"
        at = "" if self.clear_threshold is None else f" at {self.clear_threshold:g}"
        long = f" for {self.keep_firing_seconds:g} s" if self.keep_firing_seconds else ""
        return f"{text}, clear{at}{long}" if at or long else text

    @property
    def alert_labels(self) -> dict[str, str]:
        """The labels of its alert: its own, and ``alertname``, ``severity`` and ``metric``."""
        own = {"alertname": self.name, "severity": self.severity, "metric": self.metric_name}
        return {**self.labels, **own}

    def is_broken_by(self, value: float) -> bool:
        """Return whether ``value`` is beyond the threshold."""
        return OPERATORS[self.operator](value, self.threshold)

    def is_still_broken_by(self, value: float) -> bool:
        """Return whether ``value`` keeps an alert active that has fired: whether it is beyond where it clears."""
        at = self.threshold if self.clear_threshold is None else self.clear_threshold
        return OPERATORS[self.operator](value, at)


def _made(values: dict[str, Any]) -> AlertRule:
    return AlertRule(**values)


def refusals(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each field whose value a rule cannot have, and a sentence that says so.

    Args:
        values: by the names of the fields; those that are missing are not checked.
    """
    for name, (is_valid, allowed) in _CHECKS.items():
        if name in values and not is_valid(values[name]):
            yield name, f"{name}={shown(values[name])} is not allowed: it must be {allowed}"
    if "metric_name" in values:
        try:
            check_name(values["metric_name"])
        except MonitorError as exc:
            yield "metric_name", str(exc)
    yield from _clear_refusals(values)
    for name in ("labels", "where"):
        if name in values:
            yield from ((name, text) for text in _label_refusals(name, values[name]))


def _clear_refusals(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    clear, threshold, sign = (values.get(name) for name in ("clear_threshold", "threshold", "operator"))
    if clear is None:
        return
    start = f"clear_threshold={shown(clear)} is not allowed: "
    if not _is_finite(clear):
        yield "clear_threshold", f"{start}it must be a finite number, or left out"
    elif sign in ("==", "!="):
        yield "clear_threshold", f"{start}the operator {sign} has no side on which a value is clear; leave it out"
    elif isinstance(sign, str) and sign in OPERATORS and _is_finite(threshold):
        bound = "at most" if sign in (">", ">=") else "at least"
        # An alert that is cleared by a value that breaks the rule would fire again at once.
        if (clear > threshold) if bound == "at most" else (clear < threshold):
            reason = f"with the operator {sign} it must be {bound} the threshold ({threshold:g})"
            yield "clear_threshold", f"{start}{reason}, or values that break the rule would clear its alert"


def _label_refusals(name: str, labels: object) -> Iterator[str]:
    if not isinstance(labels, Mapping):
        yield f"{name}={shown(labels)} is not allowed: it must be a mapping of label names to texts"
        return
    if len(labels) > MAX_LABELS:
        yield f"{name} has {len(labels)} labels: at most {MAX_LABELS} are allowed"
    for key, value in labels.items():
        if not isinstance(key, str) or not _LABEL.fullmatch(key):
            yield f"{name}: label name {shown(key)} is not allowed: it must be one word of ASCII letters, digits and _"
        elif name == "labels" and key in OWN_LABELS:
            yield f"labels: {key!r} is not allowed: every alert has the labels {', '.join(OWN_LABELS)} of itself"
        if not isinstance(value, str) or len(value) > MAX_LABEL_CHARS:
            allowed = f"a text of at most {MAX_LABEL_CHARS} characters"
            yield f"{name}: {key}={shown(value)} is not allowed: the value must be {allowed}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= 200


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int beyond what a float can hold
        return False


def _is_span(value: Any) -> bool:
    return _is_finite(value) and value >= 0


def _one_of(choices: tuple[object, ...]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, bool) and value in choices


_SPAN: Final = "a finite number of seconds ≥ 0"
_WINDOWS: Final = tuple(WINDOWS_S.values())
_CHECKS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "name": (_is_name, "a text of 1 to 200 characters"),
    "threshold": (_is_finite, "a finite number"),
    "operator": (_one_of(tuple(OPERATORS)), f"one of: {' '.join(OPERATORS)}"),
    "duration_seconds": (_is_span, _SPAN),
    "severity": (_one_of(SEVERITIES), f"one of: {', '.join(SEVERITIES)}"),
    "message": (_is_text, "a text"),
    "keep_firing_seconds": (_is_span, _SPAN),
    "aggregate": (_one_of(AGGREGATES), f"one of: {', '.join(AGGREGATES)}"),
    "window_seconds": (_one_of(_WINDOWS), f"one of: {', '.join(f'{window:g}' for window in _WINDOWS)}"),
    "no_data": (_one_of(NO_DATA_CHOICES), f"one of: {', '.join(NO_DATA_CHOICES)}"),
}


def shown(value: object) -> str:
    """Return ``value`` as messages show it: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out very long numbers
        return "a number that is too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
