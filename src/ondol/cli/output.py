"""adapter: what commands print on stdout: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ondol.cli.layout import clean, display_width, padded, plain_table
from ondol.cli.messages import has_colour, is_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cli.layout import Column

__all__ = ["print_fields", "print_heading", "print_json", "print_table"]


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document; letters stay readable where stdout can show them."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    click.echo(json.dumps(value, ensure_ascii=encoding not in {"utf-8", "utf8"}, indent=2, allow_nan=False))


def print_heading(text: str) -> None:
    """Print the heading of a part."""
    click.echo(click.style(text, bold=True) if has_colour(sys.stdout) else text)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows``: by rich on a terminal, wrapped to its width; otherwise as aligned text of any width."""
    if is_terminal(sys.stdout):
        _print_rich_table(columns, rows)
    else:
        click.echo(plain_table(columns, rows))


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values beside each other, indented by two."""
    width = max((display_width(name) for name, _ in fields), default=0)
    is_coloured = has_colour(sys.stdout)
    for name, value in fields:
        label = f"  {padded(name, width)}  "
        click.echo(f"{click.style(label, dim=True) if is_coloured else label}{clean(value)}")


def _print_rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        is_whole = column.is_number or column.is_whole
        cells = [column.title, *(clean(row[index]) for row in rows)]
        table.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            no_wrap=is_whole,
            min_width=max(map(display_width, cells)) if is_whole else None,
            overflow="fold",
            style=column.style or None,
        )
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console(highlight=False, no_color=not has_colour(sys.stdout)).print(table)
