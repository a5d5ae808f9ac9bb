"""Settings: precedence, profiles, origins, and errors that say everything at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ondol.errors import ConfigurationError, InvalidSettingError
from ondol.settings import PROFILES, SETTINGS, Settings, resolve
from ondol.settings_reader import load_settings

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = {
    "development": (True, True, False, 200, 1, True),
    "production": (False, False, True, 1000, 3, True),
    "testing": (True, True, False, 100, 1, False),
}


def test_every_field_has_its_setting_in_the_same_order() -> None:
    assert list(Settings._fields) == [setting.field for setting in SETTINGS]
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    assert all(setting.description.endswith((".", ")")) for setting in SETTINGS)


@pytest.mark.parametrize("environment", sorted(GUIDE))
def test_profiles_are_the_guides(environment: str) -> None:
    values = resolve(environ={"ENVIRONMENT": environment}).values
    assert (
        values.fast_startup,
        values.lazy_loading_enabled,
        values.preload_models,
        values.cache_memory_limit_mb,
        values.preload_max_concurrent,
        values.auto_tuning_enabled,
    ) == GUIDE[environment]


def test_development_is_the_default_and_binds_loopback() -> None:
    resolved = resolve()
    assert resolved.values.environment == "development"
    assert resolved.values.host == "127.0.0.1"
    assert resolved.origins["environment"] == "default"
    assert resolved.origins["fast_startup"] == "profile"


def test_precedence_argument_environment_dotenv_profile_default() -> None:
    environ = {"CACHE_MEMORY_LIMIT_MB": "64", "ENVIRONMENT": "production"}
    dotenv = {"CACHE_MEMORY_LIMIT_MB": "32", "PRELOAD_MAX_CONCURRENT": "7", "ONDOL_PORT": "9000"}
    resolved = resolve(environ=environ, dotenv=dotenv, arguments={"port": 9001})
    assert resolved.values.cache_memory_limit_mb == 64
    assert resolved.origins["cache_memory_limit_mb"] == "environment"
    assert resolved.values.preload_max_concurrent == 7
    assert resolved.origins["preload_max_concurrent"] == ".env"
    assert resolved.values.preload_models is True
    assert resolved.origins["preload_models"] == "profile"
    assert resolved.values.port == 9001
    assert resolved.origins["port"] == "argument"
    assert resolved.origins["log_dir"] == "default"


def test_an_argument_chooses_the_profile_too() -> None:
    assert resolve(arguments={"environment": "production"}).values.preload_models is True


def test_an_empty_variable_counts_as_not_set() -> None:
    resolved = resolve(environ={"FAST_STARTUP": "", "ENVIRONMENT": " "})
    assert resolved.values.fast_startup is True
    assert resolved.origins["fast_startup"] == "profile"


@pytest.mark.parametrize(
    ("variable", "raw", "allowed"),
    [
        ("ENVIRONMENT", "staging", "one of: development, production, testing"),
        ("FAST_STARTUP", "ja", "true, false, 1, 0, yes, no, on or off"),
        ("CACHE_MEMORY_LIMIT_MB", "0", "a number > 0"),
        ("CACHE_MEMORY_LIMIT_MB", "nan", "a number > 0"),
        ("CACHE_MEMORY_LIMIT_MB", "inf", "a number > 0"),
        ("CACHE_MEMORY_LIMIT_MB", "viel", "a number > 0"),
        ("PRELOAD_MAX_CONCURRENT", "0", "an integer ≥ 1"),
        ("PRELOAD_MAX_CONCURRENT", "1.5", "an integer ≥ 1"),
        ("ONDOL_PORT", "70000", "≤ 65535"),
        ("ONDOL_LOG_LEVEL", "LOUD", "one of: DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_wrong_value_names_variable_value_and_what_is_allowed(variable: str, raw: str, allowed: str) -> None:
    with pytest.raises(InvalidSettingError) as raised:
        resolve(environ={variable: raw})
    message = str(raised.value)
    assert variable in message
    assert repr(raw) in message
    assert allowed in message
    assert "from environment" in message


def test_several_wrong_values_are_reported_together() -> None:
    with pytest.raises(InvalidSettingError) as raised:
        resolve(environ={"FAST_STARTUP": "x", "ONDOL_PORT": "y"}, dotenv={"PRELOAD_MODELS": "z"})
    assert len(raised.value.problems) == 3
    assert all(name in str(raised.value) for name in ("FAST_STARTUP", "ONDOL_PORT", "PRELOAD_MODELS", "from .env"))


def test_a_mistyped_ondol_variable_is_an_error_not_silence() -> None:
    with pytest.raises(InvalidSettingError, match=r"ONDOL_PROT.*ONDOL_PORT"):
        resolve(environ={"ONDOL_PROT": "1"})


def test_a_mistyped_key_is_not_shown() -> None:
    with pytest.raises(InvalidSettingError) as raised:
        resolve(environ={"ONDOL_APIKEY": "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert "ONDOL_API_KEY" in str(raised.value)


def test_an_unknown_argument_lists_the_known_ones() -> None:
    with pytest.raises(InvalidSettingError, match=r"unknown setting 'cache_mb'.*cache_memory_limit_mb"):
        resolve(arguments={"cache_mb": 1})


@pytest.mark.parametrize("variable", ["ONDOL_API_KEY", "ONDOL_ADMIN_KEY"])
def test_secrets_are_masked_in_rows_and_in_errors(variable: str) -> None:
    rows = resolve(environ={variable: "hunter2"}).rows()
    assert "hunter2" not in repr(rows)
    assert {row["variable"] for row in rows} == {setting.variable for setting in SETTINGS}


def test_settings_are_frozen() -> None:
    values = resolve().values
    with pytest.raises(AttributeError):
        values.port = 1  # type: ignore[misc]  # assigning is what must fail
    assert values.cache_memory_limit_bytes == 200 * 1024 * 1024
    assert values.model_memory_limit_bytes is None


def test_every_number_above_zero_is_a_bound_also_one_of_less_than_a_byte() -> None:
    values = resolve(environ={"CACHE_MEMORY_LIMIT_MB": "1e-9", "MODEL_MEMORY_LIMIT_MB": "1e-9"}).values
    assert (values.cache_memory_limit_bytes, values.model_memory_limit_bytes) == (1, 1)


def test_profiles_name_only_settings() -> None:
    names = {setting.field for setting in SETTINGS}
    assert all(set(profile) <= names for profile in PROFILES.values())


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# 주석\nONDOL_PORT=8100\nexport ONDOL_LOG_DIR='기록 폴더'\nFAST_STARTUP=false\n", encoding="utf-8")
    resolved = load_settings(environ={"ONDOL_PORT": "8200"}, dotenv_path=path)
    assert resolved.values.port == 8200
    assert resolved.values.log_dir == "기록 폴더"
    assert resolved.origins["fast_startup"] == ".env"


def test_a_dotenv_that_is_no_text_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(ConfigurationError, match=r"\.env.*UTF-8"):
        load_settings(environ={}, dotenv_path=path)


def test_a_broken_dotenv_line_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("ONDOL_PORT=8100\nnot a setting at all\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"\.env: line 2 is not of the form NAME=value"):
        load_settings(environ={}, dotenv_path=path)


def test_no_dotenv_no_matter(tmp_path: Path) -> None:
    assert load_settings(environ={}, dotenv_path=tmp_path / "absent").values.port == 8000


@pytest.mark.parametrize(
    "variable", ["CACHE_MEMORY_LIMIT_MB", "MODEL_MEMORY_LIMIT_MB", "ONDOL_LEASE_TIMEOUT_S", "ONDOL_SHUTDOWN_GRACE_S"]
)
def test_a_number_that_no_counter_or_timer_can_hold_is_refused(variable: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"{variable}='1e308'.* ≤ [0-9]+$"):
        resolve(environ={variable: "1e308"})
