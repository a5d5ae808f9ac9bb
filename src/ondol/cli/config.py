"""service: `ondol config`: every setting, its value, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli.exits import EXIT_INVALID, EXIT_OK
from ondol.cli.options import environment_option, examples, json_option

if TYPE_CHECKING:
    from ondol.settings import ResolvedSettings

__all__ = ["command"]


@click.command(
    "config",
    short_help="Show every setting, its value and where it came from.",
    epilog=examples(
        "ondol config",
        "ondol config --environment production",
        "CACHE_MEMORY_LIMIT_MB=512 ondol config --json",
    ),
)
@environment_option
@json_option
def command(environment: str | None, is_json: bool) -> int:
    """Show every setting: its variable, its value, where the value came from, and what it means.

    A command's option wins over the environment, the environment over the .env file of the current folder, that over
    the profile of ENVIRONMENT, and that over the default. Secrets are masked. When values are not allowed, all of
    them are named, with what is allowed, and the exit code is 2.
    """
    from ondol.errors import InvalidSettingError
    from ondol.settings_reader import load_settings

    arguments = None if environment is None else {"environment": environment}
    try:
        resolved = load_settings(arguments=arguments)
    except InvalidSettingError as exc:
        if not is_json:
            raise
        _print_json([], list(exc.problems))
        return EXIT_INVALID
    if is_json:
        _print_json(resolved.rows(), [])
    else:
        _print_text(resolved)
    return EXIT_OK


def _print_json(rows: list[dict[str, Any]], problems: list[str]) -> None:
    from ondol.cli.output import print_json

    print_json({"settings": rows, "problems": problems})


def _print_text(resolved: ResolvedSettings) -> None:
    from ondol.cli.layout import Column
    from ondol.cli.messages import print_warning
    from ondol.cli.output import print_table
    from ondol.strategy import loading_strategy

    columns = [
        Column("variable", is_whole=True, style="bold"),
        Column("value", style="cyan"),
        Column("origin", is_whole=True),
        Column("description"),
    ]
    print_table(
        columns,
        [
            [str(row["variable"]), _shown(row["value"]), str(row["origin"]), str(row["description"])]
            for row in resolved.rows()
        ],
    )
    for warning in loading_strategy(resolved.values).warnings:
        print_warning(warning)


def _shown(value: object) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
