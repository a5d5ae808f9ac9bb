"""`ondol config`: values, origins, masking, and wrong values reported together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cli.main import main
from ondol.setting_specs import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and no settings in the environment."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["config", "--json", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


def by_variable(document: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {row["variable"]: (row["value"], row["origin"]) for row in document["settings"]}


def test_every_setting_is_listed_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(capsys)["settings"]
    assert [row["variable"] for row in rows] == [setting.variable for setting in SETTINGS]
    assert all(row["description"] for row in rows)


def test_each_origin_is_told(
    clean_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean_folder / ".env").write_text("ONDOL_PORT=9001\nONDOL_HOST=10.0.0.1\nONDOL_LOG_DIR=로그\n", encoding="utf-8")
    monkeypatch.setenv("ONDOL_HOST", "10.0.0.2")
    values = by_variable(read(capsys))
    assert values["ONDOL_PORT"] == (9001, ".env")
    assert values["ONDOL_HOST"] == ("10.0.0.2", "environment")
    assert values["ONDOL_LOG_DIR"] == ("로그", ".env")
    assert values["CACHE_MEMORY_LIMIT_MB"] == (200.0, "profile")
    assert values["ONDOL_MAX_TEXT_CHARS"] == (20_000, "default")


def test_an_option_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "testing")
    assert by_variable(read(capsys))["CACHE_MEMORY_LIMIT_MB"] == (100.0, "profile")
    values = by_variable(read(capsys, "--environment", "production"))
    assert values["ENVIRONMENT"] == ("production", "argument")
    assert values["CACHE_MEMORY_LIMIT_MB"] == (1000.0, "profile")


@pytest.mark.parametrize("variable", ["ONDOL_API_KEY", "ONDOL_ADMIN_KEY"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_secrets_are_masked(
    options: list[str], variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "s3cret-value")
    assert main(["config", *options]) == 0
    captured = capsys.readouterr()
    assert "s3cret-value" not in captured.out + captured.err
    assert "********" in captured.out


def test_text_is_an_aligned_table_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == len(SETTINGS) + 1
    assert "\x1b" not in captured.out
    assert lines[0].split() == ["variable", "value", "origin", "description"]
    column = lines[0].index("description")
    for setting, line in zip(SETTINGS, lines[1:], strict=True):
        assert line[column:] == setting.description
    assert "(unset)" in captured.out


def test_all_wrong_values_are_named_together(
    clean_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean_folder / ".env").write_text("ONDOL_PORT=eighty\n", encoding="utf-8")
    monkeypatch.setenv("CACHE_MEMORY_LIMIT_MB", "-1")
    monkeypatch.setenv("AUTO_TUNING_ENABLED", "maybe")
    assert main(["config"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: 3 problems\n")
    assert len(captured.err.splitlines()) == 4
    for part in (
        "ONDOL_PORT='eighty'",
        ".env",
        "CACHE_MEMORY_LIMIT_MB='-1'",
        "> 0",
        "AUTO_TUNING_ENABLED='maybe'",
        "yes",
    ):
        assert part in captured.err


def test_wrong_values_are_a_json_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "staging")
    monkeypatch.setenv("PRELOAD_MAX_CONCURRENT", "0")
    document = read(capsys, code=2)
    assert document["settings"] == []
    assert len(document["problems"]) == 2
    assert "development, production, testing" in document["problems"][0]


@pytest.mark.parametrize("command", [["embed", "text"], ["search", "q"], ["stats"], ["serve"], ["demo"]])
def test_wrong_values_stop_every_command_the_same_way(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_PORT", "x")
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ONDOL_PORT='x'" in captured.err


def test_contradicting_settings_are_warned_of_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAZY_LOADING_ENABLED", "off")
    assert main(["config"]) == 0
    assert capsys.readouterr().err.startswith("warning: LAZY_LOADING_ENABLED=false and PRELOAD_MODELS=false")


def test_an_unreadable_env_file_is_named(clean_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean_folder / ".env").write_bytes(b"ONDOL_HOST=\xff\xfe\n")
    assert main(["config"]) == 2
    assert ".env" in capsys.readouterr().err
