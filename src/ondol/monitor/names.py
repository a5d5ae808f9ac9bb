"""decision: which metric names, units and labels are valid, and what a metric's name and unit say about its kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from ondol.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_TIMED_NAME_CHARS",
    "Kind",
    "LabelKey",
    "check_exemplar",
    "check_kind",
    "check_labels",
    "check_name",
    "check_time_unit",
    "check_timed_name",
    "check_unit",
    "kind_of",
    "label_text",
]

Kind = Literal["gauge", "counter", "summary"]
LabelKey = tuple[tuple[str, str], ...]

MAX_NAME_CHARS: Final = 120
MAX_TIMED_NAME_CHARS: Final = MAX_NAME_CHARS - len(".cancelled")
"""So that the names of a timed metric's failures, ``name.errors`` and ``name.cancelled``, are valid too."""
MAX_LABELS: Final = 8
MAX_LABEL_CHARS: Final = 120
MAX_EXEMPLAR_CHARS: Final = 128
"""Of all names and values of one exemplar together: OpenMetrics' bound."""

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

_KINDS: Final = ("gauge", "counter", "summary")
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
    "alerts.notices",
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


def check_timed_name(name: object) -> str:
    """Return ``name`` when it can name a metric whose failures are counted beside it.

    Raises:
        MonitorError: it cannot name a metric, or the names of its failures would be too long.
    """
    checked = check_name(name)
    if len(checked) > MAX_TIMED_NAME_CHARS:
        message = (
            f"metric name {_shown(checked)} is too long for what is timed: it must have at most "
            f"{MAX_TIMED_NAME_CHARS} characters, because failures are counted as '<name>.errors' and "
            f"'<name>.cancelled', and a name has at most {MAX_NAME_CHARS}"
        )
        raise MonitorError(message)
    return checked


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
    """Return the labels as sorted pairs of texts, see ``label_text``.

    Raises:
        MonitorError: too many labels, a label's name is not valid, or a value has no text.
    """
    if len(labels) > MAX_LABELS:
        message = f"{len(labels)} labels are too many: a metric takes at most {MAX_LABELS}"
        raise MonitorError(message)
    for name in labels:
        if not _is_label_name(name):
            message = (
                f"label name {_shown(name)} is not valid: it must be one word of ASCII letters, digits and '_', not "
                f"begin with a digit or with '__' (Prometheus keeps those for itself) and have at most "
                f"{MAX_LABEL_CHARS} characters"
            )
            raise MonitorError(message)
    try:
        return tuple(sorted((str.__str__(name), label_text(value)) for name, value in labels.items()))
    except ValueError as exc:
        raise MonitorError(f"a label's value cannot be written as text: {exc}") from exc


def check_exemplar(labels: Mapping[str, object]) -> dict[str, str]:
    """Return those of ``labels`` that an exemplar can carry; nothing here is worth an error.

    Names that are no label names are left out, and values that are ``None``, empty or have no text. Where all together
    would be longer than ``MAX_EXEMPLAR_CHARS`` the longest values are cut, so that one that is too long does not push
    out the others; a name that finds no room is left out with its value.

    >>> check_exemplar({"request_id": 7, "not a name": "x", "trace_id": ""})
    {'request_id': '7'}
    """
    texts = {str.__str__(name): _exemplar_text(value) for name, value in labels.items() if _is_label_name(name)}
    kept: dict[str, str] = {}
    room = MAX_EXEMPLAR_CHARS
    for name, text in sorted(texts.items(), key=lambda item: len(item[0]) + len(item[1])):
        cut = text[: max(0, room - len(name))]
        if cut:
            kept[name] = cut
            room -= len(name) + len(cut)
    return {name: kept[name] for name in texts if name in kept}


def _exemplar_text(value: object) -> str:
    try:
        return "" if value is None else label_text(value, MAX_EXEMPLAR_CHARS)
    except ValueError:
        return ""


def label_text(value: object, max_chars: int = MAX_LABEL_CHARS) -> str:
    r"""Return ``value`` as a text that can be written as UTF-8, cut to ``max_chars`` characters.

    A text that is a member of an enumeration is taken as the text it is, whatever its ``str()`` says. Surrogates, which
    file names that are no UTF-8 are full of, become escapes, so that different names stay different.

    Raises:
        ValueError: the value has no text, such as an integer of thousands of digits.

    >>> label_text("caf\udce9")
    'caf\\udce9'
    """
    text = (str.__str__(value) if isinstance(value, str) else str(value))[:max_chars]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()[:max_chars]
    return text


def _is_label_name(name: object) -> bool:
    if not isinstance(name, str) or len(name) > MAX_LABEL_CHARS or name.startswith("__"):
        return False
    return _LABEL.fullmatch(name) is not None


def check_kind(kind: object) -> Kind:
    """Return ``kind`` when it is one.

    Raises:
        MonitorError: it is none.
    """
    if kind not in _KINDS:
        raise MonitorError(f"kind {_shown(kind)} is not valid: it must be one of: {', '.join(_KINDS)}")
    return kind


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
