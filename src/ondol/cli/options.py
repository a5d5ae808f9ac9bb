"""service: the options that several commands share, so that they are called the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from ondol.setting_specs import ENVIRONMENTS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "complete_served_model",
    "environment_option",
    "examples",
    "json_option",
    "model_option",
    "timeout_option",
    "url_option",
]

_COMPLETION_TIMEOUT_S: Final = 0.5


def examples(*lines: str, title: str = "Examples") -> str:
    """Return the end of a help text: ``lines`` under ``title``, kept as they are."""
    return "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines)])  # click's mark for lines that stay apart


def _complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del context, parameter
    from click.shell_completion import CompletionItem

    from ondol.similarity.embedders import EMBEDDERS

    return [
        CompletionItem(name, help=embedder.description)
        for name, embedder in EMBEDDERS.items()
        if name.startswith(incomplete)
    ]


def complete_served_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of the running server's models; without one those that ondol brings."""
    from click.shell_completion import CompletionItem

    from ondol.cli.client import client_of
    from ondol.errors import OndolError

    above = {} if context.parent is None else context.parent.params
    url = context.params.get("url") or above.get("url")
    try:
        models = client_of(url, _COMPLETION_TIMEOUT_S).get("/v1/models")["data"]
        names = [(str(model["id"]), str(model["state"])) for model in models]
    except (OndolError, LookupError, TypeError):
        return _complete_model(context, parameter, incomplete)
    return [CompletionItem(name, help=state) for name, state in names if name.startswith(incomplete)]


def _checked_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del context, parameter
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        message = f"{value!r} is not an address like http://127.0.0.1:8000"
        raise click.BadParameter(message)
    return value.rstrip("/")


json_option = click.option("--json", "is_json", is_flag=True, help="Print one JSON document, and nothing else.")
model_option = click.option(
    "--model", metavar="NAME", shell_complete=_complete_model, help="Embedding model.  [ONDOL_DEFAULT_MODEL]"
)
environment_option = click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Profile.  [ENVIRONMENT]")
url_option = click.option(
    "--url",
    metavar="URL",
    callback=_checked_url,
    help="Address of the server.  [http://ONDOL_HOST:ONDOL_PORT]",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for the server.",
)
