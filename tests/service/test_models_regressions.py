"""What random histories found (``tests/property``), each as a story of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import (
    AlreadyClosedError,
    LeaseTimeoutError,
    ModelBudgetError,
    ModelLoadError,
    ModelQuarantinedError,
)
from ondol.models import ModelPool, ModelSpec, ModelState, RetryPolicy
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import FakeModel, Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Coroutine

POLICY = RetryPolicy(attempts=3, first_s=1.0, jitter_ratio=0.0)


def make_pool(clock: VirtualClock, **options: Any) -> ModelPool:
    return ModelPool(clock=clock, **({"retry": POLICY} | options))


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


async def within(seconds: float, work: Any) -> Any:
    """Await what would wait for ever if the mistake were back."""
    return await asyncio.wait_for(work, seconds)


# Loaders, warm-ups and unloads that do what they should not


class AbortError(BaseException):
    """Neither an ``Exception`` nor one of those that end a program."""


def test_a_loader_may_raise_anything() -> None:
    async def load() -> None:
        raise AbortError

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock)
        pool.register(ModelSpec("m", load))
        async with pool:
            with pytest.raises(ModelLoadError, match="AbortError"):
                await within(100, pool.load("m"))
            assert pool.status("m").state is ModelState.QUARANTINED

    run_virtual(scenario)


def test_an_unload_that_ends_with_a_cancelled_error_does_not_end_the_pool() -> None:
    async def unload(_model: FakeModel) -> None:
        task = begin(asyncio.sleep(10))
        task.cancel()
        await task

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("m", unload=unload))
        pool.register(fleet.spec("other"))
        async with pool:
            await pool.load("m")
            assert await pool.unload("m")
            await use(pool, "other")
            assert pool.get_stats()["unload_failures"] == 1

    run_virtual(scenario)


@pytest.mark.parametrize("is_hanging", [True, False])
def test_a_warm_up_that_is_given_up_does_not_keep_its_model(is_hanging: bool) -> None:
    async def warm_up(_model: FakeModel) -> None:
        if is_hanging:
            await asyncio.sleep(1000)
        raise asyncio.CancelledError

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, retry=None)
        pool.register(fleet.spec("m", warm_up=warm_up, load_timeout_s=5.0))
        async with pool:
            with pytest.raises(ModelLoadError):
                await pool.load("m")
            assert [model.is_unloaded for model in fleet.made] == [True]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_warm_up_left_behind_in_its_thread_has_its_model_unloaded_when_it_ends() -> None:
    unloaded: list[str] = []

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock, retry=None)
        spec = ModelSpec("m", lambda: "model", warm_up=lambda _model: time.sleep(0.2), unload=unloaded.append)
        pool.register(spec)
        await pool.start()
        loading = begin(pool.load("m"))
        while pool.status("m").state is not ModelState.WARMING:  # noqa: ASYNC110  # a real thread leads there
            await asyncio.sleep(0)
        await pool.stop(grace_s=0.0)
        with pytest.raises(AlreadyClosedError):
            await loading
        assert not unloaded
        for _ in range(100):
            if unloaded:
                break
            await asyncio.to_thread(time.sleep, 0.02)
        assert unloaded == ["model"]

    run_virtual(scenario)


def test_a_stop_is_not_followed_by_a_retry_of_what_failed_during_it() -> None:
    has_begun, is_to_fail = threading.Event(), threading.Event()

    def load() -> None:
        has_begun.set()
        is_to_fail.wait(10)
        raise OSError

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock)
        pool.register(ModelSpec("m", load))
        await pool.start()
        loading = begin(pool.load("m"))
        await asyncio.to_thread(has_begun.wait, 10)
        stopping = begin(pool.stop())
        await asyncio.sleep(0)
        is_to_fail.set()
        await stopping
        with pytest.raises(AlreadyClosedError):
            await loading
        assert (pool.status("m").state, pool.status("m").retry_in_s) == (ModelState.REGISTERED, None)

    run_virtual(scenario)


# Waits that never ended


def test_an_unload_does_not_forget_a_reload_that_waits_for_its_turn() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, max_demand_loads=1)
        for name in ("m", "busy"):
            pool.register(fleet.spec(name))
        async with pool:
            await pool.load("m")
            others = [begin(pool.load("busy")), begin(pool.reload("m"))]
            await asyncio.sleep(0)
            assert await pool.unload("m")
            await within(100, asyncio.gather(*others))
            assert pool.status("m").state is ModelState.READY
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_background_load_goes_on_when_the_request_it_waited_behind_gives_up() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100, lease_timeout_s=5.0)
        pool.register(fleet.spec("held", size_bytes=60))
        pool.register(fleet.spec("large", size_bytes=80))
        pool.register(fleet.spec("small", size_bytes=20))
        async with pool:
            holder = begin(use(pool, "held", 1000))
            await asyncio.sleep(2)
            request = begin(use(pool, "large"))
            await asyncio.sleep(0)
            preload = begin(pool.load("small", is_background=True))
            with pytest.raises(LeaseTimeoutError):
                await request
            await within(10, preload)
            holder.cancel()
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_request_is_refused_when_what_a_pinned_model_depends_on_leaves_no_room() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=50))
        pool.register(fleet.spec("pinned", ("base",), size_bytes=20, residency="pinned"))
        pool.register(fleet.spec("m", size_bytes=60))
        async with pool:
            await pool.load("pinned")
            with pytest.raises(ModelBudgetError, match="beside 70 B of pinned models"):
                await within(100, pool.load("m"))
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_a_pinned_model_was_built_on_counts_and_not_what_its_new_specification_names() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("old", size_bytes=50))
        pool.register(fleet.spec("new", size_bytes=10))
        pool.register(fleet.spec("pinned", ("old",), size_bytes=20, residency="pinned"))
        pool.register(fleet.spec("m", size_bytes=60))
        async with pool:
            await pool.load("pinned")
            fleet.failing.add("pinned")
            pool.register(fleet.spec("pinned", ("new",), size_bytes=20, residency="pinned"), replace=True)
            await asyncio.sleep(10)
            assert pool.status("pinned").state is ModelState.READY
            with pytest.raises(ModelBudgetError):
                await within(100, pool.load("m"))
            assert await pool.unload("new")
            assert pool.status("pinned").state is ModelState.UNLOADED  # it depends on it now
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_of_unknown_size_is_refused_when_what_it_depends_on_cannot_be_loaded_together() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("left", size_bytes=60))
        pool.register(fleet.spec("right", size_bytes=60))
        pool.register(fleet.spec("app", ("left", "right")))
        async with pool:
            with pytest.raises(ModelBudgetError):
                await within(1000, pool.load("app"))
            await use(pool, "left")
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("is_missing", [True, False])
def test_who_waits_is_told_when_a_replacement_depends_on_what_cannot_be_had(is_missing: bool) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"broken"}), make_pool(clock, retry=RetryPolicy(attempts=1))
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        pool.register(fleet.spec("broken"))
        async with pool:
            with pytest.raises(ModelLoadError):
                await pool.load("broken")
            loading = begin(pool.load("app"))
            await asyncio.sleep(0.5)
            pool.register(fleet.spec("app", ("nobody",) if is_missing else ("broken",)), replace=True)
            with pytest.raises(ModelLoadError if is_missing else ModelQuarantinedError):
                await within(100, loading)
            assert pool.get_stats()["queued"] == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_base_loaded_anew_leaves_alone_who_was_built_on_it_and_cannot_be_loaded_now() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await pool.load("app")
            pool.register(fleet.spec("app", ("nobody",)), replace=True)
            await pool.reload("base")
            await asyncio.sleep(10)
            assert pool.status("app").state is ModelState.READY
            assert "waits" not in pool.status("app").reason
            await use(pool, "app")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_bytes_that_wait_for_a_dependents_lease_do_not_count_as_leaving() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=40))
        pool.register(fleet.spec("app", ("base",), size_bytes=10))
        pool.register(fleet.spec("idle", size_bytes=40))
        pool.register(fleet.spec("m", size_bytes=40))
        async with pool:
            await pool.load("idle")
            holder = begin(use(pool, "app", 1000))
            await asyncio.sleep(3)
            unloading = begin(pool.unload("base"))  # waits for the lease of what was built on it
            await asyncio.sleep(1)
            await within(10, pool.load("m"))  # so another one leaves for this
            assert pool.status("idle").state is ModelState.UNLOADED
            holder.cancel()
            assert await unloading
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_unload_takes_along_what_was_built_on_an_old_copy_of_what_was_built_on_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("middle", ("base",)))
        pool.register(fleet.spec("right", ("middle",)))
        async with pool:
            holder = begin(use(pool, "right", 1000))
            await asyncio.sleep(4)
            fleet.failing.add("right")
            await pool.reload("middle")
            await asyncio.sleep(10)
            assert pool.status("right").leases == 1  # it serves on, built on the old copy
            unloading = begin(pool.unload("base"))
            await asyncio.sleep(1)
            assert pool.status("right").state is ModelState.DRAINING
            holder.cancel()
            assert await within(100, unloading)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_two_requests_do_not_wait_for_each_other_to_let_go_of_what_each_depends_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("first", ("middle",), size_bytes=5))
        pool.register(fleet.spec("second", ("other",), size_bytes=35))
        pool.register(fleet.spec("middle", ("base",), size_bytes=40))
        pool.register(fleet.spec("base", size_bytes=40))
        pool.register(fleet.spec("other", size_bytes=60))
        async with pool:
            holders = [begin(use(pool, name, 10)) for name in ("base", "other")]
            await asyncio.sleep(2)
            requests = [begin(use(pool, name)) for name in ("first", "second")]
            await within(50, asyncio.gather(*holders, *requests))
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_old_copy_that_a_pinned_model_was_built_on_counts_as_staying() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=130)
        pool.register(fleet.spec("base", size_bytes=40))
        pool.register(fleet.spec("pinned", ("base",), size_bytes=25, residency="pinned"))
        async with pool:
            await pool.load("pinned")
            fleet.failing.add("pinned")
            await pool.reload("base")
            await asyncio.sleep(10)
            pool.configure(memory_limit_bytes=100)
            await asyncio.sleep(1)
            assert [pool.status(name).is_warm for name in ("base", "pinned")] == [False, True]
            with pytest.raises(ModelBudgetError, match="beside 65 B of pinned models"):
                await within(100, pool.load("base"))
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_room_is_made_of_what_leaves_along_with_others() -> None:
    """The base's old copy leaves with what was built on it, whose renewal waits behind the request."""

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=35))
        pool.register(fleet.spec("app", ("base",), size_bytes=25))
        pool.register(fleet.spec("large", size_bytes=95))
        async with pool:
            await pool.load("app")
            reloading = begin(pool.reload("base"))
            await asyncio.sleep(0.5)
            await within(100, asyncio.gather(reloading, pool.load("large")))
            assert pool.status("large").state is ModelState.READY
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_unload_takes_along_what_was_built_on_any_copy() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("other"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await pool.load("app")
            fleet.failing.add("app")
            pool.register(fleet.spec("app", ("other",)), replace=True)
            await asyncio.sleep(10)
            assert await within(100, pool.unload("base"))
            assert pool.status("app").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


# States that did not tell the truth


def test_a_registration_ends_the_wait_for_the_next_attempt() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock)
        pool.register(fleet.spec("m"))
        async with pool:
            loading = begin(pool.load("m"))
            await asyncio.sleep(1.5)
            assert pool.status("m").state is ModelState.BACKOFF
            fleet.failing.clear()
            pool.register(fleet.spec("m"), replace=True)
            assert pool.status("m").retry_in_s is None
            assert not pool._running()._setbacks._timers
            await within(1.1, loading)
            assert pool.get_stats()["retries"] == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_whose_old_copy_left_while_the_new_one_loads_is_loading() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=5.0), make_pool(clock, is_lazy_loading_enabled=False)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m")
            reloading = begin(pool.reload("m"))
            await asyncio.sleep(1)
            await pool._running()._residents.start_drain("m", "for the test")
            assert pool.status("m").state is ModelState.LOADING
            lease = begin(use(pool, "m"))
            await within(100, asyncio.gather(reloading, lease))
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_copy_that_fails_while_the_old_one_still_drains_is_tried_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=2.0), make_pool(clock)
        pool.register(fleet.spec("m"))
        async with pool:
            holder = begin(use(pool, "m", 10))
            await asyncio.sleep(3)
            fleet.failing.add("m")
            reloading = begin(pool.reload("m"))
            await asyncio.sleep(1)
            pool._running()._residents.start_drain("m", "for the test")
            await asyncio.sleep(1.5)
            assert pool.status("m").state is ModelState.BACKOFF
            fleet.failing.clear()
            await within(100, reloading)
            await holder
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_too_large_is_refused_and_never_quarantined() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=60))
        async with pool:
            loading = begin(pool.load("m"))
            await asyncio.sleep(1.5)
            pool.configure(retry=RetryPolicy(attempts=1), memory_limit_bytes=50)
            for _ in range(2):
                with pytest.raises(ModelBudgetError):
                    await within(100, pool.load("m"))
            with pytest.raises(ModelBudgetError):
                await loading
            assert pool.status("m").state is ModelState.FAILED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_load_is_over_for_all_at_the_same_moment() -> None:
    """It is told to have outgrown its room when it has been put away, not before."""

    async def scenario(clock: VirtualClock) -> None:
        fleet = Fleet(unload_seconds=3.0)
        rss = [0]
        pool = make_pool(clock, memory_limit_bytes=100, memory_probe=lambda: rss[0])
        spec = fleet.spec("m", size_bytes=10)

        async def load() -> FakeModel:
            assert callable(spec.load)
            rss[0] += 200
            model = await spec.load()
            assert isinstance(model, FakeModel)
            return model

        pool.register(ModelSpec("m", load, size_bytes=10, unload=spec.unload))
        async with pool:
            with pytest.raises(ModelBudgetError):
                await within(100, pool.load("m"))
            assert clock.monotonic() == pytest.approx(4.0)
            assert pool.get_stats()["used_bytes"] == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_nothing_is_evicted_for_a_load_that_is_given_up_in_the_same_moment() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, memory_limit_bytes=100)
        pool.register(fleet.spec("held", size_bytes=60, priority=9))
        pool.register(fleet.spec("idle", size_bytes=30, priority=1))
        pool.register(fleet.spec("large", size_bytes=60, priority=9))
        pool.register(fleet.spec("small", size_bytes=20, priority=5))
        pool.register(fleet.spec("app", ("large", "small"), size_bytes=5, priority=5))
        async with pool:
            holder = begin(use(pool, "held", 1000))
            await pool.load("idle")
            await asyncio.sleep(2)
            with pytest.raises(ModelLoadError):
                await within(100, pool.load("app", is_background=True))
            assert pool.status("idle").state is ModelState.READY
            assert pool.status("small").state is ModelState.REGISTERED
            holder.cancel()
        check_ended(pool, fleet)

    run_virtual(scenario)


