"""The eight combinations of the loading variables have one meaning each."""

from __future__ import annotations

import itertools

import pytest

from ondol.settings import resolve
from ondol.strategy import loading_strategy

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


def test_without_background_preloading_nothing_is_loaded_ahead_of_use_and_the_conflict_is_told() -> None:
    settings = resolve(environ={"ENVIRONMENT": "production", "ENABLE_BACKGROUND_PRELOADING": "off"}).values
    strategy = loading_strategy(settings)
    assert not strategy.is_preloading_all
    assert strategy.is_lazy_loading_enabled
    assert not strategy.is_ready_after_preload
    assert len(strategy.warnings) == 2
    assert all("ENABLE_BACKGROUND_PRELOADING wins" in warning for warning in strategy.warnings)
