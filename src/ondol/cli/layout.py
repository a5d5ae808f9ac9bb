"""decision: how text is laid out in the cells of a terminal, where a Korean syllable takes two."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Column", "clean", "display_width", "padded", "plain_table", "shorten", "wrapped"]

_GAP: Final = "  "
_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    is_number: bool = False
    """Numbers stand at the right and are never wrapped."""
    is_whole: bool = False
    """A name that somebody may want to copy: never wrapped or cut either."""
    style: str = ""
    """A colour by rich's names, shown on terminals only."""


def clean(text: str) -> str:
    r"""Return ``text`` on one line, with nothing in it that steers a terminal.

    >>> clean("two\nlines \x1b[31mred")
    'two lines �[31mred'
    """
    joined = " ".join(text.split())
    if joined.isprintable():
        return joined
    return "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} or c in _BIDI else c for c in joined)


def display_width(text: str) -> int:
    """Return how many cells of a terminal ``text`` takes.

    >>> display_width("ondol"), display_width("온돌")
    (5, 4)
    """
    if text.isascii():
        return len(text)
    return sum(map(_cell_width, text))


def _cell_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"} or "\u1160" <= character <= "\u11ff":
        return 0  # marks and vowels that join the letter before them
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def shorten(text: str, max_cells: int) -> str:
    """Return ``text`` cleaned and cut to ``max_cells`` cells, the cut marked.

    >>> shorten("floor heating", 8), shorten("바닥 난방", 8)
    ('floor h…', '바닥 난…')
    """
    line = clean(text)
    if display_width(line) <= max_cells:
        return line
    return _fitting(line, max_cells - 1).rstrip() + "…"


def _fitting(text: str, max_cells: int) -> str:
    cells = 0
    for index, character in enumerate(text):
        cells += _cell_width(character)
        if cells > max_cells:
            return text[:index]
    return text


def wrapped(text: str, columns: int) -> list[str]:
    """Return ``text`` broken between words into lines of at most ``columns`` cells; longer words are broken too.

    >>> wrapped("온돌은 바닥을 데운다", 14)
    ['온돌은 바닥을', '데운다']
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        extended = f"{line} {word}" if line else word
        if display_width(extended) <= columns:
            line = extended
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, columns)
        lines += full
    return [*lines, line] if line else lines


def _pieces(word: str, columns: int) -> list[str]:
    pieces = []
    while display_width(word) > columns:
        piece = _fitting(word, max(columns, 2))
        pieces.append(piece)
        word = word[len(piece) :]
    return [*pieces, word]


def padded(text: str, width: int, *, is_right: bool = False) -> str:
    """Return ``text`` filled up to ``width`` cells."""
    space = " " * (width - display_width(text))
    return space + text if is_right else text + space


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return ``rows`` under their titles as aligned text of any width.

    >>> print(plain_table([Column("name"), Column("score", is_number=True)], [["온돌", "0.91"], ["heat", "1"]]))
    name  score
    온돌   0.91
    heat      1
    """
    lines = [[column.title for column in columns], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(display_width(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        _GAP.join(
            padded(cell, width, is_right=column.is_number)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )
