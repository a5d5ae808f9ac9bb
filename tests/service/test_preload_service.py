from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from ondol.errors import ConfigurationError, DependencyCycleError, LifecycleError, NotStartedError
from ondol.models import ModelPool, ModelState, RetryPolicy
from ondol.preload import Preloader
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, loader_of, use

if TYPE_CHECKING:
    from ondol.preload.plan import Plan


class Setup:
    """A pool and a preloader over one fleet; registering goes through the preloader, as the guide's calls do."""

    def __init__(self, clock: VirtualClock, **options: Any) -> None:
        self.fleet = Fleet()
        limit_bytes = options.pop("memory_limit_bytes", None)
        self.pool = ModelPool(clock=clock, memory_limit_bytes=limit_bytes, retry=options.pop("retry", None))
        self.preloader = Preloader(self.pool, clock=clock, **options)

    def register(self, name: str, priority: int = 5, depends_on: tuple[str, ...] = (), **fields: Any) -> None:
        self.preloader.register(name, priority, loader_of(self.fleet.spec(name)), list(depends_on), **fields)

    async def __aenter__(self) -> Self:
        await self.pool.start()
        await self.preloader.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.preloader.stop()
        await self.pool.stop()
        assert self.pool.get_stats()["used_bytes"] == 0


def test_dependencies_first_then_priority_then_learned_use_then_order() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("app", 8, ("base",))
        setup.register("plain", 5)
        setup.register("used", 5)
        setup.register("high", 6)
        setup.register("base", 1)
        setup.preloader.record_usage("used")
        async with setup:
            await setup.preloader.wait_idle()
            assert setup.fleet.loads() == ["base", "app", "high", "used", "plain"]
            stats = setup.preloader.get_stats()
            assert (stats["attempts"], stats["succeeded"], stats["failed"], stats["queued"]) == (5, 5, 0, 0)
            assert str(stats["success_rate"]) == "100.0%"

    run_virtual(scenario)


def test_at_most_so_many_at_once_also_when_changed_while_running() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, max_concurrent=3)
        for index in range(7):
            setup.register(f"m{index}")
        async with setup:
            await asyncio.sleep(0.5)
            stats = setup.preloader.get_stats()
            assert (setup.fleet.loading, stats["loading"], stats["queued"]) == (3, 3, 4)
            setup.preloader.configure(max_concurrent=4)
            await asyncio.sleep(0.1)
            assert setup.fleet.loading == 4
            setup.preloader.configure(max_concurrent=1)
            setup.fleet.most_loading = 0
            await asyncio.sleep(1.0)
            assert setup.fleet.loading == 1
            await setup.preloader.wait_idle()
            assert len(setup.fleet.loads()) == 7

    run_virtual(scenario)


def test_pause_ends_nothing_begins_nothing_and_resume_goes_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("a")
        setup.register("b")
        async with setup:
            await asyncio.sleep(0.5)
            setup.preloader.pause("memory at 91.0 %")
            idle = asyncio.create_task(setup.preloader.wait_idle())
            await asyncio.sleep(10)
            assert setup.fleet.loads() == ["a"]
            assert setup.preloader.is_paused
            assert setup.preloader.get_stats()["paused_reason"] == "memory at 91.0 %"
            assert not idle.done()
            setup.preloader.resume()
            await idle
            assert setup.fleet.loads() == ["a", "b"]
            assert not setup.preloader.is_paused

    run_virtual(scenario)


