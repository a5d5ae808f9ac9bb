"""service: the group of commands; each command's module is imported when that command runs."""

from __future__ import annotations

import gc
import importlib
from typing import Final

import click

from ondol._version import __version__
from ondol.cli.exits import EXIT_CODES_HELP, EXIT_INVALID
from ondol.cli.options import examples

__all__ = ["COMMANDS", "LazyGroup", "cli"]

COMMANDS: Final = {
    "serve": "Start the similarity analysis server.",
    "demo": "Store a small bilingual corpus and search it.",
    "search": "Search the stored documents by meaning and words.",
    "similarity": "Compare one text with others.",
    "embed": "Turn texts into embedding vectors.",
    "models": "Show, load and unload the models of the running server.",
    "preload": "Show what is loaded ahead of use and why; give hints.",
    "alerts": "Show what is wrong and what to do about it; silence notices.",
    "strategy": "Show or switch the loading strategy of the running server.",
    "stats": "Show the statistics of the running server.",
    "config": "Show every setting, its value and where it came from.",
    "completion": "Print the completion script of your shell.",
}
"""Each command and what it does; `ondol --help` needs no more, so it imports none of them."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports each one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a new user meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of ``cmd_name`` and return its command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"ondol.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; name the nearest one when there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    epilog="\n\n".join(
        (
            examples(
                "ondol demo                   store the sample corpus and search it",
                'ondol search "서버 개발 경력"   search what is stored',
                "ondol serve                  start the HTTP server",
                title="First steps",
            ),
            examples(*EXIT_CODES_HELP, title="Exit codes"),
        )
    ),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ondol", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /) -> None:
    """Similarity analysis of Korean and English text, on models that are kept warm.

    Settings come from environment variables and a .env file; `ondol config` lists them.
    """
    if ctx.invoked_subcommand != "serve":  # the server has more to import; see ondol.cli.main
        gc.enable()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_INVALID)
