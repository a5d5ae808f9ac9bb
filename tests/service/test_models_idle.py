"""Models that are not used for long go, and what was learnt of them stays."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import ConfigurationError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.models.estimates_file import EstimatesFile
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_goes_when_it_was_not_used_for_its_time() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, idle_ttl_s=100.0)
        pool.register(fleet.spec("pools"))
        pool.register(fleet.spec("own", idle_ttl_s=10.0))
        pool.register(fleet.spec("pinned", residency="pinned", idle_ttl_s=10.0))
        async with pool:
            for name in ("pools", "own", "pinned"):
                await pool.load(name)
            begun_s = clock.monotonic()
            await asyncio.sleep(6)
            await use(pool, "own", seconds=20)  # from 6 to 26
            await asyncio.sleep(9)
            assert pool.status("own").state is ModelState.READY
            await asyncio.sleep(1.1)  # 36.1
            status = pool.status("own")
            assert (status.state, status.reason) == (ModelState.UNLOADED, "not used for 10.00 s")
            await asyncio.sleep(begun_s + 101 - clock.monotonic())
            assert pool.status("pools").state is ModelState.UNLOADED
            await asyncio.sleep(1000)
            assert pool.status("pinned").state is ModelState.READY
            assert pool.get_stats()["idle_unloads"] == 2
            await use(pool, "own")  # it may come again
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_the_idle_time_can_be_changed_while_running_and_ends_with_a_pin() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        for name in ("m", "kept"):
            pool.register(fleet.spec(name))
        async with pool:
            await pool.load("m")
            await pool.load("kept")
            await asyncio.sleep(1000)
            pool.pin("kept")
            pool.configure(idle_ttl_s=50.0)
            assert (pool.status("m").idle_ttl_s, pool.status("kept").idle_ttl_s) == (50.0, None)
            await asyncio.sleep(51)
            assert pool.status("m").state is ModelState.UNLOADED
            pool.unpin("kept")
            await asyncio.sleep(51)
            assert pool.status("kept").state is ModelState.UNLOADED
            await use(pool, "m")
            pool.configure(idle_ttl_s=None)
            await asyncio.sleep(1000)
            assert pool.status("m").state is ModelState.READY
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_nothing_is_unloaded_for_being_idle_that_could_not_come_back() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, idle_ttl_s=10.0, is_lazy_loading_enabled=False)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m")
            await asyncio.sleep(100)
            assert (pool.status("m").state, pool.status("m").idle_ttl_s) == (ModelState.READY, None)
            pool.configure(is_lazy_loading_enabled=True)
            await asyncio.sleep(11)
            assert pool.status("m").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_base_is_not_idle_while_something_built_on_it_is_loaded() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base", idle_ttl_s=10.0))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await use(pool, "app")
            await asyncio.sleep(100)
            assert pool.status("base").state is ModelState.READY
            await pool.unload("app")
            await asyncio.sleep(21)
            assert pool.status("base").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_pinned_by_hand_stays_and_unpinned_goes_when_room_is_needed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("kept", size_bytes=50))
        pool.register(fleet.spec("born_pinned", size_bytes=50, residency="pinned"))
        pool.register(fleet.spec("next", size_bytes=50))
        async with pool:
            await use(pool, "kept")
            await use(pool, "born_pinned")
            pool.pin("kept")
            pool.unpin("born_pinned")
            assert [pool.status(name).is_pinned for name in ("kept", "born_pinned")] == [True, False]
            await use(pool, "next")
            assert pool.status("kept").state is ModelState.READY
            assert pool.status("born_pinned").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_is_worth_least_a_byte_goes_first() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("often", size_bytes=40))
        pool.register(fleet.spec("lately", size_bytes=40))
        pool.register(fleet.spec("next", size_bytes=40))
        async with pool:
            for _ in range(5):
                await use(pool, "often")
            await use(pool, "lately")
            await use(pool, "next")
            assert pool.status("often").state is ModelState.READY
            assert pool.status("lately").state is ModelState.UNLOADED
            await asyncio.sleep(3600)  # often is history now
            await use(pool, "next")
            await use(pool, "lately")
            assert pool.status("often").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_that_is_slow_to_load_stays_rather_than_a_quick_one() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        for name, seconds in (("slow", 30.0), ("quick", 0.1), ("next", 1.0)):
            fleet.load_seconds = seconds
            pool.register(fleet.spec(name, size_bytes=40))
        async with pool:
            for name, seconds in (("slow", 30.0), ("quick", 0.1), ("next", 1.0)):
                fleet.load_seconds = seconds
                await use(pool, name)
            assert pool.status("slow").state is ModelState.READY
            assert pool.status("quick").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


# What is learnt


def test_sizes_and_load_times_outlive_the_process(tmp_path: Path) -> None:
    store = EstimatesFile(tmp_path / "folder" / "모델.json")

    async def learn(clock: VirtualClock) -> None:
        rss = [0]
        fleet, pool = Fleet(load_seconds=4.0), ModelPool(clock=clock, estimates=store, memory_probe=lambda: rss[0])

        async def load() -> object:
            await asyncio.sleep(4.0)
            rss[0] += 70
            return object()

        pool.register(ModelSpec("온돌", load, version="2"))
        pool.register(ModelSpec("plain", load))
        async with pool:
            await pool.load("온돌")
            await pool.load("plain")
        check_ended(pool, fleet)

    async def remember(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=4.0), ModelPool(clock=clock, estimates=store, memory_limit_bytes=100)
        pool.register(fleet.spec("온돌", version="2"))
        pool.register(fleet.spec("plain", version="other"))
        async with pool:
            assert pool.status("온돌").size_bytes == 70
            assert pool.status("온돌").load_seconds == pytest.approx(4.0)
            assert (pool.status("plain").size_bytes, pool.status("plain").load_seconds) == (None, None)
            caller = asyncio.create_task(use(pool, "온돌"))
            await asyncio.sleep(1.0)
            status = pool.status("온돌")
            assert status.progress == pytest.approx(0.25)
            assert status.eta_s == pytest.approx(3.0)
            assert pool.get_stats()["used_bytes"] == 70  # the reservation
            await caller
        check_ended(pool, fleet)

    run_virtual(learn)
    run_virtual(remember)
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["모델.json"]


def test_what_was_learnt_is_written_soon_and_not_only_at_the_end(tmp_path: Path) -> None:
    store = EstimatesFile(tmp_path / "estimates.json")

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, estimates=store)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m")
            await asyncio.sleep(3.0)
            plain = store.read()
            assert plain is not None
            assert plain["models"]["m"]["load_seconds"] == pytest.approx(1.0)
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 9}', '{"format": 1, "models": {"m": {"version": "", "size_bytes": -1}}}']
)
def test_a_damaged_file_costs_knowledge_only(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "estimates.json"
    path.write_text(content, encoding="utf-8")

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, estimates=EstimatesFile(path))
        pool.register(fleet.spec("m"))
        async with pool:
            await use(pool, "m")
            assert pool.get_stats()["estimate_failures"] == 1
        check_ended(pool, fleet)
        plain = EstimatesFile(path).read()
        assert plain is not None
        assert "m" in plain["models"]

    with caplog.at_level(logging.ERROR):
        run_virtual(scenario)
    assert "learnt anew" in caplog.text


def test_a_store_that_cannot_be_written_is_told_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def read(self) -> dict[str, Any] | None:
            return None

        def write(self, plain: dict[str, Any]) -> None:
            message = "no space left"
            raise OSError(message)

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, estimates=Full())
        pool.register(fleet.spec("m"))
        async with pool:
            await use(pool, "m")
        assert pool.get_stats()["estimate_failures"] == 1
        check_ended(pool, fleet)

    run_virtual(scenario)
    assert "no space left" in caplog.text


# Memory that goes back


class Circle:
    """A model that only the garbage collector can free."""

    def __init__(self) -> None:
        self.me = self


def test_memory_is_given_back_after_the_last_reference_is_gone() -> None:
    seen: list[tuple[str, int]] = []
    alive: list[Any] = []

    def release() -> None:
        seen.append((threading.current_thread().name, sum(ref() is not None for ref in alive)))

    async def scenario(clock: VirtualClock) -> None:
        import weakref

        pool = ModelPool(clock=clock, release_memory=release)

        def load() -> Circle:
            model = Circle()
            alive.append(weakref.ref(model))
            return model

        pool.register(ModelSpec("m", load))
        async with pool:
            await pool.load("m")
            await pool.unload("m")
            assert pool.get_stats()["used_bytes"] == 0
            await pool.load("m")
        assert seen == [("ondol-m-memory", 0)] * 2

    gc.disable()
    try:
        run_virtual(scenario)
    finally:
        gc.enable()


def test_a_model_says_its_own_size_when_growth_tells_too_little() -> None:
    class Mapped:
        size_bytes = 64

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_probe=lambda: 1000, memory_limit_bytes=100)
        pool.register(ModelSpec("m", Mapped))
        async with pool:
            await pool.load("m")
            assert (pool.status("m").size_bytes, pool.get_stats()["used_bytes"]) == (64, 64)

    run_virtual(scenario)


@pytest.mark.parametrize("name", ["idle_ttl_s", "load_timeout_s"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True])
def test_bounds_that_are_no_bounds_are_refused(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        ModelPool(**given)
    pool = ModelPool()
    with pytest.raises(ConfigurationError, match=name):
        pool.configure(memory_limit_bytes=7, **given)
    assert pool.get_stats()["limit_bytes"] is None
    with pytest.raises(ConfigurationError, match=f"{name} of model 'm'"):
        ModelSpec("m", lambda: None, **given)
