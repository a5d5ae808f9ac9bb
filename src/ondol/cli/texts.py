"""adapter: the texts a command works on, from its arguments or from stdin, each checked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ondol.errors import InvalidTextError
from ondol.similarity.text import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STDIN", "read_texts"]

STDIN: Final = "-"


def read_texts(arguments: Sequence[str], *, field: str, max_chars: int) -> list[str]:
    """Return the checked texts; an argument ``-`` stands for stdin, one text per line.

    Empty lines of stdin are skipped; an empty argument is an error.

    Raises:
        InvalidTextError: a text that cannot be analysed; ``field`` says which argument or line.
    """
    texts: list[str] = []
    for index, argument in enumerate(arguments, start=1):
        if argument == STDIN:
            texts += _read_stdin(max_chars)
        else:
            place = f"{field} {index}" if len(arguments) > 1 else field
            texts.append(check_text(argument, field=place, max_chars=max_chars))
    if not texts:
        message = "stdin: no text was given; one text per line is expected"
        raise InvalidTextError(message, field="stdin")
    return texts


def _read_stdin(max_chars: int) -> list[str]:
    texts = []
    for number, line in enumerate(sys.stdin.buffer, start=1):
        place = f"stdin line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            message = f"{place}: not UTF-8 text (byte {exc.start + 1}: 0x{line[exc.start]:02x})"
            raise InvalidTextError(message, field=place) from exc
        if text.strip():
            texts.append(check_text(text.rstrip("\r\n"), field=place, max_chars=max_chars))
    return texts
