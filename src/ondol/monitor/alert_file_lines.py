"""decision: on which line of a TOML text a table, a key or an element of an array stands."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final

__all__ = ["Path", "find_lines", "line_of"]

Path = tuple[str | int, ...]
"""How a value is reached from the top: names of keys, and numbers in arrays, from 0."""

_BLANKS: Final = re.compile(r"[ \t]*")
_VOID: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotation marks may stand right before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of ``path``, or of what holds it when it is not in the text; the first line at last."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def find_lines(text: str) -> dict[Path, int]:
    r"""Return the line (from 1) of every table, key and array element of a TOML document.

    Args:
        text: must be valid TOML, as :func:`tomllib.loads` has found out before.

    >>> find_lines('[[rules]]\nname = "a"\n')
    {('rules',): 1, ('rules', 0): 1, ('rules', 0, 'name'): 2}
    """
    return _Scanner(text).scan()


class _Scanner:
    """Goes through a valid document once, from statement to statement."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}  # of the tables in each array of tables

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_VOID)
        while self._at < len(self._text):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_VOID)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:  # only in a text that is no valid TOML
            raise ValueError(f"unexpected text at character {self._at}")
        self._at = match.end()
        return match.group()

    def _peek(self, mark: str) -> bool:
        return self._text.startswith(mark, self._at)

    def _take(self, mark: str) -> bool:
        is_there = self._peek(mark)
        if is_there:
            self._at += len(mark)
        return is_there

    def _note(self, path: Path, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._starts, at))

    def _header(self) -> Path:
        """Read ``[a.b]`` or ``[[a.b]]``; return the path of the table that begins there."""
        start = self._at
        is_array = self._take("[[")
        if not is_array:
            self._at += 1
        keys = self._keys()
        self._at += 2 if is_array else 1
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path = (*path, key)
            self._note(path, start)
            if is_array and number == len(keys):
                self._counts[path] = self._counts.get(path, 0) + 1
            # A name of an array of tables means its last table.
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
                self._note(path, start)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANKS)
            keys.append(self._key())
            self._skip(_BLANKS)
            if not self._take("."):
                return keys

    def _key(self) -> str:
        if self._peek('"') or self._peek("'"):
            return next(iter(tomllib.loads(f"{self._skip(_STRING)} = 0")))
        return self._skip(_BARE_KEY)

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._at += 1  # the equals sign
        self._skip(_BLANKS)
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._elements(path)
        elif self._take("{"):
            self._members(path)
        else:
            self._skip(_STRING if self._peek('"') or self._peek("'") else _SCALAR)

    def _elements(self, path: Path) -> None:
        number = 0
        self._skip(_VOID)
        while not self._take("]"):
            self._note((*path, number), self._at)
            self._value((*path, number))
            number += 1
            self._skip(_VOID)
            self._take(",")
            self._skip(_VOID)

    def _members(self, path: Path) -> None:
        self._skip(_VOID)
        while not self._take("}"):
            self._pair(path)
            self._skip(_VOID)
            self._take(",")
            self._skip(_VOID)