# Idle time


def test_a_base_does_not_go_for_being_idle_while_what_needs_it_waits_for_its_turn() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=10.0), make_pool(clock, max_demand_loads=1)
        pool.register(fleet.spec("base", idle_ttl_s=2.0))
        pool.register(fleet.spec("busy", priority=9))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await pool.load("base")
            busy = begin(pool.load("busy"))
            await asyncio.sleep(0)
            await within(25, pool.load("app"))
            await busy
            assert fleet.loads() == ["base", "busy", "app"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_another_idle_time_counts_at_once_also_for_a_copy_that_serves_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m")
            fleet.failing.add("m")
            pool.register(fleet.spec("m", idle_ttl_s=5.0), replace=True)
            await asyncio.sleep(10)
            assert pool.status("m").state is ModelState.UNLOADED
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_no_timer_is_left_of_a_model_that_went() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock, idle_ttl_s=3600.0)
        pool.register(fleet.spec("m"))
        async with pool:
            for _ in range(3):
                await pool.load("m")
                await pool.unload("m")
            await pool.load("m")
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
        check_ended(pool, fleet)

    run_virtual(scenario)


# Runs that end badly


def test_a_stop_that_the_end_of_its_loop_cancels_loses_no_model() -> None:
    fleet = Fleet(unload_seconds=1.0)
    pool = ModelPool(stop_grace_s=5.0)
    pool.register(fleet.spec("m"))

    async def first(_clock: VirtualClock) -> None:
        await pool.start()
        await pool.load("m")
        stopping = begin(pool.stop())
        for _ in range(2):
            await asyncio.sleep(0)  # the unload has been started, and has not taken its first step
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping

    async def second(_clock: VirtualClock) -> None:
        await pool.start()
        assert (pool.get_stats()["used_bytes"], pool.status("m").state) == (0, ModelState.UNLOADED)
        await use(pool, "m")
        await pool.stop()

    run_virtual(first)
    run_virtual(second)
    check_ended(pool, Fleet())


