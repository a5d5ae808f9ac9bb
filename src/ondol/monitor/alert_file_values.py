"""decision: values taken out of the tables of a TOML file; what is not allowed is noted with its line, not raised."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from ondol.monitor.alert_file_lines import line_of
from ondol.monitor.alert_rule import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ondol.monitor.alert_file_lines import Path

__all__ = ["Problems", "TableReader", "nearest"]


class Problems:
    """Every mistake of one file, so that all of them can be told at once."""

    def __init__(self, source: str, lines: dict[Path, int]) -> None:
        """Begin without any; ``source`` names the file."""
        self._source = source
        self._lines = lines
        self._found: list[tuple[int, str]] = []

    def line(self, path: Path) -> int:
        """Return the line of ``path``."""
        return line_of(self._lines, path)

    def add(self, path: Path, sentence: str) -> None:
        """Note a mistake at ``path``."""
        line = self.line(path)
        self._found.append((line, f"{self._source}:{line}: {sentence}"))

    def __len__(self) -> int:
        return len(self._found)

    def sentences(self) -> list[str]:
        """Return them in the order of their lines."""
        return [sentence for _line, sentence in sorted(self._found, key=lambda found: found[0])]


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a hint at the one of ``words`` that ``word`` may have meant, and the list of all."""
    known = list(words)
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]!r}? Allowed" if close else "allowed"
    return f"{hint}: {', '.join(known)}"


class TableReader:
    """Takes the values of one table; a method returns the default when the key is missing or its value is refused."""

    def __init__(self, table: Mapping[str, Any], path: Path, title: str, problems: Problems) -> None:
        """Read ``table``; ``title`` names it in messages."""
        self.table = table
        self._path = path
        self._title = title
        self._problems = problems
        self._problems_before = len(problems)

    @property
    def is_clean(self) -> bool:
        """Whether nothing of this table was refused so far."""
        return len(self._problems) == self._problems_before

    def refuse(self, key: str, sentence: str) -> None:
        """Note a mistake at the line of ``key``."""
        self._problems.add((*self._path, key), f"{self._title}: {sentence}")

    def refuse_unknown(self, allowed: Collection[str]) -> None:
        """Refuse every key that is none of ``allowed``."""
        for key in self.table:
            if key not in allowed:
                self.refuse(key, f"unknown key {shown(key)}; {nearest(key, allowed)}")

    def require(self, *keys: str) -> None:
        """Refuse a table that lacks one of ``keys``."""
        missing = [key for key in keys if key not in self.table]
        if missing:
            self._problems.add(self._path, f"{self._title}: {', '.join(missing)} must be given")

    def _refuse_value(self, key: str, allowed: str, *, is_secret: bool = False) -> None:
        value = "" if is_secret else f"={shown(self.table[key])}"
        hidden = " (its value is not shown)" if is_secret else ""
        self.refuse(key, f"{key}{value} is not allowed{hidden}: it must be {allowed}")

    def text(self, key: str, default: str = "", *, shortest: int = 0, longest: int = 200) -> str:
        """Return a text."""
        value = self.table.get(key, default)
        if key not in self.table or (isinstance(value, str) and shortest <= len(value) <= longest):
            return str(value)
        self._refuse_value(key, f"a text of {shortest} to {longest} characters")
        return default

    def secret(self, key: str) -> str | None:
        """Return a text that is never shown; ``None`` when it is missing."""
        value = self.table.get(key)
        if value is None or (isinstance(value, str) and 1 <= len(value) <= 1000):
            return value
        self._refuse_value(key, "a text of 1 to 1000 characters", is_secret=True)
        return None

    def secrets(self, key: str) -> tuple[str, ...]:
        """Return texts that are never shown; none when the key is missing."""
        value = self.table.get(key, [])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._refuse_value(key, "an array of texts", is_secret=True)
        return ()

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Return an array of texts, each there once."""
        value = self.table.get(key)
        if value is None:
            return default
        if isinstance(value, list) and all(isinstance(item, str) for item in value) and len(set(value)) == len(value):
            return tuple(value)
        self._refuse_value(key, "an array of texts, each of them once")
        return default

    def seconds(self, key: str, default: float, *, least: float = 0.0, most: float = 86400.0) -> float:
        """Return a number of seconds."""
        value = self.table.get(key, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and least <= value <= most:
            return float(value)
        self._refuse_value(key, f"a number of seconds from {least:g} to {most:g}")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.table.get(key, default)
        if isinstance(value, bool):
            return value
        self._refuse_value(key, "true or false")
        return default

    def instant(self, key: str) -> float | None:
        """Return a point in time in seconds since the Unix epoch; ``None`` when it is missing or refused."""
        value = self.table.get(key)
        if value is None:
            return None
        # Not by type: a module that decides does not know of the calendar, only of what has an offset.
        if getattr(value, "tzinfo", None) is not None and hasattr(value, "timestamp"):
            at: float = value.timestamp()
            if math.isfinite(at):
                return at
        given = value if isinstance(value, (str, int, float, bool)) else str(value)
        allowed = "a date and time with an offset and without quotation marks, in the form 2030-01-31T18:00:00+09:00"
        self.refuse(key, f"{key}={shown(given)} is not allowed: it must be {allowed}")
        return None
