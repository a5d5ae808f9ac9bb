"""What a review found in preloading, each as it went wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import ConfigurationError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.preload import Preloader
from ondol.service import OptimizationService
from ondol.settings_reader import load_settings
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from ondol.preload.proposal import Proposal

MB = 1024 * 1024
PERIOD_S = 300.0


def spec(name: str, seconds: float = 1.0, **fields: Any) -> ModelSpec:
    async def load() -> str:
        await asyncio.sleep(seconds)
        return name

    return ModelSpec(name, load, size_bytes=100 * MB, load_seconds=seconds, **fields)


def trusting(preloader: Preloader) -> None:
    """Have what is foreseen trusted from the beginning."""
    trust = preloader.foresight._policy.trust
    trust.take_in([trust.margin_worth, [[100.0, 95.0]] * 16])


async def use(pool: ModelPool, name: str) -> None:
    async with pool.lease(name):
        pass


def fetches_of(preloader: Preloader) -> list[Proposal]:
    """Return the list that every proposal will be put on."""
    found: list[Proposal] = []
    fetch = preloader.foresight._fetch

    def noted(proposal: Proposal) -> None:
        found.append(proposal)
        fetch(proposal)

    preloader.foresight._fetch = noted
    return found


async def live(pool: ModelPool, other: str, periods: int = 20) -> None:
    """Use a timer every five minutes, and another model between its times."""
    for _ in range(periods):
        await use(pool, "timer")
        await asyncio.sleep(PERIOD_S / 6)
        for _ in range(5):
            await use(pool, other)
            await asyncio.sleep(PERIOD_S / 6)


def test_a_production_server_stays_ready_when_there_is_room_for_what_was_left_out() -> None:
    async def scenario(clock: VirtualClock) -> None:
        settings = load_settings().values._replace(
            environment="production",
            fast_startup=False,
            preload_models=True,
            model_memory_limit_mb=300.0,
            auto_tuning_enabled=False,
            monitoring_enabled=False,
        )
        service = OptimizationService(settings, clock=clock)
        for name in "abc":
            service.models.register(spec(name))

        async def fails() -> str:
            await asyncio.sleep(30.0)
            raise ValueError("damaged weights")

        service.models.register(ModelSpec("d", fails, size_bytes=100 * MB, load_seconds=30.0))
        await service.start()
        await asyncio.sleep(60.0)
        assert service.readiness()["ready"]
        assert set(service.preloader.get_stats()["left_out"]) == {"d"}
        await service.models.unload("c")
        for _ in range(100):
            await asyncio.sleep(1.0)
            assert service.readiness()["ready"]
        await service.stop()

    run_virtual(scenario)


def test_no_pinned_model_is_to_leave_for_what_is_fetched_ahead() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=200 * MB)
        preloader = Preloader(pool, clock=clock)
        for name, residency in (("pinned", "pinned"), ("other", "lazy"), ("timer", "lazy")):
            pool.register(spec(name, residency=residency))
        trusting(preloader)
        fetches = fetches_of(preloader)
        async with pool:
            await preloader.start()
            await preloader.wait_idle()
            await live(pool, "other")
            assert all("pinned" not in proposal.victims for proposal in fetches)
            tally = preloader.foresight.tally
            assert tally.failed == 0
            assert tally.used + tally.wasted >= len(fetches) - 1
            await preloader.stop()

    run_virtual(scenario)


def test_nothing_leaves_that_the_fetched_model_is_built_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=200 * MB)
        preloader = Preloader(pool, clock=clock)
        for one in (spec("base"), spec("timer", depends_on=("base",)), spec("other")):
            pool.register(one)
        trusting(preloader)
        fetches = fetches_of(preloader)
        async with pool:
            await preloader.start()
            await live(pool, "other")
            assert all("base" not in proposal.victims for proposal in fetches)
            assert len(fetches) <= 25  # about one for each period, not one after the other
            await preloader.stop()

    run_virtual(scenario)


def test_nothing_is_displaced_where_nothing_could_come_back_on_use() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=200 * MB)
        preloader = Preloader(pool, clock=clock)
        for name in ("a", "b", "timer"):
            pool.register(spec(name))
        trusting(preloader)
        async with pool:
            await preloader.start()
            for _ in range(13):
                await use(pool, "timer")
                await pool.unload("timer")
                await asyncio.sleep(PERIOD_S)
            await use(pool, "timer")
            await pool.unload("timer")
            preloader.want("a", "b")
            await preloader.wait_idle()
            pool.configure(is_lazy_loading_enabled=False)
            preloader.configure(may_displace=False)
            preloader.hints.add("timer", at=clock.wall() + 400.0)
            await asyncio.sleep(1000.0)
            for name in ("a", "b"):
                assert pool.status(name).state is ModelState.READY
            await preloader.stop()

    run_virtual(scenario)


def test_a_fetch_during_which_the_pool_stops_was_neither_a_success_nor_a_win() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=1000 * MB)
        preloader = Preloader(pool, clock=clock)
        pool.register(spec("timer", seconds=5.0))
        trusting(preloader)
        await pool.start()
        await preloader.start()
        fetches = fetches_of(preloader)
        while not fetches:
            await use(pool, "timer")
            await pool.unload("timer")
            for _ in range(295):
                if not fetches:
                    await asyncio.sleep(1.0)
        await pool.stop()
        await asyncio.sleep(1.0)
        assert preloader.get_stats()["succeeded"] == 0
        await pool.start()
        await use(pool, "timer")
        assert preloader.foresight.tally.used == 0
        await preloader.stop()
        await pool.stop()

    run_virtual(scenario)


def test_switched_on_again_it_looks_ahead_without_being_used_first() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=1000 * MB)
        preloader = Preloader(pool, clock=clock)
        pool.register(spec("timer", seconds=5.0))
        trusting(preloader)
        async with pool:
            await preloader.start()
            preloader.configure(is_enabled=False)
            for turn in range(12):
                await use(pool, "timer")
                await pool.unload("timer")
                await asyncio.sleep(PERIOD_S if turn < 11 else 200.0)
            preloader.configure(is_enabled=True)
            await asyncio.sleep(99.0)
            assert preloader.foresight.tally.fetched == 1
            await preloader.stop()

    run_virtual(scenario)


def test_a_removed_limit_makes_room_for_what_was_left_out() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=200 * MB)
        preloader = Preloader(pool, clock=clock)
        for name in "abc":
            pool.register(spec(name))
        preloader.want(*"abc")
        async with pool:
            await preloader.start()
            await asyncio.sleep(10.0)
            assert set(preloader.get_stats()["left_out"]) == {"c"}
            pool.configure(memory_limit_bytes=None)
            await asyncio.sleep(10.0)
            assert pool.status("c").state is ModelState.READY
            await preloader.stop()

    run_virtual(scenario)


def test_an_older_use_that_is_replayed_does_not_move_a_newer_one_back() -> None:
    async def scenario(clock: VirtualClock) -> None:
        preloader = Preloader(ModelPool(clock=clock), clock=clock)
        await asyncio.sleep(100.0)
        preloader.record_usage("m")
        preloader.foresight.replay("m", clock.monotonic() - 50.0)
        track = preloader.foresight._policy.tracks["m"]
        assert track.last_s == clock.monotonic()
        assert track.gaps.bins() == []

    run_virtual(scenario)


@pytest.mark.parametrize("name", ["\ud800", "", " a", "a" * 300, 7, None])
def test_what_is_no_name_is_refused_and_leaves_nothing_behind(name: Any) -> None:
    preloader = Preloader(ModelPool())
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="name of a used model"):
            preloader.record_usage(name)
    assert preloader.get_stats()["usage"] == {}


def test_a_name_that_nobody_registered_is_never_fetched() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, memory_limit_bytes=1000 * MB)
        preloader = Preloader(pool, clock=clock)
        trusting(preloader)
        fetches = fetches_of(preloader)
        async with pool:
            await preloader.start()
            for _ in range(20):
                preloader.record_usage("nowhere")
                await asyncio.sleep(PERIOD_S)
            assert fetches == []
            await preloader.stop()

    run_virtual(scenario)


def test_models_registered_before_the_preloader_was_made_are_known_with_their_figures() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock)
        pool.register(spec("early", seconds=7.0))
        preloader = Preloader(pool, clock=clock)
        async with pool:
            await preloader.start()
            found = preloader.why("early")
            assert (found["load_s"], found["size_bytes"]) == (7.0, 100 * MB)
            await preloader.stop()

    run_virtual(scenario)