def test_a_failing_preload_is_counted_visible_and_not_repeated() -> None:
    async def scenario(clock: VirtualClock) -> None:
        recorded: list[str] = []
        setup = Setup(clock, recorder=lambda name, *_args, **_labels: recorded.append(name))
        setup.fleet.failing.add("broken")
        setup.register("broken", 9)
        setup.register("needs", 5, ("broken",))
        setup.register("fine", 1)
        async with setup:
            await setup.preloader.wait_idle()
            await asyncio.sleep(100)
            assert setup.fleet.loads() == ["broken", "fine"]
            stats = setup.preloader.get_stats()
            assert (stats["attempts"], stats["succeeded"], stats["failed"]) == (2, 1, 1)
            assert str(stats["success_rate"]) == "50.0%"
            assert stats["blocked"] == {"needs": ["broken"]}
            assert "broken is broken" in stats["errors"]["broken"]
            assert recorded == ["preload.failures", "preload.load_time"]
            setup.fleet.failing.clear()
            await setup.pool.load("broken")  # somebody's request succeeds: what it blocked is preloaded
            await setup.preloader.wait_idle()
            assert setup.fleet.loads() == ["broken", "fine", "broken", "needs"]
            assert setup.preloader.get_stats()["errors"] == {}

    run_virtual(scenario)


def test_what_is_released_from_quarantine_is_preloaded_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, retry=RetryPolicy(attempts=1))
        setup.pool.configure(is_lazy_loading_enabled=False)
        setup.fleet.failing.add("m")
        setup.register("m")
        async with setup:
            await setup.preloader.wait_idle()
            assert setup.pool.status("m").state is ModelState.QUARANTINED
            setup.fleet.failing.clear()
            setup.pool.release("m")
            await setup.preloader.wait_idle()
            assert setup.pool.status("m").state is ModelState.READY

    run_virtual(scenario)


def test_wanting_anew_tries_a_failed_model_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.fleet.failing.add("m")
        setup.register("m")
        async with setup:
            await setup.preloader.wait_idle()
            setup.fleet.failing.clear()
            setup.preloader.want("m")
            await setup.preloader.wait_idle()
            assert setup.pool.status("m").state is ModelState.READY

    run_virtual(scenario)


def test_an_unregistered_dependency_is_visible_as_blocked_and_loads_once_registered() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("app", 5, ("later",))
        async with setup:
            await setup.preloader.wait_idle()
            assert setup.preloader.get_stats()["blocked"] == {"app": ["later"]}
            assert setup.preloader.get_stats()["attempts"] == 0
            await asyncio.to_thread(setup.register, "later")
            await asyncio.sleep(3)
            assert setup.fleet.loads() == ["later", "app"]
            assert setup.preloader.get_stats()["blocked"] == {}

    run_virtual(scenario)


def test_eager_and_pinned_models_are_wanted_by_themselves_whenever_registered() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("before", residency="eager"))
        pool.register(fleet.spec("lazy"))
        preloader = Preloader(pool, clock=clock)
        async with pool:
            await preloader.start()
            pool.register(fleet.spec("after", residency="pinned"))
            await asyncio.sleep(0)
            await preloader.wait_idle()
            assert fleet.loads() == ["before", "after"]
            preloader.want("lazy", "never")
            await preloader.wait_idle()
            assert fleet.loads() == ["before", "after", "lazy"]
            assert preloader.get_stats()["blocked"] == {"never": ["never"]}
            await preloader.stop()
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_request_overtakes_and_shares_the_preload_under_way() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("slow", 9)
        setup.register("wanted", 1)
        async with setup:
            await asyncio.sleep(0.5)
            await asyncio.gather(use(setup.pool, "wanted"), use(setup.pool, "slow"))
            assert clock.monotonic() == pytest.approx(1.5)
            await setup.preloader.wait_idle()
            assert sorted(setup.fleet.loads()) == ["slow", "wanted"]

    run_virtual(scenario)


def test_without_lazy_loading_a_lease_waits_for_what_is_planned() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.pool.configure(is_lazy_loading_enabled=False)
        for name in ("a", "b", "c"):
            setup.register(name)
        async with setup:
            await use(setup.pool, "c")
            assert clock.monotonic() == pytest.approx(1.0)

    run_virtual(scenario)


