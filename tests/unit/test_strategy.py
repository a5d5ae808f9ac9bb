"""The eight combinations of the loading variables have one meaning each."""

from __future__ import annotations

import itertools

import pytest

from ondol.errors import InvalidSettingError
from ondol.settings import PROFILES, resolve
from ondol.strategy import loading_strategy, switched_settings

# FAST_STARTUP, LAZY_LOADING_ENABLED, PRELOAD_MODELS -> preloads all, ready after it, lazy, number of warnings
MEANING = {
    (True, True, False): (False, False, True, 0),
    (True, True, True): (True, False, True, 0),
    (True, False, True): (True, False, False, 0),
    (True, False, False): (True, False, False, 1),
    (False, True, True): (True, True, True, 0),
    (False, False, True): (True, True, False, 0),
    (False, True, False): (False, False, True, 0),
    (False, False, False): (True, True, False, 1),
}


@pytest.mark.parametrize("combination", list(itertools.product([True, False], repeat=3)))
def test_each_combination(combination: tuple[bool, bool, bool]) -> None:
    fast, lazy, preload = combination
    settings = resolve(arguments={"fast_startup": fast, "lazy_loading_enabled": lazy, "preload_models": preload}).values
    strategy = loading_strategy(settings)
    assert (
        strategy.is_preloading_all,
        strategy.is_ready_after_preload,
        strategy.is_lazy_loading_enabled,
        len(strategy.warnings),
    ) == MEANING[combination]
    # whatever is set, a model can be loaded in some way
    assert strategy.is_preloading_all or strategy.is_lazy_loading_enabled
    # and it is said in words: readiness first, then what loads when
    assert strategy.meaning.startswith("ready when" if strategy.is_ready_after_preload else "ready at once")


def test_without_background_preloading_nothing_is_loaded_ahead_of_use_and_the_conflict_is_told() -> None:
    settings = resolve(environ={"ENVIRONMENT": "production", "ENABLE_BACKGROUND_PRELOADING": "off"}).values
    strategy = loading_strategy(settings)
    assert not strategy.is_preloading_all
    assert strategy.is_lazy_loading_enabled
    assert not strategy.is_ready_after_preload
    assert len(strategy.warnings) == 2
    assert all("ENABLE_BACKGROUND_PRELOADING wins" in warning for warning in strategy.warnings)


@pytest.mark.parametrize("combination", list(itertools.product([True, False], repeat=4)))
def test_where_nothing_loads_on_use_an_idle_time_is_not_applied_and_that_is_told(
    combination: tuple[bool, bool, bool, bool],
) -> None:
    fast, lazy, preload, is_preloading = combination
    arguments = {
        "fast_startup": fast,
        "lazy_loading_enabled": lazy,
        "preload_models": preload,
        "preloading_enabled": is_preloading,
    }
    without = loading_strategy(resolve(arguments=arguments).values)
    strategy = loading_strategy(resolve(arguments={**arguments, "model_idle_ttl_s": 60.0}).values)
    more = strategy.warnings[len(without.warnings) :]
    assert strategy._replace(warnings=without.warnings) == without
    assert ["ONDOL_MODEL_IDLE_TTL_S" in text for text in more] == [True] * (not strategy.is_lazy_loading_enabled)


@pytest.mark.parametrize("environment", sorted(PROFILES))
def test_a_switch_to_an_environment_takes_its_three_variables_and_nothing_else(environment: str) -> None:
    settings = resolve(arguments={"environment": "testing", "cache_memory_limit_mb": 7, "api_key": "k"}).values
    switched = switched_settings(settings, environment=environment)
    switches = {"fast_startup", "lazy_loading_enabled", "preload_models"}
    for name, value in settings._asdict().items():
        assert getattr(switched, name) == (PROFILES[environment][name] if name in switches else value)


def test_what_is_given_wins_over_the_environment_and_what_is_none_stays() -> None:
    settings = resolve(arguments={"environment": "development"}).values
    assert switched_settings(settings) == settings
    switched = switched_settings(settings, environment="production", fast_startup=True)
    assert (switched.fast_startup, switched.lazy_loading_enabled, switched.preload_models) == (True, False, True)
    assert switched_settings(settings, preload_models=True) == settings._replace(preload_models=True)


def test_an_unknown_environment_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidSettingError, match=r"'staging'.*development, production, testing"):
        switched_settings(resolve().values, environment="staging")
