from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from ondol.testing import FakeClock, VirtualClock, run_virtual
from ondol.tuning import AutoTuner
from ondol.units import MIB


class FakeCache:
    def __init__(self) -> None:
        self.max_bytes = 200 * MIB
        self.used_bytes = 150 * MIB
        self.resized: list[int] = []

    def resize(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = min(self.used_bytes, max_bytes)
        self.resized.append(max_bytes)


class FakePreloader:
    def __init__(self) -> None:
        self.reason = ""

    @property
    def is_paused(self) -> bool:
        return bool(self.reason)

    def pause(self, reason: str) -> None:
        self.reason = reason

    def resume(self) -> None:
        self.reason = ""


class Scene:
    def __init__(self, *, is_enabled: bool = True) -> None:
        self.cache = FakeCache()
        self.preloader = FakePreloader()
        self.health: dict[str, Any] = {"memory_percent": 50.0}
        self.metrics: list[tuple[str, float]] = []
        self.tuner = AutoTuner(
            self.cache,
            self.preloader,
            lambda: self.health,
            clock=FakeClock(),
            recorder=lambda name, value, unit="", **labels: self.metrics.append((name, value)),
            is_enabled=is_enabled,
        )

    def tick(self, memory_percent: object) -> None:
        self.health = {"memory_percent": memory_percent}
        self.tuner.tick()


def test_pressure_and_recovery_are_journalled_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ondol")
    scene = Scene()
    scene.tick(60.0)
    assert scene.tuner.get_stats()["decisions"] == []
    scene.tick(90.0)
    assert (scene.cache.max_bytes, scene.preloader.reason) == (100 * MIB, "memory pressure")
    assert scene.tuner.get_stats()["state"] == "pressure"
    for _ in range(6):
        scene.tick(60.0)
    assert (scene.cache.max_bytes, scene.preloader.is_paused) == (200 * MIB, False)
    stats = scene.tuner.get_stats()
    assert (stats["mode"], stats["state"]) == ("on", "normal")
    assert [entry["action"] for entry in stats["journal"]] == ["shrink", "pause", "restore", "restore", "resume"]
    assert "memory is at 90.0 %" in stats["decisions"][0]
    assert "200.0 MiB to 100.0 MiB" in stats["decisions"][0]
    told = [record.message for record in caplog.records if record.name.startswith("ondol.")]
    assert told == stats["decisions"]
    assert ("tuning.cache_bound_bytes", 100.0 * MIB) in scene.metrics
    json.dumps(stats, allow_nan=False)


def test_turned_off_nothing_changes() -> None:
    scene = Scene(is_enabled=False)
    for _ in range(5):
        scene.tick(99.0)
    assert scene.cache.resized == []
    assert not scene.preloader.is_paused
    assert scene.tuner.get_stats()["mode"] == "off"


def test_turning_it_off_gives_back_what_it_took() -> None:
    scene = Scene()
    scene.tick(99.0)
    scene.tuner.configure(is_enabled=False)
    assert (scene.cache.max_bytes, scene.preloader.is_paused) == (200 * MIB, False)
    assert "tuning was turned off" in scene.tuner.get_stats()["decisions"][-1]
    scene.tick(99.0)
    assert scene.cache.max_bytes == 200 * MIB
    scene.tuner.configure(is_enabled=True)
    scene.tick(99.0)
    assert scene.cache.max_bytes == 100 * MIB


def test_what_somebody_else_did_is_left_alone() -> None:
    scene = Scene()
    scene.preloader.pause("by hand")
    scene.cache.resize(50 * MIB)
    scene.tuner.configure(is_enabled=False)
    assert (scene.cache.max_bytes, scene.preloader.reason) == (50 * MIB, "by hand")


def test_a_new_configured_bound_is_what_is_restored() -> None:
    scene = Scene()
    scene.tick(99.0)
    scene.tuner.configure(base_cache_bytes=120 * MIB)
    for _ in range(5):
        scene.tick(50.0)
    assert scene.cache.max_bytes == 120 * MIB
    with pytest.raises(ValueError, match="base_cache_bytes"):
        scene.tuner.configure(base_cache_bytes=0)


@pytest.mark.parametrize("value", [None, float("nan"), "90%", True])
def test_figures_that_are_missing_or_odd_change_nothing(value: object) -> None:
    scene = Scene()
    scene.tick(value)
    scene.health = {}
    scene.tuner.tick()
    assert scene.cache.resized == []


def test_it_looks_every_interval_and_gives_back_at_stop() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        scene = Scene()
        await scene.tuner.start()
        await scene.tuner.start()
        await asyncio.sleep(12.0)
        assert scene.tuner.get_stats()["ticks"] == 3
        scene.health = {"memory_percent": 95.0}
        await asyncio.sleep(5.0)
        assert scene.preloader.is_paused
        await scene.tuner.stop()
        await scene.tuner.stop()
        assert (scene.cache.max_bytes, scene.preloader.is_paused) == (200 * MIB, False)
        await scene.tuner.start()
        await asyncio.sleep(1.0)
        assert scene.preloader.is_paused
        await scene.tuner.stop()

    run_virtual(scenario)


def test_a_stop_that_is_cancelled_gives_back_all_the_same() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        scene = Scene()
        await scene.tuner.start()
        scene.tick(95.0)
        assert scene.cache.max_bytes == 100 * MIB

        async def stop() -> None:
            stopping = asyncio.current_task()
            assert stopping is not None
            stopping.cancel()
            await scene.tuner.stop()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(stop())
        assert (scene.cache.max_bytes, scene.preloader.is_paused) == (200 * MIB, False)
        await asyncio.sleep(0)

    run_virtual(scenario)


def test_a_look_that_fails_is_counted_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        scene = Scene()
        broken = scene.cache.resize

        def fail(max_bytes: int) -> None:
            raise RuntimeError("cache broke")

        scene.cache.resize = fail  # type: ignore[method-assign]  # the fault to be survived
        scene.health = {"memory_percent": 95.0}
        await scene.tuner.start()
        await asyncio.sleep(7.0)
        assert scene.tuner.get_stats()["errors"] == 2
        scene.cache.resize = broken  # type: ignore[method-assign]  # mended
        await asyncio.sleep(5.0)
        assert scene.cache.max_bytes == 100 * MIB
        await scene.tuner.stop()

    run_virtual(scenario)
    assert "cache broke" in caplog.text


def test_it_outlives_event_loops() -> None:
    scene = Scene()

    async def without_stop() -> None:
        await scene.tuner.start()
        await asyncio.sleep(0)

    async def with_stop() -> None:
        await without_stop()
        await scene.tuner.stop()

    asyncio.run(without_stop())
    asyncio.run(with_stop())
    assert scene.tuner.get_stats()["ticks"] == 2