def test_switched_off_it_loads_nothing_and_still_learns() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, is_enabled=False)
        setup.register("m")
        async with setup:
            await setup.preloader.wait_idle()
            await asyncio.sleep(10)
            assert setup.fleet.loads() == []
            assert str(setup.preloader.get_stats()["success_rate"]) == "100.0%"
            await use(setup.pool, "m")
            setup.preloader.record_usage("unheard of")
            usage = setup.preloader.get_stats()["usage"]
            assert usage["m"] == {"count": 1, "last_used_at": pytest.approx(1_750_000_011.0)}
            assert usage["unheard of"]["count"] == 1
            setup.register("n")
            setup.preloader.configure(is_enabled=True)
            await setup.preloader.wait_idle()
            assert setup.fleet.loads() == ["m", "n"]

    run_virtual(scenario)


def test_what_does_not_fit_is_left_out_with_the_figures_and_evicts_nothing_until_there_is_room() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=100)
        setup.register("first", 5, size_bytes=80)
        setup.register("second", 5, size_bytes=80)
        async with setup:
            await setup.preloader.wait_idle()
            assert setup.fleet.loads() == ["first"]
            stats = setup.preloader.get_stats()
            assert stats["left_out"] == {"second": "needs 80 B, there is 20 B of room beside what is worth more"}
            assert stats["failed"] == 0
            assert setup.pool.status("first").state is ModelState.READY
            setup.pool.configure(memory_limit_bytes=200)
            setup.preloader.configure()  # looks anew
            await setup.preloader.wait_idle()
            assert setup.fleet.loads() == ["first", "second"]
            assert setup.preloader.get_stats()["left_out"] == {}

    run_virtual(scenario)


def test_stop_releases_who_waits_and_a_restart_loads_anew() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.fleet.failing.add("b")
        setup.register("a")
        setup.register("b")
        async with setup:
            idle = asyncio.create_task(setup.preloader.wait_idle())
            await asyncio.sleep(0.5)
            await setup.preloader.stop()
            await idle
        async with setup:
            await setup.preloader.start()
            await setup.preloader.wait_idle()
        assert setup.fleet.loads() == ["a", "a", "b"]
        with pytest.raises(NotStartedError):
            await setup.preloader.wait_idle()

    run_virtual(scenario)


def test_a_stop_that_is_cancelled_releases_who_waits_all_the_same() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("a")
        async with setup:
            idle = asyncio.create_task(setup.preloader.wait_idle())
            await asyncio.sleep(0.5)

            async def stop() -> None:
                stopping = asyncio.current_task()
                assert stopping is not None
                stopping.cancel()
                await setup.preloader.stop()

            with pytest.raises(asyncio.CancelledError):
                await asyncio.create_task(stop())
            async with asyncio.timeout(1):
                await idle

    run_virtual(scenario)


def test_the_pool_stopping_first_is_no_failure_and_no_endless_loop() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("a")
        setup.register("b")
        await setup.pool.start()
        await setup.preloader.start()
        idle = asyncio.create_task(setup.preloader.wait_idle())
        await asyncio.sleep(0.5)
        await setup.pool.stop()
        await idle
        assert setup.preloader.get_stats()["failed"] == 0
        assert setup.preloader.get_stats()["attempts"] == 1
        await setup.preloader.stop()

    run_virtual(scenario)


def test_it_outlives_event_loops() -> None:
    fleet, pool = Fleet(load_seconds=0.0), ModelPool()
    preloader = Preloader(pool)
    preloader.register("m", load_function=loader_of(fleet.spec("m")))

    async def session() -> None:
        async with pool:
            await preloader.start()
            await preloader.wait_idle()
            assert pool.status("m").state is ModelState.READY
            await preloader.stop()

    asyncio.run(session())
    asyncio.run(session())
    assert fleet.loads() == ["m", "m"]


def test_one_loop_at_a_time() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)

        def elsewhere() -> None:
            asyncio.run(setup.preloader.start())

        async with setup:
            with pytest.raises(LifecycleError, match="another event loop"):
                await asyncio.to_thread(elsewhere)

    run_virtual(scenario)


