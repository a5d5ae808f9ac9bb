"""service: `ondol strategy`: what the running server's loading variables mean, and how to switch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.options import examples, json_option, timeout_option, url_option
from ondol.setting_specs import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["command"]

_SWITCHES: Final = ("fast_startup", "lazy_loading_enabled", "preload_models")


@click.command(
    "strategy",
    short_help="Show or switch the loading strategy of the running server.",
    epilog=examples(
        "ondol strategy",
        "ondol strategy --preload-models --no-lazy-loading",
        "ondol strategy --environment production",
    ),
)
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    help="Take the three switches of this profile; those given beside it win.",
)
@click.option("--fast-startup/--no-fast-startup", default=None, help="Serve first, load after.  [FAST_STARTUP]")
@click.option(
    "--lazy-loading/--no-lazy-loading",
    "lazy_loading_enabled",
    default=None,
    help="A model may be loaded on its first use.  [LAZY_LOADING_ENABLED]",
)
@click.option(
    "--preload-models/--no-preload-models",
    default=None,
    help="Load models ahead of use.  [PRELOAD_MODELS]",
)
@url_option
@timeout_option
@json_option
def command(url: str | None, timeout_s: float, is_json: bool, **switches: str | bool | None) -> None:
    """Show when the running server loads its models and when it is ready; with an option, switch it.

    The switch lasts until the server ends. What is to be loaded ahead of use is loaded now; nothing is unloaded.
    Reading needs the key that every call needs; switching needs the admin's, as with `ondol models load`.
    """
    from ondol.cli.client import client_of

    changes = {name: value for name, value in switches.items() if value is not None}
    client = client_of(url, timeout_s, is_admin=bool(changes))
    strategy = client.send("PUT", "/v1/strategy", changes) if changes else client.get("/v1/strategy")
    if is_json:
        from ondol.cli.output import print_json

        print_json({"url": client.url, **strategy})
    else:
        _print_text(strategy)


def _print_text(strategy: Mapping[str, Any]) -> None:
    from ondol.cli.messages import print_warning
    from ondol.cli.output import print_fields

    click.echo(str(strategy.get("meaning")))
    print_fields([(name.upper(), str(strategy.get(name)).lower()) for name in _SWITCHES])
    warnings = strategy.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        print_warning(str(warning))
