"""decision: which texts can be analysed; the one check that every edge (HTTP, command line, Python) applies."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Final

from ondol.errors import InvalidTextError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DOCUMENT_ID_RULE",
    "check_document_id",
    "check_label",
    "check_metadata",
    "check_text",
    "is_analysable",
    "is_visible",
]

DOCUMENT_ID_RULE: Final = "1 to 128 characters out of A-Z a-z 0-9 . _ : - (not . or .. alone)"
MAX_TITLE_CHARS: Final = 500
MAX_METADATA_ENTRIES: Final = 32
MAX_METADATA_CHARS: Final = 1000

# "." and ".." are taken out of a path by every HTTP client: such a document could not be asked for, nor removed.
_DOCUMENT_ID: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._:-]{1,128}\Z")
# Half of a surrogate pair is no character: it has no UTF-8 form, so it can be neither stored nor answered.
# NUL ends a C string: what follows it would silently be left out by a model behind a C interface.
_IMPOSSIBLE: Final = re.compile("[\ud800-\udfff\x00]")
# Letters and symbols by Unicode category that nevertheless show nothing: Hangul fillers, the empty Braille pattern.
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# NFC makes a text shorter (decomposed Hangul to a third) or, rarely, up to three times longer: texts this many
# times over the limit are refused before any work is spent on them.
_LONGEST_FORM: Final = 4
# Sorting the marks on one character takes the square of their number: 80,000 of them hold up everything for seconds.
# Unicode's stream-safe format (UAX #15) allows 30, more than any language needs.
_MOST_MARKS: Final = 30
_MAYBE_MARKS: Final = re.compile(rf"[^\w\x00-\x7f]{{{_MOST_MARKS + 1}}}")
_FIRST_LOOKED_AT: Final = 64


def is_visible(character: str) -> bool:
    """Tell whether a reader sees ``character``: no space, control, format character, lone mark or filler."""
    category = unicodedata.category(character)
    return category[0] not in "ZM" and category not in {"Cc", "Cf"} and character not in _BLANK_LETTERS


def is_analysable(value: object) -> bool:
    """Tell whether models and the store can bear ``value``; :func:`check_text` says more and normalises."""
    return isinstance(value, str) and _IMPOSSIBLE.search(value) is None and _shows_something(value)


def _shows_something(text: str) -> bool:
    # Where the beginning shows nothing each character is looked at once: 200,000 spaces take no longer than one.
    return any(map(is_visible, text[:_FIRST_LOOKED_AT])) or any(map(is_visible, set(text)))


def _find_mark_run(text: str) -> re.Match[str] | None:
    # From the cheapest test to the dearest: nearly every text passes the first.
    if _MAYBE_MARKS.search(text) is None or not any(map(unicodedata.combining, set(text))):
        return None
    return _mark_run().search(text)


@cache
def _mark_run() -> re.Pattern[str]:
    # Every combining mark is in this range. Made when a text first looks as if it held that many.
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code)))
    return re.compile(f"[{marks}]{{{_MOST_MARKS + 1}}}")


def check_text(value: object, *, field: str, max_chars: int) -> str:
    """Return ``value`` in Unicode normal form C, if it can be analysed.

    Args:
        value: what a caller gave as a text.
        field: where it stood in the input, for the message, for instance ``texts[2]``.
        max_chars: longest text allowed, in characters (code points) after normalisation.

    Raises:
        InvalidTextError: ``value`` is no string, shows nothing (empty, or only spaces and invisible
            characters), is too long, holds NUL or a lone surrogate, or more than 30 combining marks in a row.
    """
    text = _checked_string(value, field)
    if len(text) > _LONGEST_FORM * max_chars:
        raise _too_long(len(text), field, max_chars)
    text = unicodedata.normalize("NFC", text)
    if len(text) > max_chars:
        raise _too_long(len(text), field, max_chars)
    if not _shows_something(text):
        message = f"{field} is {'blank' if text else 'empty'}: it must hold at least one visible character"
        raise InvalidTextError(message, field=field)
    return text


def check_document_id(value: object, *, field: str = "id") -> str:
    """Return ``value`` if it can be a document's id.

    Raises:
        InvalidTextError: it is not made as :data:`DOCUMENT_ID_RULE` says.
    """
    if not isinstance(value, str) or not _DOCUMENT_ID.match(value):
        shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
        raise InvalidTextError(f"{field} {shown} is not an id: allowed are {DOCUMENT_ID_RULE}", field=field, limit=128)
    return value


def check_label(value: object, *, field: str, max_chars: int = MAX_TITLE_CHARS) -> str:
    """Return a title or a piece of metadata in normal form C; unlike a text it may be empty.

    Raises:
        InvalidTextError: it is no string, is too long, or holds NUL or a lone surrogate.
    """
    text = _checked_string(value, field)
    if len(text) > max_chars:
        raise _too_long(len(text), field, max_chars)
    return unicodedata.normalize("NFC", text)


def check_metadata(value: Mapping[str, str], *, field: str = "metadata") -> dict[str, str]:
    """Return a document's metadata, every key and value checked like a title.

    Raises:
        InvalidTextError: there are too many entries, or a key or a value is not allowed.
    """
    if len(value) > MAX_METADATA_ENTRIES:
        message = f"{field} has {len(value)} entries; at most {MAX_METADATA_ENTRIES} are allowed"
        raise InvalidTextError(message, field=field, limit=MAX_METADATA_ENTRIES)
    return {
        check_label(key, field=f"{field} key", max_chars=MAX_METADATA_CHARS): check_label(
            entry, field=f"{field}.{_shown_key(key)}", max_chars=MAX_METADATA_CHARS
        )
        for key, entry in value.items()
    }


def _shown_key(key: object) -> str:
    # A key that is not allowed may hold anything, so it is not put into a field's name as it is.
    return key if isinstance(key, str) and len(key) <= 80 and key.isprintable() else "?"


def _checked_string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidTextError(f"{field} must be a string, not {type(value).__name__}", field=field)
    found = _IMPOSSIBLE.search(value)
    if found:
        what = "the NUL character" if found.group() == "\x00" else f"the lone surrogate U+{ord(found.group()):04X}"
        raise InvalidTextError(f"{field} holds {what} at position {found.start()}, which is not allowed", field=field)
    marks = _find_mark_run(value)
    if marks:
        message = (
            f"{field} holds more than {_MOST_MARKS} combining marks in a row at position {marks.start()}, which is not "
            "allowed"
        )
        raise InvalidTextError(message, field=field, limit=_MOST_MARKS)
    return value


def _too_long(length: int, field: str, max_chars: int) -> InvalidTextError:
    message = f"{field} has {length} characters; at most {max_chars} are allowed"
    return InvalidTextError(message, field=field, limit=max_chars)
