"""decision: how one log record looks as a line of JSON and as a line for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring as _text
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["CapturedLine", "Encoded", "LogLine", "captured_fields", "console_line", "json_line"]

_RESERVED: Final = frozenset({"ts", "level", "logger", "message", "exc"})
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
# What a message could forge lines or move the cursor with is shown, not sent to the terminal.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\t"}

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str)


class Encoded(NamedTuple):
    """A field that is JSON text already: taken while it was what it was when it was logged."""

    json: str


class LogLine(NamedTuple):
    """What one log record says; nothing in it changes any more, so that another thread may form the line."""

    at: float
    """Wall-clock seconds since the Unix epoch."""
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any]
    exc: str
    """The traceback; empty without one."""


CapturedLine: TypeAlias = tuple[float, str, str, str, "Mapping[str, Any]", str]
"""What a :class:`LogLine` is made of, in its order: a plain tuple costs the thread that logs a third."""


def captured_fields(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a copy of ``fields`` that holds no object which may still change."""
    copy = dict(fields)
    if not _PLAIN.issuperset(map(type, copy.values())):
        for name, value in copy.items():
            if type(value) not in _PLAIN:
                copy[name] = _captured(value)
    return copy


def _captured(value: object) -> object:
    # Text and numbers of a class of their own (enumerations, numpy's float64) do not change either.
    return value if isinstance(value, (str, int, float)) else Encoded(_json_text(value))


def json_line(line: LogLine) -> bytes:
    r"""Return the record as one line of JSON in UTF-8, Korean text as it is.

    Its keys are ``ts`` (ISO 8601, UTC, milliseconds), ``level``, ``logger``, ``message``, the fields (one that is
    called like one of the others gets a ``_`` behind its name), and ``exc`` with a traceback.
    What JSON does not know is written as its text; a lone surrogate as ``\udcXX``. Whatever the fields are, there
    is a line.
    """
    parts = [f'{{"ts": "{_timestamp(line.at)}"{_origin(line.level, line.logger)}{_text(line.message)}']
    parts.extend(_members(line.fields))
    if line.exc:
        parts.append(f', "exc": {_text(line.exc)}')
    parts.append("}\n")
    return "".join(parts).encode("utf-8", errors="backslashreplace")


def _members(fields: Mapping[Any, Any]) -> Iterable[str]:
    for name, value in fields.items():
        key = f"{name}_" if name in _RESERVED else name
        form = _FORMERS.get(type(value), _json_text)
        yield f", {_text(key) if type(key) is str else _text(_shown(key))}: {form(value)}"


def _float_text(value: float) -> str:
    # NaN and the infinities are no JSON: they become text.
    return repr(value) if isfinite(value) else f'"{value!r}"'


def _int_text(value: int) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no decimal numbers of more than some thousand digits
        return f'"{value:#x}"'


def _json_text(value: object) -> str:
    try:
        return _ENCODER.encode(value)
    except Exception:  # noqa: BLE001  # NaN, circles, keys that are no text, a __str__ that raises: say what can be said
        return _text(_shown(value))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001  # logging never breaks the code that logs, and the line is kept
        return f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>"


_FORMERS: Final[Mapping[type, Callable[[Any], str]]] = {
    str: _text,
    bool: {True: "true", False: "false"}.__getitem__,
    float: _float_text,
    int: _int_text,
    type(None): lambda _none: "null",
    Encoded: attrgetter("json"),
}


@lru_cache(maxsize=512)
def _origin(level: str, logger: str) -> str:
    return f', "level": {_text(level)}, "logger": {_text(logger)}, "message": '


def _timestamp(at: float) -> str:
    second, micros = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_second(second)}.{micros // 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4)
def _local_second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def console_line(line: LogLine, *, is_coloured: bool) -> str:
    """Return the record for people: local time, level, the logger's last name, message, and fields that are short.

    The sentence of an alert says all that its fields say: they are left out.
    """
    time_of_day = _local_second(int(line.at))
    head = f"{time_of_day} {line.level:<7} {line.logger.removeprefix('ondol.'):<11}"
    shown = {} if line.fields.get("event") == "alert" else line.fields
    fields = " ".join(f"{name}={_short(value)}" for name, value in shown.items() if _is_short(value))
    message = line.message.translate(_CONTROLS)
    if is_coloured:
        colour = _COLOURS.get(line.level, "")
        head = f"{_DIM}{time_of_day}{_RESET} {colour}{line.level:<7}{_RESET} {line.logger.removeprefix('ondol.'):<11}"
        fields = f"{_DIM}{fields}{_RESET}" if fields else ""
    text = f"{head} {message}" + (f"  {fields}" if fields else "")
    if line.exc:
        lines = (exc_line.translate(_CONTROLS) for exc_line in line.exc.splitlines())
        text += "".join(f"\n    {exc_line}" for exc_line in lines)
    return text + "\n"


def _is_short(value: object) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and 0 < len(value) <= 60)


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.translate(_CONTROLS)
