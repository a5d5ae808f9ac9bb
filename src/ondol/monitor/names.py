"""decision: which metric names, units and labels are valid, and what a metric's name and unit say about its kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from ondol.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "LabelKey", "check_labels", "check_name", "check_time_unit", "check_unit", "kind_of"]

Kind = Literal["gauge", "counter", "summary"]
LabelKey = tuple[tuple[str, str], ...]

MAX_NAME_CHARS: Final = 120
MAX_LABELS: Final = 8
MAX_LABEL_CHARS: Final = 120

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNIT: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")

_ALIASES: Final = {
    "s": "seconds",
    "sec": "seconds",
    "secs": "seconds",
    "second": "seconds",
    "ms": "milliseconds",
    "msec": "milliseconds",
    "millisecond": "milliseconds",
    "us": "microseconds",
    "µs": "microseconds",
    "microsecond": "microseconds",
    "b": "bytes",
    "byte": "bytes",
    "%": "percent",
    "percentage": "percent",
    "1": "count",
    "counts": "count",
    "ratios": "ratio",
}
_PER_SECOND: Final = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}

_GAUGE_PREFIXES: Final = ("system.", "process.")
_GAUGE_UNITS: Final = frozenset({"percent", "ratio"})
_LEVELS: Final = frozenset(
    {
        *("cache.used_bytes", "cache.max_bytes", "cache.entries", "cache.disk.used_bytes", "cache.disk.entries"),
        "tuning.cache_bound_bytes",
    }
)
_FETCHES: Final = ("preload.fetched", "preload.fetched_used", "preload.fetched_wasted")
_COUNTER_SUFFIXES: Final = (
    "errors",
    "failures",
    "evictions",
    "decisions",
    ".cancelled",
    "cache.left",
    "tier_hits",
    *_FETCHES,
)


def check_name(name: object) -> str:
    """Return ``name`` when it can name a metric: words of ASCII letters, digits and ``_``, joined by dots.

    Raises:
        MonitorError: it cannot; the message says what a name looks like.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        message = (
            f"metric name {_shown(name)} is not valid: it must be words of ASCII letters, digits and '_' joined by "
            f"dots, not begin with a digit and have at most {MAX_NAME_CHARS} characters, like 'api.response_time'"
        )
        raise MonitorError(message)
    return name


def check_unit(unit: object) -> str:
    """Return the unit in its one spelling (``s``, ``sec`` and ``second`` are ``seconds``); values are never converted.

    Raises:
        MonitorError: it is no unit.

    >>> check_unit("ms"), check_unit("%"), check_unit("")
    ('milliseconds', 'percent', '')
    """
    if isinstance(unit, str):
        word = unit.strip().lower()
        word = _ALIASES.get(word, word)
        if not word or _UNIT.fullmatch(word):
            return word
    message = (
        f"unit {_shown(unit)} is not valid: it must be a word such as 'seconds', 'bytes', 'ratio', 'percent' or "
        "'count', or empty"
    )
    raise MonitorError(message)


def check_time_unit(unit: object) -> tuple[str, float]:
    """Return a unit of time in its one spelling, and how many of it make a second.

    Raises:
        MonitorError: it is no unit of time.

    >>> check_time_unit("ms")
    ('milliseconds', 1000.0)
    """
    word = check_unit(unit)
    if word not in _PER_SECOND:
        message = f"a duration cannot be measured in {_shown(unit)}: use one of: {', '.join(_PER_SECOND)}"
        raise MonitorError(message)
    return word, _PER_SECOND[word]


def check_labels(labels: Mapping[str, object]) -> LabelKey:
    """Return the labels as sorted pairs of texts; long values are cut to ``MAX_LABEL_CHARS`` characters.

    Raises:
        MonitorError: too many labels, or a label's name is not valid.
    """
    if len(labels) > MAX_LABELS:
        message = f"{len(labels)} labels are too many: a metric takes at most {MAX_LABELS}"
        raise MonitorError(message)
    for name in labels:
        if not _LABEL.fullmatch(name) or len(name) > MAX_LABEL_CHARS:
            message = f"label name {_shown(name)} is not valid: it must be one word of ASCII letters, digits and '_'"
            raise MonitorError(message)
    return tuple(sorted((name, str(value)[:MAX_LABEL_CHARS]) for name, value in labels.items()))


def kind_of(name: str, unit: str) -> Kind:
    """Return what a metric is, as far as its name and unit tell.

    A level that is read again and again is a *gauge* (``system.*``, ``process.*``, shares in percent or ratio, and
    the levels that the runtime itself records); events that go wrong or are counted one by one (``*.errors``,
    ``*.cancelled``, ``*_failures`` … in the unit ``count``) are *counters*; all else is a *summary* of observations.
    """
    if name.startswith(_GAUGE_PREFIXES) or unit in _GAUGE_UNITS or name in _LEVELS:
        return "gauge"
    return "counter" if unit == "count" and name.endswith(_COUNTER_SUFFIXES) else "summary"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
