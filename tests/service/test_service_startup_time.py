"""``service.startup_seconds``: told once each start that succeeds, when the service is ready for the first time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ondol import ModelSpec, OptimizationService
from ondol.settings import Settings, resolve
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from pathlib import Path


def settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def startup_of(service: OptimizationService) -> Any:
    """Return how often it was told, and what was told last."""
    figures = service.monitor.summaries().get("service.startup_seconds", {"count": 0, "last": None})
    return figures["count"], figures["last"]


def test_the_time_to_get_ready_is_told_when_every_part_has_started_and_not_when_one_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="production"), clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        real_start = service.tuner.start

        async def slow() -> None:
            await asyncio.sleep(30)
            assert startup_of(service) == (0, None)
            await real_start()

        async def broken() -> None:
            await asyncio.sleep(30)
            raise OSError("no threads left")

        monkeypatch.setattr(service.tuner, "start", broken)
        with pytest.raises(OSError, match="no threads left"):
            await service.start()
        assert startup_of(service) == (0, None)
        monkeypatch.setattr(service.tuner, "start", slow)
        async with service:
            assert startup_of(service) == (1, pytest.approx(30.0, abs=0.1))

    run_virtual(scenario)


def stuck(clock: VirtualClock) -> OptimizationService:
    """Return a service that gets ready only when it need not wait for its model any more."""
    service = OptimizationService(settings(environment="production", lazy_loading_enabled=True), clock=clock)
    service.models.register(ModelSpec(name="stuck", load=lambda: asyncio.sleep(10_000, "model")))
    return service


def test_a_service_that_a_switch_makes_ready_has_got_ready_then(folder: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = stuck(clock)
        async with service:
            await asyncio.sleep(5)
            assert startup_of(service) == (0, None)
            service.switch_strategy(fast_startup=True)
            assert startup_of(service) == (1, pytest.approx(5.0, abs=0.1))
            service.switch_strategy(fast_startup=False)
            service.switch_strategy(fast_startup=True)
            await asyncio.sleep(60)
        assert startup_of(service) == (1, pytest.approx(5.0, abs=0.1))

    run_virtual(scenario)


def test_a_service_that_other_settings_make_ready_has_got_ready_then(folder: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = stuck(clock)
        async with service:
            await asyncio.sleep(5)
            await service.start(settings(environment="development"))
            assert startup_of(service) == (1, pytest.approx(5.0, abs=0.1))

    run_virtual(scenario)


def test_a_service_that_is_stopped_before_it_was_ready_has_never_got_ready(folder: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = stuck(clock)
        async with service:
            await asyncio.sleep(5)
        await asyncio.sleep(5)
        service.monitor.tick()
        assert startup_of(service) == (0, None)

    run_virtual(scenario)


def test_what_becomes_ready_without_an_event_is_found_by_the_next_tick(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = stuck(clock)
        async with service:
            await asyncio.sleep(7)
            left_out: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset({"stuck"}))
            monkeypatch.setattr(service.preloader, "outstanding", lambda: left_out)
            await asyncio.sleep(30)
            assert startup_of(service) == (1, pytest.approx(10.0, abs=0.1))

    run_virtual(scenario)
