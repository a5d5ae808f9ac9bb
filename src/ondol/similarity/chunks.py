"""decision: where a document is cut into passages that a model embeds and a search shows.

Passages follow each other without overlap, none is longer than asked, every visible character is in exactly one. Cuts
are made at the ends of paragraphs, else of sentences, else at spaces, and inside a word only where there is none.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.similarity.text import is_visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_CHUNK_CHARS", "Chunk", "split_chunks"]

MAX_CHUNK_CHARS: Final = 600
"""About a paragraph: long enough to mean something alone, short enough for one vector to stand for it."""

# A paragraph that ends after this share of a passage ends the passage too.
_FULL_ENOUGH: Final = 3
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*\n\s*")
# The end of a sentence: a stop with closing quotes or brackets and white space behind it, a CJK stop, or a line's end.
# A run of stops is tried at its first character only, and never a second time shorter: 200,000 dots take linear time.
_SENTENCE_END: Final = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]+[」』”’）]*|\n+")
_JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f")


class Chunk(NamedTuple):
    """A passage: ``text[start:end]`` in characters."""

    start: int
    end: int


def split_chunks(text: str, max_chars: int = MAX_CHUNK_CHARS) -> list[Chunk]:
    """Return the passages of ``text`` in order, each at most ``max_chars`` long and none of them blank.

    >>> text = "One sentence. Another one. A third."
    >>> [text[chunk.start : chunk.end] for chunk in split_chunks(text, max_chars=28)]
    ['One sentence. Another one.', 'A third.']

    Cost: O(characters).
    """
    chunks: list[Chunk] = []
    start, end = 0, 0
    for piece_start, piece_end, is_paragraph_end in _pieces(text, max_chars):
        if piece_end - start > max_chars:
            _append_trimmed(chunks, text, start, end)
            start = piece_start
        end = piece_end
        if is_paragraph_end and end - start >= max_chars // _FULL_ENOUGH:
            _append_trimmed(chunks, text, start, end)
            start = end
    _append_trimmed(chunks, text, start, end)
    return chunks


def _pieces(text: str, max_chars: int) -> Iterator[tuple[int, int, bool]]:
    """Yield sentences as (start, end, ends a paragraph), long ones already cut; together they are the whole text."""
    start = 0
    for paragraph_end in [*(match.end() for match in _PARAGRAPH.finditer(text)), len(text)]:
        ends = [match.end() for match in _SENTENCE_END.finditer(text, start, paragraph_end)]
        for sentence_end in [*ends, paragraph_end]:
            while sentence_end - start > max_chars:
                cut = _cut_inside(text, start, max_chars)
                yield start, cut, False
                start = cut
            if sentence_end > start:
                yield start, sentence_end, sentence_end == paragraph_end
                start = sentence_end


def _cut_inside(text: str, start: int, max_chars: int) -> int:
    """Return where to cut a sentence that is too long: behind its last space, else before a whole character."""
    limit = start + max_chars
    for position in range(limit, start + max_chars // 2, -1):
        if text[position - 1].isspace():
            return position
    for position in range(limit, start + max_chars // 2, -1):
        if not _continues(text, position):
            return position
    return limit


def _continues(text: str, position: int) -> bool:
    """Tell whether ``text[position]`` belongs to the character before it (an accent, a joined emoji)."""
    after, before = text[position], text[position - 1]
    return unicodedata.category(after)[0] == "M" or after in _JOINERS or before in _JOINERS


def _append_trimmed(chunks: list[Chunk], text: str, start: int, end: int) -> None:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    end = start + len(part.strip())
    if any(map(is_visible, text[start:end])):
        chunks.append(Chunk(start, end))
