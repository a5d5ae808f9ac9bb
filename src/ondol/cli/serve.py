"""service: `ondol serve`: the HTTP server in this process."""

from __future__ import annotations

import click

from ondol.cli.options import environment_option, examples

__all__ = ["command"]


@click.command(
    "serve",
    short_help="Start the similarity analysis server.",
    epilog=examples(
        "ondol serve",
        "ondol serve --port 9000",
        "ONDOL_API_KEY=… ondol serve --host 0.0.0.0 --environment production",
    ),
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [ONDOL_HOST, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port; 0 takes a free one.  [ONDOL_PORT, 8000]"
)
@environment_option
def command(host: str | None, port: int | None, environment: str | None) -> int:
    """Start the similarity analysis server.

    It answers at once; models load behind it, as the profile says. Ctrl-C lets the requests under way finish, then ends
    it. An option wins over its environment variable.
    """
    from ondol.settings_reader import load_settings

    given = {"host": host, "port": port, "environment": environment}
    settings = load_settings(arguments={name: value for name, value in given.items() if value is not None})

    from ondol.server.run import serve  # after the settings: what is wrong with them is said at once

    return serve(settings)
