"""service: `ondol stats`: the figures of the running server, as its status page shows them, once or again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli.options import examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["command"]


@click.command(
    "stats",
    short_help="Show the statistics of the running server.",
    epilog=examples(
        "ondol stats",
        "ondol stats --json",
        "ondol stats --watch",
        "ondol stats --watch --interval 5 --count 12 >> figures.txt",
    ),
)
@url_option
@timeout_option
@json_option
@click.option("--watch", "is_watching", is_flag=True, help="Show them live, with the busiest metrics; q ends.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="Time between two looks, with --watch.  [1.0]",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many looks, with --watch.")
def command(
    url: str | None, timeout_s: float, *, is_json: bool, is_watching: bool, interval_s: float | None, count: int | None
) -> None:
    """Show the statistics of the running server: requests, models, cache, memory, alerts and tuning.

    The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another. ONDOL_API_KEY is sent when set.

    With --watch they are shown live, together with the busiest metrics of the last minute, until q or Ctrl-C; where
    standard output is no terminal, one block after the other (with --json one line each).
    """
    from ondol.cli.client import client_of

    if not is_watching and (interval_s, count) != (None, None):
        message = "--interval and --count are of use with --watch only"
        raise click.UsageError(message)
    client = client_of(url, timeout_s)
    if is_watching:
        from ondol.cli.watch import watch_server

        watch_server(client, interval_s=interval_s or 1.0, count=count, is_json=is_json)
        return
    stats = client.get("/v1/stats")
    readiness = client.get("/readyz", accepted=(503,))
    if is_json:
        from ondol.cli.output import print_json

        print_json({"url": client.url, "ready": readiness.get("ready") is True, **stats})
    else:
        _print_text(client.url, stats, readiness)


def _print_text(url: str, stats: Mapping[str, Any], readiness: Mapping[str, Any]) -> None:
    from ondol.cli.figures import figures, with_numbers
    from ondol.cli.output import print_fields, print_heading
    from ondol.server.snapshot import snapshot

    for title, fields in figures(url, snapshot(with_numbers(stats), readiness), stats.get("similarity")):
        print_heading(title)
        print_fields(fields)
