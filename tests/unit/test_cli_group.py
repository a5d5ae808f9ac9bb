from __future__ import annotations

import click
import pytest

from ondol.cli.group import COMMANDS, cli
from ondol.models.actions import ACTIONS


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def test_the_list_is_complete() -> None:
    assert set(cli.list_commands(click.Context(cli))) == {
        *("serve", "embed", "similarity", "search", "demo"),
        *("models", "preload", "alerts", "strategy", "stats", "config", "completion"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_the_group_says_of_a_command_what_the_command_says_itself(name: str) -> None:
    command = _command(name)
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_name_the_command(name: str) -> None:
    command = _command(name)
    text = command.get_help(click.Context(command, info_name=f"ondol {name}"))
    assert f"Usage: ondol {name}" in text
    assert f"ondol {name}" in text.split("Usage:")[1].split("\n", 1)[1]


@pytest.mark.parametrize(
    "name", ["embed", "similarity", "search", "demo", "models", "preload", "alerts", "strategy", "stats", "config"]
)
def test_every_command_that_answers_can_answer_in_json(name: str) -> None:
    assert "--json" in [option for parameter in _command(name).params for option in parameter.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    options = [parameter for parameter in _command(name).params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options)


def test_an_unknown_name_has_no_command() -> None:
    assert cli.get_command(click.Context(cli), "main") is None


def test_models_has_a_command_for_every_action_of_the_server() -> None:
    models = _command("models")
    assert isinstance(models, click.Group)
    assert set(models.commands) == set(ACTIONS)
    for name, command in models.commands.items():
        assert command.name == name
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert {option for parameter in options for option in parameter.opts} >= {"--json", "--url", "--timeout"}
        assert all(option.help for option in options)
        assert f"ondol models {name} " in command.get_help(click.Context(command, info_name=f"ondol models {name}"))


def test_each_command_of_preload_is_explained_and_can_answer_in_json() -> None:
    preload = _command("preload")
    assert isinstance(preload, click.Group)
    assert set(preload.commands) == {"plan", "forecast", "why", "hint", "hints", "unhint", "forbid", "allow"}
    for name, command in preload.commands.items():
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert {option for parameter in options for option in parameter.opts} >= {"--json", "--url", "--timeout"}
        assert all(option.help for option in options)
        assert f"ondol preload {name}" in command.get_help(click.Context(command, info_name="x"))


def test_each_command_of_alerts_is_explained_and_can_answer_in_json() -> None:
    alerts = _command("alerts")
    assert isinstance(alerts, click.Group)
    assert set(alerts.commands) == {"rules", "history", "silence", "silences", "unsilence", "check"}
    for name, command in alerts.commands.items():
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        needed = {"--json"} if name == "check" else {"--json", "--url", "--timeout"}
        assert {option for parameter in options for option in parameter.opts} >= needed
        assert all(option.help for option in options)
        assert f"ondol alerts {name}" in command.get_help(click.Context(command, info_name="x"))
