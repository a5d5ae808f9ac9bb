"""service: `ondol models`: the models of the running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.options import examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["command"]

_UNREMARKABLE: Final = frozenset({"ready", "registered", "unloaded"})


@click.command(
    "models",
    short_help="Show the models of the running server.",
    epilog=examples(
        "ondol models",
        "ondol models --url http://10.0.0.5:8000 --json",
    ),
)
@url_option
@timeout_option
@json_option
def command(url: str | None, timeout_s: float, is_json: bool) -> None:
    """Show each model of the running server: its state, what holds it up, and what it is for.

    The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another. ONDOL_API_KEY is sent when set.
    """
    from ondol.cli.client import client_of

    client = client_of(url, timeout_s)
    models = _models_of(client.get("/v1/models"), client.url)
    if is_json:
        from ondol.cli.output import print_json

        print_json({"url": client.url, "models": models})
    else:
        _print_table(models)


def _models_of(document: Mapping[str, Any], url: str) -> list[Mapping[str, Any]]:
    from ondol.errors import ServerError

    models = document.get("data")
    if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
        message = f"{url}/v1/models did not answer with a list of models; is that an ondol server?"
        raise ServerError(message)
    return models


def _print_table(models: Sequence[Mapping[str, Any]]) -> None:
    from ondol.cli.layout import Column
    from ondol.cli.output import print_table

    columns = [
        Column("model", is_whole=True, style="bold"),
        Column("state", is_whole=True, style="cyan"),
        Column("dimension", is_number=True),
        Column("default", is_whole=True),
        Column("about"),
    ]
    print_table(columns, [_row(model) for model in models])


def _row(model: Mapping[str, Any]) -> list[str]:
    from ondol.cli.figures import reason_beyond

    state = str(model.get("state") or "unknown")
    reason = reason_beyond(state, str(model.get("reason") or ""))
    # Why it is not ready matters more than what it is for, unless nobody has asked for it.
    about = reason if reason and state not in _UNREMARKABLE else str(model.get("description") or "")
    is_default = "yes" if model.get("is_default") else ""
    return [str(model["id"]), state, str(model.get("dimension") or ""), is_default, about]
