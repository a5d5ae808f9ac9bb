"""service: `ondol stats`: the figures of the running server, as its status page shows them."""

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
    ),
)
@url_option
@timeout_option
@json_option
def command(url: str | None, timeout_s: float, is_json: bool) -> None:
    """Show the statistics of the running server: requests, models, cache, memory, alerts and tuning.

    The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another. ONDOL_API_KEY is sent when set.
    """
    from ondol.cli.client import client_of

    client = client_of(url, timeout_s)
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
