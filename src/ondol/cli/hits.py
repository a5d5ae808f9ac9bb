"""adapter: search results for people: score and title, and under them the passage that was found."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.layout import clean, wrapped
from ondol.cli.messages import has_colour, is_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.similarity.records import SearchHit

__all__ = ["hit_values", "print_hits"]

_INDENT: Final = " " * 7
_MAX_COLUMNS: Final = 100
_MAX_LINES: Final = 3
_CUT: Final = " …"


def print_hits(hits: Sequence[SearchHit]) -> None:
    """Print ``hits``; passages are wrapped on a terminal and stay on one line elsewhere."""
    is_coloured = has_colour(sys.stdout)
    columns = min(shutil.get_terminal_size().columns, _MAX_COLUMNS) if is_terminal(sys.stdout) else None
    for hit in hits:
        score, title, name = f"{hit.score:.3f}", clean(hit.title) or "(no title)", clean(hit.id)
        if is_coloured:
            score, title, name = (
                click.style(score, fg="cyan"),
                click.style(title, bold=True),
                click.style(name, dim=True),
            )
        click.echo(f"{score}  {title}  {name}")
        for line in _passage_lines(hit.passage, columns):
            click.echo(f"{_INDENT}{line}")


def hit_values(hit: SearchHit) -> dict[str, Any]:
    """Return ``hit`` as plain values for JSON."""
    return {
        "id": hit.id,
        "title": hit.title,
        "score": float(hit.score),
        "semantic_score": float(hit.semantic_score),
        "lexical_score": float(hit.lexical_score),
        "passage": hit.passage,
        "metadata": dict(hit.metadata),
    }


def _passage_lines(passage: str, columns: int | None) -> list[str]:
    text = clean(passage)
    if columns is None:
        return [text]
    lines = wrapped(text, max(columns - len(_INDENT) - len(_CUT), 20))
    return lines if len(lines) <= _MAX_LINES else [*lines[: _MAX_LINES - 1], f"{lines[_MAX_LINES - 1]}{_CUT}"]
