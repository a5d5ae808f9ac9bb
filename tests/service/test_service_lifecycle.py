"""The one service: starts and stops its parts in order, survives failures, and can be started again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ondol import ModelSpec, ModelState, OptimizationService
from ondol.errors import LifecycleError, ModelLoadError
from ondol.models.retry import RetryPolicy
from ondol.settings import Settings, resolve
from ondol.testing import VirtualClock, run_virtual


def settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


def test_starts_answers_and_stops_with_nothing_left_behind() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        async with service:
            assert service.get_stats()["started"] is True
            async with service.models.lease("m") as model:
                assert model == "model"
            stats = service.get_stats()
            assert stats["environment"] == "testing"
            assert set(stats) >= {"cache", "models", "preloader", "monitor", "tuner", "system_health"}
        assert not service.is_started
        assert service.models.status("m").state is not ModelState.READY

    run_virtual(scenario)


def test_parts_keep_their_identity_and_take_the_new_settings() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        parts = (service.cache, service.models, service.preloader, service.monitor, service.tuner)
        await service.cache.set("kept", 1)
        await service.start(settings(environment="production", cache_memory_limit_mb=5))
        assert (service.cache, service.models, service.preloader, service.monitor, service.tuner) == parts
        assert service.cache.max_bytes == 5 * 1024 * 1024
        assert await service.cache.get("kept") == 1
        await service.stop()

    run_virtual(scenario)


def test_starts_again_in_another_event_loop() -> None:
    service = OptimizationService(settings())
    service.models.register(ModelSpec(name="m", load=threading.get_ident))

    async def use() -> None:
        async with service, service.models.lease("m") as model:
            assert isinstance(model, int)

    asyncio.run(use())
    asyncio.run(use())
    assert service.models.status("m").load_count == 2


def test_stopping_twice_and_starting_twice_do_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        await service.stop()
        await service.start()
        await service.start()
        await service.stop()
        await service.stop()

    run_virtual(scenario)


def test_a_part_that_fails_to_start_takes_the_others_down_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)

        async def broken() -> None:
            raise OSError("no threads left")

        monkeypatch.setattr(service.preloader, "start", broken)
        with pytest.raises(OSError, match="no threads left"):
            await service.start()
        assert not service.is_started
        monkeypatch.undo()
        async with service:
            assert service.is_started

    run_virtual(scenario)


def test_a_part_that_fails_to_stop_does_not_keep_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        await service.start()
        await service.models.load("m")
        real_stop = service.tuner.stop

        async def broken() -> None:
            await real_stop()
            raise RuntimeError("tuner lost its notes")

        monkeypatch.setattr(service, "_started", [(n, broken if n == "tuner" else s) for n, s in service._started])
        with pytest.raises(ExceptionGroup) as raised:
            await service.stop()
        assert "tuner lost its notes" in str(raised.value.exceptions[0])
        assert service.models.status("m").state is not ModelState.READY

    run_virtual(scenario)


def test_production_is_ready_only_when_every_model_is_warm() -> None:
    async def scenario(clock: VirtualClock) -> None:
        gate = asyncio.Event()
        warmed: list[str] = []

        async def load() -> str:
            await gate.wait()
            return "model"

        service = OptimizationService(settings(environment="production"), clock=clock)
        service.models.register(ModelSpec(name="slow", load=load, warm_up=warmed.append))
        service.models.register(ModelSpec(name="fast", load=lambda: "other"))
        async with service:
            await asyncio.sleep(1)
            readiness = service.readiness()
            assert readiness["ready"] is False
            assert readiness["waiting_for"] == ["slow"]
            gate.set()
            await service.preloader.wait_idle()
            assert warmed == ["model"]
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def test_a_model_that_fails_to_preload_keeps_production_unready_and_says_why() -> None:
    async def scenario(clock: VirtualClock) -> None:
        def load() -> None:
            raise OSError("weights are missing")

        service = OptimizationService(settings(environment="production"), clock=clock)
        service.models.register(ModelSpec(name="broken", load=load))
        async with service:
            await service.preloader.wait_idle()
            readiness = service.readiness()
            assert readiness["ready"] is False
            assert "weights are missing" in str(readiness["models"])
            assert service.preloader.get_stats()["success_rate"] < "100%"

    run_virtual(scenario)


def test_development_is_ready_at_once_and_loads_nothing_unasked() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="development"), clock=clock)
        service.models.register(ModelSpec(name="lazy", load=lambda: "model"))
        async with service:
            await asyncio.sleep(60)
            assert service.readiness()["ready"] is True
            assert service.models.get_stats()["loads"] == 0

    run_virtual(scenario)


@pytest.mark.parametrize(
    ("switch", "observe"),
    [
        ("cache_enabled", lambda service: service.cache.is_enabled),
        ("auto_tuning_enabled", lambda service: service.tuner.get_stats()["mode"] == "on"),
    ],
)
def test_switches_reach_their_parts(switch: str, observe: Any) -> None:
    assert observe(OptimizationService(settings(**{switch: True})))
    assert not observe(OptimizationService(settings(**{switch: False})))


def test_background_preloading_off_loads_nothing_ahead_of_use() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="production", preloading_enabled=False), clock=clock)
        service.preloader.register("wanted", 10, lambda: "model")
        async with service:
            await asyncio.sleep(60)
            assert service.models.get_stats()["loads"] == 0
            async with service.models.lease("wanted") as model:
                assert model == "model"

    run_virtual(scenario)


def test_production_loads_a_model_that_is_registered_while_it_serves() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="production"), clock=clock)
        async with service:
            await asyncio.sleep(5)
            assert service.readiness()["ready"] is True
            service.models.register(ModelSpec(name="late", load=lambda: "model"))
            assert service.readiness()["waiting_for"] == ["late"]
            async with service.models.lease("late") as model:
                assert model == "model"
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def test_production_stays_ready_when_a_model_is_unloaded_on_purpose() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="production"), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        async with service:
            await service.preloader.wait_idle()
            await service.models.unload("m")
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def production_with_lazy_loading(clock: VirtualClock) -> OptimizationService:
    return OptimizationService(settings(environment="production", lazy_loading_enabled=True), clock=clock)


def test_production_stays_ready_while_a_model_that_left_is_loaded_again_on_use() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = production_with_lazy_loading(clock)

        def slowly(_model: str) -> Any:
            return asyncio.sleep(1)

        service.models.register(ModelSpec("base", lambda: asyncio.sleep(1, "base")))
        service.models.register(
            ModelSpec("m", lambda: asyncio.sleep(1, "m"), depends_on=("base",), warm_up=slowly, unload=slowly)
        )
        async with service:
            await service.preloader.wait_idle()
            for _ in range(2):
                unloading = asyncio.create_task(service.models.unload("base"))
                await asyncio.sleep(0.5)
                loading = asyncio.create_task(service.models.load("m"))
                seen = set()
                while not loading.done():
                    await asyncio.sleep(0.25)
                    seen.add(str(service.models.status("m").state))
                    assert service.readiness()["waiting_for"] == []
                assert seen >= {"draining", "queued", "loading", "warming", "ready"}
                await unloading

    run_virtual(scenario)


def test_production_is_not_ready_while_a_model_that_left_fails_to_come_back() -> None:
    async def scenario(clock: VirtualClock) -> None:
        files = ["weights"]

        async def load() -> str:
            await asyncio.sleep(1)
            return files[0]

        def readiness() -> tuple[str, bool]:
            return str(service.models.status("m").state), service.readiness()["ready"]

        service = production_with_lazy_loading(clock)
        service.models.configure(retry=RetryPolicy(attempts=2, first_s=1.0, jitter_ratio=0.0))
        service.models.register(ModelSpec("m", load))
        async with service:
            await service.preloader.wait_idle()
            await service.models.unload("m")
            weights = files.pop()
            loading = asyncio.create_task(service.models.load("m"))
            await asyncio.sleep(0.5)
            assert readiness() == ("loading", True)
            await asyncio.sleep(1)
            assert readiness() == ("backoff", False)
            await asyncio.sleep(1)
            assert readiness() == ("loading", False), "it is not excused before it is ready again"
            with pytest.raises(ModelLoadError):
                await loading
            assert readiness() == ("quarantined", False)
            files.append(weights)
            await service.models.reload("m")
            assert readiness() == ("ready", True)
            await service.models.unload("m")
            loading = asyncio.create_task(service.models.load("m"))
            await asyncio.sleep(0.5)
            assert readiness() == ("loading", True)
            await loading

    run_virtual(scenario)


def test_a_stop_in_another_loop_than_it_runs_in_changes_nothing_and_says_where_to_stop_it() -> None:
    async def use() -> None:
        service = OptimizationService(settings())
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        async with service:
            await service.models.load("m")
            with pytest.raises(LifecycleError, match=r"run_coroutine_threadsafe\(service.stop\(\), loop\)"):
                await asyncio.to_thread(asyncio.run, service.stop())
            assert service.get_stats()["started"]
            async with service.models.lease("m") as model:
                assert model == "model"
        assert not service.is_started
        assert service.models.status("m").state is ModelState.UNLOADED
        await asyncio.to_thread(asyncio.run, service.stop())  # nothing is left that could run here

    asyncio.run(use())


def test_a_loop_that_was_closed_without_a_stop_does_not_keep_it_from_starting_again() -> None:
    service = OptimizationService(settings())
    service.models.register(ModelSpec(name="m", load=lambda: "model"))

    async def use(*, is_stopping: bool) -> None:
        await service.start()
        await service.preloader.wait_idle()
        async with service.models.lease("m") as model:
            assert model == "model"
        if is_stopping:
            await service.stop()

    asyncio.run(use(is_stopping=False))
    assert not service.is_started
    asyncio.run(use(is_stopping=True))
    assert not service.is_started
    assert service.models.status("m").load_count == 2


def test_a_stop_in_another_loop_than_the_closed_one_of_the_start_unloads_and_reports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unloaded: list[str] = []
    service = OptimizationService(settings())
    service.models.register(ModelSpec(name="m", load=lambda: "model", unload=unloaded.append))

    async def use() -> None:
        await service.start()
        await service.models.load("m")

    asyncio.run(use())
    with caplog.at_level("INFO", "ondol.performance"):
        asyncio.run(service.stop())
    assert unloaded == ["model"]
    assert service.models.get_stats()["used_bytes"] == 0
    assert service.models.status("m").state is ModelState.UNLOADED
    assert "measurements" in caplog.messages


def test_a_running_service_that_is_given_the_production_profile_loads_its_models() -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="development"), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        async with service:
            await service.start(settings(environment="production"))
            async with service.models.lease("m") as model:
                assert model == "model"
            assert service.readiness()["ready"] is True

    run_virtual(scenario)


def test_a_start_during_a_stop_waits_for_it_and_leaves_it_running() -> None:
    async def scenario(clock: VirtualClock) -> None:
        async def unload(_model: str) -> None:
            await asyncio.sleep(1)

        service = OptimizationService(settings(), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model", unload=unload))
        await service.start()
        await service.models.load("m")
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.5)
        await service.start()
        assert stopping.done()
        assert service.is_started
        async with service.models.lease("m") as model:
            assert model == "model"
        await service.stop()

    run_virtual(scenario)
