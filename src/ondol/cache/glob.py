"""decision: globs over readable keys, and where to look for what matches without looking at everything."""

from __future__ import annotations

import fnmatch
import re
from typing import Final

__all__ = ["Glob"]

_MAGIC: Final = re.compile("[*?[]")


class Glob:
    """A pattern over ``name:part:part``: ``*`` is any text (colons too), ``?`` one character, ``[ab]`` one of these."""

    __slots__ = ("_match", "literal", "pattern")

    def __init__(self, pattern: str) -> None:
        """Read ``pattern``.

        Raises:
            TypeError: it is no ``str``.
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern must be a str, not {pattern!r}")
        self.pattern = pattern
        self._match = re.compile(fnmatch.translate(pattern)).match
        magic = _MAGIC.search(pattern)
        self.literal = pattern if magic is None else pattern[: magic.start()]
        """What every match begins with."""

    @property
    def is_literal(self) -> bool:
        """Whether only this very text matches."""
        return len(self.literal) == len(self.pattern)

    def matches(self, text: str) -> bool:
        """Tell whether ``text`` matches as a whole."""
        return self._match(text) is not None

    def may_reach(self, name: str) -> bool:
        """Tell whether the key of any entry of ``name`` can match at all."""
        return name.startswith(self.literal) or self.literal == name or self.literal.startswith(f"{name}:")

    def segment(self, name: str) -> str | None:
        """Return the first word after ``name:`` of every match, or ``None`` when it is not known to the end.

        >>> Glob("user:42:*").segment("user"), Glob("user:4*").segment("user")
        ('42', None)
        """
        rest = self.literal[len(name) + 1 :]
        if len(self.literal) <= len(name) or not (":" in rest or self.is_literal):
            return None
        return rest.split(":", 1)[0]
