"""service: one run of the command line: streams made ready, errors turned into a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING

import click

from ondol.cli.exits import EXIT_BROKEN_PIPE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, exit_code
from ondol.cli.group import cli
from ondol.cli.messages import print_error, print_note
from ondol.errors import OndolError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["invoke"]

_PROGRAM = "ondol"
_COMPLETE_VARIABLE = "_ONDOL_COMPLETE"


def invoke(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` name; return its exit code.

    Errors that are expected become one line on stderr. Any other exception is a defect and passes through.
    """
    for stream in (sys.stdout, sys.stderr):
        _make_writable(stream)
    try:
        code = _run([_decoded(argument) for argument in arguments])
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)  # the terminal shows ^C on an unfinished line
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as exc:
        print_error(f"{exc.strerror or exc}: {exc.filename}" if exc.filename else str(exc))
        return EXIT_FAILURE
    return code


def _run(arguments: list[str]) -> int:
    instruction = os.environ.get(_COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, _PROGRAM, _COMPLETE_VARIABLE, instruction)
    try:
        with cli.make_context(_PROGRAM, arguments) as context:
            result = cli.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        _print_usage_error(exc)
        return exc.exit_code
    except OndolError as exc:
        print_error(str(exc))
        return exit_code(exc)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in {"", _PROGRAM}:
            raise  # one of our own: a defect
        print_error(f"the package {package!r} is not installed: pip install 'ondol[server]'")
        return EXIT_FAILURE
    return result if isinstance(result, int) else EXIT_OK


def _print_usage_error(error: click.ClickException) -> None:
    print_error(error.format_message())
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        print_note(f"try: {context.command_path} --help")


def _decoded(argument: str) -> str:
    """Return ``argument`` as UTF-8 text, also where the locale made Python read it as something else."""
    if argument.isascii():
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument  # the check of the text says what is wrong with it


def _make_writable(stream: object) -> None:
    """Let ``stream`` take any text: UTF-8 in a locale without letters, escapes where its encoding lacks one."""
    if isinstance(stream, TextIOWrapper):
        is_ascii = (stream.encoding or "").lower() in {"ascii", "us-ascii", "ansi_x3.4-1968", "646"}
        stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")


def _drop_stdout() -> None:
    """Send what is still buffered nowhere, so that closing stdout at exit does not fail again."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a real file: nothing is flushed at exit
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a device, not a path of ours
        os.dup2(nowhere.fileno(), descriptor)
