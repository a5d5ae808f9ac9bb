"""adapter: lines for people on stderr, and what stdout and stderr can show. Light: every command imports it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["has_colour", "is_terminal", "print_error", "print_note", "print_warning"]


def is_terminal(stream: TextIO) -> bool:
    """Say whether somebody looks at ``stream``."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Say whether colours are wanted on ``stream``: on a terminal, and never with NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def print_error(message: str) -> None:
    """Print ``error: message`` on stderr; lines after the first are kept."""
    _print("error:", message, "red")


def print_warning(message: str) -> None:
    """Print ``warning: message`` on stderr."""
    _print("warning:", message, "yellow")


def print_note(message: str) -> None:
    """Print a hint for people on stderr, dimmed."""
    from ondol.cli.layout import clean

    line = clean(message)
    click.echo(click.style(line, dim=True) if has_colour(sys.stderr) else line, err=True)


def _print(label: str, message: str, colour: str) -> None:
    from ondol.cli.layout import clean

    is_coloured = has_colour(sys.stderr)
    lines = [clean(line) for line in message.splitlines()] or [""]
    if len(lines) > 1 and all(line.startswith("- ") for line in lines):
        lines.insert(0, f"{len(lines)} problems")
    head = click.style(label, fg=colour, bold=True) if is_coloured else label
    click.echo("\n".join([f"{head} {lines[0]}", *(f"  {line}" for line in lines[1:])]), err=True, color=is_coloured)
