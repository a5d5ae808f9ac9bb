"""service: `ondol completion`: the script that makes a shell complete ondol's commands and options."""

from __future__ import annotations

import click

from ondol.cli.options import examples

__all__ = ["command"]

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    short_help="Print the completion script of your shell.",
    epilog=examples(
        """bash  echo 'eval "$(ondol completion bash)"' >> ~/.bashrc""",
        """zsh   echo 'eval "$(ondol completion zsh)"' >> ~/.zshrc""",
        "fish  ondol completion fish > ~/.config/fish/completions/ondol.fish",
        title="Add it once to your shell's start-up file",
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the completion script of SHELL: bash (4.4 or newer), zsh or fish."""
    from click.shell_completion import get_completion_class

    from ondol.cli.group import cli

    completer_class = get_completion_class(shell)
    assert completer_class is not None, "the choice allows shells that click knows"
    completer = completer_class(cli, {}, "ondol", "_ONDOL_COMPLETE")
    # Not .source(): for bash that starts a shell only to ask its version.
    click.echo(completer.source_template % completer.source_vars())
