"""decision: how one log record looks as a line of JSON and as a line for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LogLine", "console_line", "json_line"]

_RESERVED: Final = frozenset({"ts", "level", "logger", "message", "exc"})
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
# What a message could forge lines or move the cursor with is shown, not sent to the terminal.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\t"}

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str)


class LogLine(NamedTuple):
    """What one log record says."""

    at: float
    """Wall-clock seconds since the Unix epoch."""
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any]
    exc: str
    """The traceback; empty without one."""


def json_line(line: LogLine) -> bytes:
    r"""Return the record as one line of JSON in UTF-8, Korean text as it is.

    Its keys are ``ts`` (ISO 8601, UTC, milliseconds), ``level``, ``logger``, ``message``, the fields (one that is
    called like one of the others gets a ``_`` behind its name), and ``exc`` with a traceback.
    What JSON does not know is written as its text; a lone surrogate as ``\udcXX``.
    """
    content: dict[str, Any] = {
        "ts": _timestamp(line.at),
        "level": line.level,
        "logger": line.logger,
        "message": line.message,
    }
    for name, value in line.fields.items():
        content[f"{name}_" if name in _RESERVED else name] = value
    if line.exc:
        content["exc"] = line.exc
    try:
        text = _ENCODER.encode(content)
    except (TypeError, ValueError, RecursionError):
        # Keys that are no text, NaN, circles: say what can be said.
        text = _ENCODER.encode({str(name): _plain(value) for name, value in content.items()})
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int)) or value is None else repr(value)


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def console_line(line: LogLine, *, is_coloured: bool) -> str:
    """Return the record for people: local time, level, the logger's last name, message, and fields that are short."""
    time_of_day = datetime.fromtimestamp(line.at, UTC).astimezone().strftime("%H:%M:%S")
    head = f"{time_of_day} {line.level:<7} {line.logger.removeprefix('ondol.'):<11}"
    fields = " ".join(f"{name}={_short(value)}" for name, value in line.fields.items() if _is_short(value))
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
