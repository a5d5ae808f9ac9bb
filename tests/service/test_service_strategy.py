"""Switching the loading strategy while the service runs: preloads, leases and readiness follow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ondol import ModelSpec, ModelState, OptimizationService
from ondol.errors import InvalidSettingError, ModelNotLoadedError
from ondol.settings import resolve
from ondol.testing import run_virtual

if TYPE_CHECKING:
    from ondol.testing import VirtualClock


def make_service(clock: VirtualClock, *names: str, load_s: float = 1.0, **settings: Any) -> OptimizationService:
    async def load() -> str:
        await asyncio.sleep(load_s)
        return "model"

    service = OptimizationService(resolve(arguments={"environment": "testing", **settings}).values, clock=clock)
    for name in names:
        service.models.register(ModelSpec(name, load))
    return service


def test_to_production_loads_everything_and_is_ready_after_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a", "b")
        async with service:
            assert service.readiness()["ready"] is True
            strategy = service.switch_strategy(environment="production")
            assert strategy is service.strategy
            assert strategy.meaning == "ready when all models are warm; none loads on use"
            assert service.readiness()["waiting_for"] == ["a", "b"]
            await asyncio.sleep(1.5)  # one at a time: the concurrency is still that of the settings
            assert service.readiness()["waiting_for"] == ["b"]
            await service.preloader.wait_idle()
            assert service.readiness()["ready"] is True
            assert service.settings.environment == "testing"

    with caplog.at_level("INFO", "ondol.service"):
        run_virtual(scenario)
    assert "LAZY_LOADING_ENABLED=False PRELOAD_MODELS=True: ready when all models are warm" in caplog.text


def test_a_lease_on_a_model_that_is_now_loaded_ahead_waits_for_it_and_is_refused_afterwards() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a")
        async with service:
            service.switch_strategy(fast_startup=True, lazy_loading_enabled=False, preload_models=True)
            assert service.readiness()["ready"] is True
            async with service.models.lease("a") as model:
                assert model == "model"
            await service.models.unload("a")
            with pytest.raises(ModelNotLoadedError):
                async with service.models.lease("a"):
                    pass
            service.switch_strategy(lazy_loading_enabled=True)
            async with service.models.lease("a") as model:
                assert model == "model"

    run_virtual(scenario)


def test_back_to_development_is_ready_at_once_and_unloads_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a", "b", environment="production")
        async with service:
            assert service.readiness()["ready"] is False
            service.switch_strategy(environment="development")
            assert service.readiness()["ready"] is True
            await service.preloader.wait_idle()
            assert service.models.status("a").state is ModelState.READY

    run_virtual(scenario)


def test_what_was_unloaded_is_waited_for_again_when_it_is_to_be_loaded_ahead() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a", "b")
        async with service:
            for name in ("a", "b"):
                await service.models.load(name)
                await service.models.unload(name)
            service.switch_strategy(environment="production")
            assert service.readiness()["waiting_for"] == ["a", "b"]
            await service.preloader.wait_idle()
            assert service.readiness()["ready"] is True
            await service.models.unload("a")  # by hand, after it has been warm: not waited for
            service.switch_strategy(fast_startup=False)
            assert service.readiness()["ready"] is True
            assert service.models.status("a").state is ModelState.UNLOADED

    run_virtual(scenario)


def test_what_no_use_can_load_any_more_is_loaded_ahead_when_lazy_loading_is_switched_off() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "left", "stays", environment="production", lazy_loading_enabled=True)
        async with service:
            await service.preloader.wait_idle()
            await service.models.unload("left")
            service.switch_strategy(lazy_loading_enabled=False)
            assert service.readiness()["waiting_for"] == ["left"]
            async with service.models.lease("left") as model:
                assert model == "model"
            await service.models.unload("stays")  # it was ready at the switch: nothing was asked for that is still due
            await asyncio.sleep(5)
            assert service.models.status("stays").state is ModelState.UNLOADED
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def test_contradictions_are_logged_when_they_come_up(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock)
        async with service:
            (warning,) = service.switch_strategy(lazy_loading_enabled=False).warnings
            assert warning in caplog.messages

    run_virtual(scenario)


def test_an_idle_time_that_is_not_applied_is_told_at_the_start_and_at_a_switch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told() -> int:
        return sum("no model is unloaded for being idle" in message for message in caplog.messages)

    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a", environment="production", model_idle_ttl_s=5.0)
        async with service:
            assert told() == 1
            await service.preloader.wait_idle()
            await asyncio.sleep(60)
            assert service.models.status("a").state is ModelState.READY
            service.switch_strategy(lazy_loading_enabled=True)
            assert told() == 1
            service.switch_strategy(lazy_loading_enabled=False)
            assert told() == 2

    run_virtual(scenario)


def test_before_the_start_it_is_remembered_and_a_start_with_settings_wins() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a")
        service.switch_strategy(environment="production")
        assert service.models.get_stats()["queued"] == 0
        async with service:
            assert service.readiness()["waiting_for"] == ["a"]
            await service.start(resolve(arguments={"environment": "testing"}).values)
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def test_an_unknown_environment_changes_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, "a")
        before = service.settings, service.strategy
        with pytest.raises(InvalidSettingError):
            service.switch_strategy(environment="staging", preload_models=True)
        assert (service.settings, service.strategy) == before

    run_virtual(scenario)


def test_readiness_tells_how_far_each_model_is() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = make_service(clock, load_s=4.0)

        async def load() -> str:
            await asyncio.sleep(4)
            return "model"

        service.models.register(ModelSpec("a", load, load_seconds=4.0))
        async with service:
            loading = asyncio.create_task(service.models.load("a"))
            await asyncio.sleep(1)
            (model,) = service.readiness()["models"]
            assert (round(model["progress"], 3), round(model["eta_s"], 3)) == (0.25, 3.0)
            assert (round(model["since_s"], 3), model["last_error"]) == (1.0, None)
            await loading
            (model,) = service.readiness()["models"]
            assert model["progress"] == 1.0

    run_virtual(scenario)