def test_a_start_in_another_loop_does_not_stumble_over_an_unload_that_waited_in_the_last_one() -> None:
    fleet = Fleet()
    pool = ModelPool()
    pool.register(fleet.spec("base"))
    pool.register(fleet.spec("app", ("base",)))

    async def hold() -> None:
        async with pool.lease("app"):
            await asyncio.sleep(1000)

    first = asyncio.new_event_loop()  # closed without cancelling anything, as a careless caller does
    first.run_until_complete(pool.start())
    fleet.load_seconds = 0.0
    first.run_until_complete(pool.load("app"))
    tasks = [first.create_task(hold())]
    first.run_until_complete(asyncio.sleep(0))
    tasks.append(first.create_task(pool.unload("base")))  # type: ignore[arg-type]  # a list of whatever tasks
    first.run_until_complete(asyncio.sleep(0))
    first.set_exception_handler(lambda _loop, _context: None)
    first.close()

    async def second(_clock: VirtualClock) -> None:
        await pool.start()
        assert all(model.is_unloaded for model in fleet.made)
        await use(pool, "app")
        tasks.clear()  # the old tasks are collected; nothing they knew may change what is now
        assert pool.status("app").state is ModelState.READY
        await pool.stop()

    run_virtual(second)
    check_ended(pool, fleet)