def test_what_cannot_work_is_refused_by_name() -> None:
    fleet, pool = Fleet(), ModelPool()
    preloader = Preloader(pool)
    load = loader_of(fleet.spec("x"))
    with pytest.raises(ConfigurationError, match="priority of model 'm'"):
        preloader.register("m", 11, load)
    with pytest.raises(ConfigurationError, match="no load_function"):
        preloader.register("m", dependencies=["base"])
    with pytest.raises(ConfigurationError, match="max_concurrent"):
        preloader.configure(max_concurrent=0)
    with pytest.raises(ConfigurationError, match="max_concurrent"):
        Preloader(pool, max_concurrent=0)
    with pytest.raises(ConfigurationError, match="depends_on"):
        preloader.register("m", 5, load, "base")
    preloader.register("a", 5, load, ["b"])
    with pytest.raises(DependencyCycleError, match="b -> a -> b"):
        preloader.register("b", 5, load, ["a"])
    with pytest.raises(ConfigurationError, match="registered already"):
        preloader.register("a", 5, load)


@pytest.mark.parametrize("is_in_thread", [False, True])
def test_registering_many_while_it_runs_reviews_once_per_turn_of_the_loop(
    is_in_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.pool.configure(is_lazy_loading_enabled=False)
        reviews: list[None] = []
        make_plan = setup.preloader._make_plan

        def counted() -> Plan:
            reviews.append(None)
            return make_plan()

        monkeypatch.setattr(setup.preloader, "_make_plan", counted)

        def register_all() -> None:
            for index in range(200):
                setup.register(f"m{index}", 5, (f"m{index - 1}",) if index == 199 else ())

        async with setup:
            reviews.clear()
            if is_in_thread:
                thread = threading.Thread(target=register_all)
                thread.start()
                thread.join()  # the loop stands still meanwhile
            else:
                register_all()
                asked = asyncio.create_task(use(setup.pool, "m199"))  # expected already, as is what it depends on
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert 1 <= len(reviews) <= 3
            if not is_in_thread:
                await asked
            await setup.preloader.wait_idle()
            assert len(setup.fleet.loads()) == 200

    run_virtual(scenario)


def test_what_is_wanted_later_in_a_turn_is_expected_at_once_with_what_it_depends_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.pool.configure(is_lazy_loading_enabled=False)
        for name, bases in {"first": (), "base": (), "app": ("base",)}.items():
            setup.pool.register(setup.fleet.spec(name, depends_on=bases))
        async with setup:
            setup.preloader.want("first")
            assert setup.preloader.get_stats()["queued_names"] or setup.preloader.get_stats()["loading_names"]
            setup.preloader.want("app")
            async with setup.pool.lease("base"):
                pass
            await setup.preloader.wait_idle()
            assert sorted(setup.fleet.loads()) == ["app", "base", "first"]

    run_virtual(scenario)


def test_an_outline_says_of_each_model_what_its_status_says() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        for name in ("kept", "replaced", "gone"):
            setup.pool.register(setup.fleet.spec(name, size_bytes=10))

        def check() -> None:
            for status in setup.pool.statuses():
                outline = setup.pool.outline()[status.name]
                assert outline == setup.pool.outline([status.name, "unknown"])[status.name]
                assert (outline.priority, outline.depends_on) == (status.priority, status.depends_on)
                assert (outline.size_bytes, outline.is_pinned) == (status.size_bytes or 0, status.is_pinned)
                assert (outline.is_ready, outline.leases) == (status.state is ModelState.READY, status.leases)

        check()
        setup.pool.pin("kept")
        setup.pool.register(setup.fleet.spec("replaced", priority=9, size_bytes=20), replace=True)
        check()
        async with setup:
            async with setup.pool.lease("gone"):
                check()
                assert setup.pool.outline()["gone"].is_in_memory
            check()
            await setup.pool.unload("gone")
            check()
            assert not setup.pool.outline()["gone"].is_in_memory

    run_virtual(scenario)
