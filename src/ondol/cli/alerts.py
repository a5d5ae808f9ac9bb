"""service: `ondol alerts`: what is wrong at the running server and what to do about it, what was, and silences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from ondol.cli.asking import asking_of, checked, print_answer
from ondol.cli.options import examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.cli.client import ServerClient

__all__ = ["command"]

ALERT_FILE: Final = "ondol-alerts.toml"


@click.group(
    "alerts",
    short_help="Show what is wrong and what to do about it; silence notices.",
    epilog=examples(
        "ondol alerts",
        "ondol alerts history --limit 20",
        'ondol alerts silence memory_high --for 2h --comment "a planned import"',
        "ondol alerts check ondol-alerts.toml",
    ),
    invoke_without_command=True,
)
@url_option
@timeout_option
@json_option
@click.pass_context
def command(context: click.Context, /, url: str | None, timeout_s: float, is_json: bool) -> None:
    """Show the alerts of the running server: those that fire first, then those whose condition has begun to hold.

    The server is the one of ONDOL_HOST and ONDOL_PORT unless --url names another. ONDOL_ADMIN_KEY is sent when set,
    else ONDOL_API_KEY; `silence` and `unsilence` send the server's own token from ONDOL_DATA_DIR when neither is.
    """
    if context.invoked_subcommand is not None:
        return
    from ondol.cli.client import client_of

    client = client_of(url, timeout_s)
    overview = _overview(client)
    if is_json:
        print_answer(client, overview)
    else:
        _print_overview(overview)


_asking = asking_of(command)


def _overview(client: ServerClient) -> dict[str, Any]:
    return checked(client, client.get("/v1/alerts"), "rules", "active", "silences")


# --- what is, and what was ---


def _is_watched(overview: Mapping[str, Any]) -> bool:
    return overview.get("is_enabled") is not False


def _print_overview(overview: Mapping[str, Any]) -> None:
    from ondol.cli.alert_rows import UNWATCHED, alert_rows, fate, print_rows
    from ondol.cli.layout import clean
    from ondol.cli.messages import print_note

    rows = alert_rows(overview)
    titles = ("alert!", "state!", "severity!", "for!", "value!", "condition", "what to do")
    print_rows(titles, rows, "No alert is active." if _is_watched(overview) else UNWATCHED)
    silenced = [silence for silence in overview["silences"] if silence.get("state") == "active"]
    firing = len(overview["active"])
    print_note(f"{firing} of {len(overview['rules'])} rules firing, silences: {len(silenced)}")
    for name, notifier in (overview.get("notices") or {}).items():
        click.echo(clean(f"notices by {name}: {fate(notifier)}"))


@_asking("rules", "List the rules and where their alerts are.", "ondol alerts rules", "ondol alerts rules --json")
def _rules(client: ServerClient, *, is_json: bool) -> None:
    """List every rule: whether its alert fires, for how long, the newest value, and the condition."""
    overview = _overview(client)
    rules, is_watched = overview["rules"], _is_watched(overview)
    if is_json:
        print_answer(client, {"is_enabled": is_watched, "data": rules})
        return
    from ondol.cli.alert_rows import UNWATCHED, print_rows, rule_row
    from ondol.cli.messages import print_warning

    if not is_watched:
        print_warning(UNWATCHED)
    titles = ("alert!", "state!", "severity!", "for!", "value!", "condition", "what to do")
    print_rows(titles, [rule_row(rule) for rule in rules], "There are no rules.")


@_asking(
    "history", "Show what fired and was resolved.", "ondol alerts history", "ondol alerts history --limit 5 --json"
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Most transitions to show.")
def _history(client: ServerClient, *, is_json: bool, limit: int) -> None:
    """Show the last transitions of alerts, newest first."""
    history = checked(client, client.get(f"/v1/alerts/history?limit={limit}"), "data")
    if is_json:
        print_answer(client, history)
        return
    from ondol.cli.alert_rows import event_row, print_rows

    titles = ("when!", "alert!", "what!", "severity!", "value!", "lasted!", "why")
    print_rows(titles, [event_row(event) for event in history["data"]], "No alert has fired.")


# --- silences ---


def _matchers(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    """Return the matchers that the words name: the name of an alert, or label=value."""
    del context, parameter
    matchers: dict[str, str] = {}
    for word in words:
        label, sign, glob = word.partition("=") if "=" in word else ("alertname", "=", word)
        if not label or not sign or not glob:
            message = f"{word!r} is neither the name of an alert nor LABEL=VALUE"
            raise click.BadParameter(message)
        if label in matchers:
            message = f"{label} is given twice; one silence has one pattern a label, such as '{label}=disk_*'"
            raise click.BadParameter(message)
        matchers[label] = glob
    return matchers


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""


@_asking(
    "silence",
    "Hold back the notices of alerts for a while.",
    "ondol alerts silence memory_high --for 2h",
    'ondol alerts silence severity=info --for 1h30m --comment "moving the store"',
    "ondol alerts silence 'disk_*' severity=warning --for 1d",
    is_admin=True,
)
@click.argument("matchers", metavar="NAME|LABEL=VALUE...", nargs=-1, required=True, callback=_matchers)
@click.option("--for", "duration", metavar="DURATION", required=True, help="Such as 45m, 2h, 1d12h, or seconds.")
@click.option("--comment", default="", metavar="TEXT", help="Why.")
@click.option("--by", "created_by", metavar="NAME", help="Who.  [the user's name]")
def _silence(
    client: ServerClient,
    *,
    is_json: bool,
    matchers: dict[str, str],
    duration: str,
    comment: str,
    created_by: str | None,
) -> int | None:
    """Hold back the notices of the alerts that fit everything given; the alerts go on and are shown.

    A NAME is that of an alert, a VALUE that of a label (`severity`, `metric`, or one of the rule's own); both may be
    globs. Silences end after their time, and with the server.
    """
    content = {
        "matchers": matchers,
        "duration_seconds": float(duration) if duration.isascii() and duration.isdecimal() else duration,
        "comment": comment,
        "created_by": _user() if created_by is None else created_by,
    }
    answer = client.send("POST", "/v1/alerts/silences", content, accepted=(422,))
    if (refused := _refused(_in_terms_of_options(answer, duration), "invalid-request")) is not None:
        return refused
    silence = checked(client, answer, "id", "ends_at")
    if is_json:
        print_answer(client, silence)
        return None
    _tell_silence(silence)
    return None


def _tell_silence(silence: Mapping[str, Any]) -> None:
    from ondol.cli.alert_rows import moment
    from ondol.cli.layout import clean
    from ondol.cli.messages import print_warning

    rules = ", ".join(map(str, silence.get("rules") or []))
    held = f": {rules}" if rules else ""
    click.echo(clean(f"{silence['id']}: silent until {moment(silence['ends_at'])}{held}"))
    if not rules:
        print_warning("no rule of the server fits; `ondol alerts rules --json` shows their labels")


def _in_terms_of_options(answer: Mapping[str, Any], duration: str) -> Mapping[str, Any]:
    """Return what the server refuses under the name that was typed: its own field names are not those of options."""
    errors = answer.get("errors")
    if not isinstance(errors, list) or {"duration_seconds"} != {str(dict(each).get("field")) for each in errors}:
        return answer
    allowed = "a time above 0 and of at most 365d, such as 45m, 2h, 1d12h, or seconds"
    return {**answer, "detail": f"--for {duration} is not allowed: it must be {allowed}"}


def _refused(answer: Mapping[str, Any], *codes: str) -> int | None:
    """Return the exit code of an answer that refuses what was given; ``None`` for any other."""
    from ondol.cli.exits import EXIT_INVALID
    from ondol.cli.messages import print_error

    if answer.get("code") not in codes:
        return None
    print_error(str(answer.get("detail")))
    return EXIT_INVALID


@_asking("silences", "List the silences.", "ondol alerts silences", "ondol alerts silences --json")
def _silences(client: ServerClient, *, is_json: bool) -> None:
    """List the silences that are active or still to come."""
    silences = _overview(client)["silences"]
    if is_json:
        print_answer(client, {"data": silences})
        return
    from ondol.cli.alert_rows import print_rows, silence_row

    titles = ("id!", "what", "state!", "until!", "by", "why")
    print_rows(titles, [silence_row(silence) for silence in silences], "There are no silences.")


@_asking("unsilence", "End a silence.", "ondol alerts unsilence 1a2b3c4d", is_admin=True)
@click.argument("silence_id", metavar="ID")
def _unsilence(client: ServerClient, *, is_json: bool, silence_id: str) -> int | None:
    """End the silence of that ID, as `ondol alerts silences` lists it, before its time."""
    answer = client.send("DELETE", f"/v1/alerts/silences/{quote(silence_id, safe='')}", accepted=(404,))
    if (refused := _refused(answer, "unknown-silence")) is not None:
        return refused
    if answer:
        checked(client, answer, "removed")  # a 404 that no server of this version gives
    if is_json:
        print_answer(client, {"removed": silence_id})
    else:
        from ondol.cli.layout import clean

        click.echo(clean(f"{silence_id}: removed"))
    return None


# --- the file ---


@command.command(
    "check",
    short_help="Check a file of alert rules.",
    epilog=examples("ondol alerts check", "ondol alerts check rules/ondol-alerts.toml --json"),
)
@click.argument("file", metavar="[FILE]", default=ALERT_FILE)
@json_option
@click.pass_context
def _check(context: click.Context, /, file: str, is_json: bool) -> int | None:
    """Check FILE (ondol-alerts.toml when absent) without a server: print the rules it makes, or every mistake in it.

    Variables that `secret_env` and `urls_env` name must be set, as for the server.
    """
    from ondol.cli.alert_check import check_file

    return check_file(file, is_json=is_json or (context.parent is not None and context.parent.params["is_json"]))
