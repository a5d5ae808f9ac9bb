"""service: what the groups of commands that ask a running server share: their options, and their look at the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import click
from click.core import ParameterSource

from ondol.cli.options import examples, json_option, timeout_option, url_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.cli.client import ServerClient

__all__ = ["Asking", "asking_of", "checked", "print_answer"]


class Asking(Protocol):
    """Makes commands of one group."""

    def __call__(
        self, name: str, short_help: str, *lines: str, is_admin: bool = False
    ) -> Callable[[Callable[..., int | None]], click.Command]:
        """Return a decorator: the function is a command that gets the client, ``is_json``, and its own parameters."""
        ...


def asking_of(group: click.Group) -> Asking:
    """Return what makes commands of ``group``; the options for where the server is may stand before or after a name."""

    def of_group(
        name: str, short_help: str, *lines: str, is_admin: bool = False
    ) -> Callable[[Callable[..., int | None]], click.Command]:
        def decorate(function: Callable[..., int | None]) -> click.Command:
            @click.pass_context
            def asking(
                context: click.Context, /, url: str | None, timeout_s: float, is_json: bool, **given: Any
            ) -> int | None:
                from ondol.cli.client import client_of

                assert context.parent is not None, f"these are commands of `ondol {group.name}`"
                above = context.parent.params
                if context.get_parameter_source("timeout_s") is ParameterSource.DEFAULT:
                    timeout_s = above["timeout_s"]
                client = client_of(url or above["url"], timeout_s, is_admin=is_admin)
                return function(client, is_json=is_json or above["is_json"], **given)

            asking.__doc__ = function.__doc__
            asking.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]  # click's own
            decorated = url_option(timeout_option(json_option(asking)))
            return group.command(name, short_help=short_help, epilog=examples(*lines))(decorated)

        return decorate

    return of_group


def checked(client: ServerClient, answer: dict[str, Any], *needed: str) -> dict[str, Any]:
    """Return an answer that has the members that are needed.

    Raises:
        ServerError: it is no answer of a server that knows the path, or one of another version.
    """
    from ondol.errors import ServerError

    if not all(name in answer for name in needed):
        message = f"{client.url} did not answer as expected; is that an ondol server, of this version?"
        raise ServerError(message)
    return answer


def print_answer(client: ServerClient, answer: Mapping[str, Any]) -> None:
    """Print ``answer`` as JSON, with the address that gave it."""
    from ondol.cli.output import print_json

    print_json({"url": client.url, **answer})