@pytest.mark.parametrize("is_load", [True, False])
def test_a_task_that_ignores_being_cancelled_does_not_meddle_with_the_next_run(is_load: bool) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet = Fleet()

        async def stubborn() -> None:
            for _ in range(2):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    continue

        async def load() -> FakeModel:
            if is_load and not fleet.made:
                fleet.made.append(FakeModel("m"))
                await stubborn()
                return fleet.made[0]
            spec = fleet.spec("m")
            assert callable(spec.load)
            model = await spec.load()
            assert isinstance(model, FakeModel)
            return model

        async def unload(model: FakeModel) -> None:
            model.is_unloaded = True
            if not is_load and model is fleet.made[0]:
                await stubborn()

        pool = make_pool(clock, memory_limit_bytes=100)
        pool.register(ModelSpec("m", load, unload=unload, size_bytes=60))
        await pool.start()
        loading = begin(pool.load("m"))
        await asyncio.sleep(2)
        await pool.stop(grace_s=1.0)
        await asyncio.gather(loading, return_exceptions=True)
        await pool.start()
        assert pool.status("m").state in {ModelState.REGISTERED, ModelState.UNLOADED}
        await within(500, pool.load("m"))  # there is room when the old one has gone at last
        assert pool.status("m").state is ModelState.READY
        await asyncio.sleep(500)
        assert pool.status("m").state is ModelState.READY
        await pool.stop()
        assert pool._meter._running == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_was_built_on_an_old_copy_leaves_with_what_that_copy_was_built_on() -> None:
    """It went on, and kept both from leaving: a request for either waited until its time-out."""

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), make_pool(clock)
        pool.register(fleet.spec("right"))
        pool.register(fleet.spec("app", ("right",)))
        pool.register(fleet.spec("odd", ("app",), residency="pinned"))
        pool.register(fleet.spec("base"))
        async with pool:
            await use(pool, "odd")
            fleet.failing.add("odd")
            pool.register(fleet.spec("app", ("right",)), replace=True)
            await asyncio.sleep(5)  # ``odd`` cannot be loaded anew and keeps the old copy of ``app``
            fleet.failing.add("right")
            pool.register(fleet.spec("right", ("base",)), replace=True)
            await asyncio.sleep(5)
            assert {status.name for status in pool.statuses() if status.is_warm} == {"right", "app", "odd", "base"}
            await within(5, pool.unload("base"))
            await asyncio.sleep(5)
            assert not [status.name for status in pool.statuses() if status.is_warm]
            assert pool.get_stats()["used_bytes"] == 0
            fleet.failing.clear()
            await within(5, use(pool, "odd"))
        check_ended(pool, fleet)

    run_virtual(scenario)
