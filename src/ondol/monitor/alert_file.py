"""adapter: ``ondol-alerts.toml``: alert rules, silences and where notices go, checked before anything starts."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.clock import SystemClock
from ondol.errors import InvalidSettingError
from ondol.monitor.alert_file_lines import find_lines
from ondol.monitor.alert_file_tables import AlertFile, Surroundings, read_tables
from ondol.monitor.alert_file_values import Problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.clock import Clock

__all__ = ["AlertFile", "load_alert_file"]

MAX_FILE_BYTES: Final = 1_000_000
_PLACE: Final = re.compile(r" \(at line (\d+), column \d+\)")


def load_alert_file(
    path: str | Path, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None
) -> AlertFile:
    """Return what the file says.

    Args:
        path: of a TOML file.
        environ: holds the variables that ``secret_env`` and ``urls_env`` name; the process's own by default.
        clock: says how far the end of a silence is away.

    Raises:
        InvalidSettingError: the file cannot be read or holds mistakes. Each of ``problems`` is one of them, with
            file, line, key, value and what is allowed; secrets and addresses are not shown.
    """
    file = Path(path)
    text = _read(file)
    document, lines = _parse(file, text)
    problems = Problems(str(file), lines)
    around = Surroundings(
        environ=os.environ if environ is None else environ,
        wall_s=(clock if clock is not None else SystemClock()).wall(),
        file_name=file.name,
    )
    content = read_tables(document, problems, around)
    if problems:
        raise InvalidSettingError(problems.sentences())
    return content


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise InvalidSettingError([f"{file}: cannot be read: {exc.strerror or exc}; it must be a TOML file"]) from exc
    if len(content) > MAX_FILE_BYTES:
        raise InvalidSettingError([f"{file}: is larger than {MAX_FILE_BYTES} bytes, the most such a file may have"])
    try:
        # Editors of some systems put a mark at the beginning; TOML knows of one kind of line end.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise InvalidSettingError([f"{file}:{line}: is not UTF-8 text: {exc.reason}"]) from None


def _parse(file: Path, text: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """Return the document, and the line of each of its values by the way to it."""
    try:
        return tomllib.loads(text), find_lines(text)
    except tomllib.TOMLDecodeError as exc:
        place = _PLACE.search(str(exc))
        line = int(place[1]) if place else text.count("\n") + 1
        reason = _PLACE.sub("", str(exc))
    except (ValueError, RecursionError) as exc:  # a number too long for Python, arrays nested without end
        line, reason = 1, str(exc)
    # Not chained: the parser's error holds the whole text from Python 3.14 on, secrets included.
    raise InvalidSettingError([f"{file}:{line}: is not valid TOML: {reason}"])
