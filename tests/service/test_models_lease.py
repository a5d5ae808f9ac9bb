from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ondol.errors import (
    AlreadyClosedError,
    ConfigurationError,
    DependencyCycleError,
    LeaseTimeoutError,
    LifecycleError,
    ModelLoadError,
    ModelNotLoadedError,
    NotStartedError,
    UnknownModelError,
)
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use


def test_two_hundred_cold_callers_share_one_load_and_half_may_leave() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            callers = [asyncio.create_task(use(pool, "m")) for _ in range(200)]
            await asyncio.sleep(0.5)
            for caller in callers[::2]:
                caller.cancel()
            results = await asyncio.gather(*callers, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert results[1::2] == [fleet.made[0]] * 100
            assert fleet.loads() == ["m"]
            assert pool.status("m").leases == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_callers_that_all_leave_cancel_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            caller = asyncio.create_task(use(pool, "m"))
            await asyncio.sleep(0.5)
            caller.cancel()
            await asyncio.wait([caller])
            await asyncio.sleep(0.6)
            status = pool.status("m")
            assert (status.state, status.leases) == (ModelState.READY, 0)
            assert status.load_seconds == pytest.approx(1.0)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_caller_cancelled_in_the_instant_of_the_handover_holds_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            caller = asyncio.create_task(use(pool, "m"))

            def leave(event: str, _name: str) -> None:
                if event == "ready":
                    caller.cancel()

            pool.add_listener(leave)
            await asyncio.wait([caller])
            assert caller.cancelled()
            assert pool.status("m").leases == 0
            assert await pool.unload("m")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_failure_reaches_every_waiter_and_the_next_call_tries_anew() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), ModelPool(clock=clock, retry=None)
        pool.register(fleet.spec("m"))
        async with pool:
            results = await asyncio.gather(*(use(pool, "m") for _ in range(5)), return_exceptions=True)
            assert all(isinstance(result, ModelLoadError) for result in results)
            assert len({id(result) for result in results}) == 5
            assert isinstance(results[0], ModelLoadError)
            assert isinstance(results[0].__cause__, OSError)
            status = pool.status("m")
            assert (status.state, status.failure_count, status.load_count) == (ModelState.FAILED, 1, 0)
            assert status.last_error == "OSError: m is broken"
            fleet.failing.clear()
            await use(pool, "m")
            assert (pool.status("m").state, pool.status("m").last_error) == (ModelState.READY, None)
            assert fleet.loads() == ["m", "m"]
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("no room"), asyncio.CancelledError(), StopIteration(1)])
@pytest.mark.parametrize("in_thread", [True, False])
def test_whatever_a_loader_raises_becomes_a_load_error(error: BaseException, in_thread: bool) -> None:
    def load() -> object:
        raise error

    async def load_async() -> object:
        if isinstance(error, StopIteration):
            raise ValueError  # a coroutine cannot raise it
        raise error

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock)
        pool.register(ModelSpec("m", load=load if in_thread else load_async))
        pool.register(ModelSpec("other", load=lambda: "fine"))
        async with pool:
            with pytest.raises(ModelLoadError):
                async with pool.lease("m"):
                    pass
            async with pool.lease("other") as model:
                assert model == "fine"

    run_virtual(scenario)


def test_a_lease_times_out_with_the_reason_and_the_load_goes_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=10.0), ModelPool(clock=clock, lease_timeout_s=2.0)
        pool.register(fleet.spec("m"))
        async with pool:
            with pytest.raises(LeaseTimeoutError, match=r"within 2.00 s: it is loading"):
                await use(pool, "m")
            assert clock.monotonic() == pytest.approx(2.0)
            await asyncio.sleep(9.0)
            assert pool.status("m").state is ModelState.READY
            assert pool.get_stats()["lease_timeouts"] == 1
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_plain_loader_runs_in_a_thread_with_its_warm_up_and_unload() -> None:
    threads: dict[str, bool] = {}

    def note(step: str) -> str:
        threads[step] = threading.current_thread().daemon and threading.current_thread() is not threading.main_thread()
        return step

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock)
        spec = ModelSpec(
            "m", load=lambda: note("load"), warm_up=lambda _model: note("warm up"), unload=lambda _model: note("unload")
        )
        pool.register(spec)
        async with pool, pool.lease("m") as model:
            assert model == "load"
            assert pool.status("m").is_warm
        assert threads == {"load": True, "warm up": True, "unload": True}

    run_virtual(scenario)


def test_a_plain_function_may_return_an_awaitable() -> None:
    async def make() -> str:
        await asyncio.sleep(1)
        return "made"

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock)
        pool.register(ModelSpec("m", load=lambda: make()))  # noqa: PLW0108  # a function that is not a coroutine function
        async with pool, pool.lease("m") as model:
            assert model == "made"

    run_virtual(scenario)


def test_a_failed_warm_up_puts_the_model_away() -> None:
    gone: list[object] = []

    async def refuse(_model: object) -> None:
        message = "cold"
        raise ValueError(message)

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock, retry=None)
        pool.register(ModelSpec("m", load=lambda: "model", warm_up=refuse, unload=gone.append))
        async with pool:
            with pytest.raises(ModelLoadError, match="ValueError: cold"):
                await pool.load("m")
            assert gone == ["model"]
            assert pool.status("m").state is ModelState.FAILED

    run_virtual(scenario)


def test_lazy_loading_off_refuses_but_what_is_coming_is_waited_for() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, is_lazy_loading_enabled=False)
        for name in ("cold", "coming", "expected"):
            pool.register(fleet.spec(name))
        async with pool:
            with pytest.raises(ModelNotLoadedError, match="LAZY_LOADING_ENABLED"):
                await use(pool, "cold")
            load = asyncio.create_task(pool.load("coming", is_background=True))
            await asyncio.sleep(0.1)
            await use(pool, "coming")
            await load
            pool.set_expected(["expected"])
            await use(pool, "expected")
            await pool.load("cold")
            await use(pool, "cold")
            await pool.unload("cold")
            with pytest.raises(ModelNotLoadedError):
                await use(pool, "cold")
            pool.configure(is_lazy_loading_enabled=True)
            await use(pool, "cold")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_unknown_models_and_misuse_have_their_errors() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        with pytest.raises(ConfigurationError, match="registered already"):
            pool.register(fleet.spec("m"))
        with pytest.raises(NotStartedError):
            pool.lease("m")
        async with pool:
            with pytest.raises(UnknownModelError, match="known models: m"):
                await use(pool, "nobody")
            with pytest.raises(UnknownModelError):
                await pool.load("nobody")
            with pytest.raises(UnknownModelError):
                await pool.unload("nobody")
            lease = pool.lease("m")
            async with lease:
                with pytest.raises(LifecycleError, match="in use already"):
                    await lease.__aenter__()
            assert pool.status("m").leases == 0
        with pytest.raises(NotStartedError):
            await pool.load("m")
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize(
    "bounds",
    [
        {"memory_limit_bytes": 0},
        {"max_background_loads": 0},
        {"max_demand_loads": -1},
        {"lease_timeout_s": 0.0},
        {"lease_timeout_s": float("nan")},
    ],
)
def test_bounds_are_checked_when_made_and_when_configured(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="greater than 0"):
        ModelPool(**bounds)
    with pytest.raises(ConfigurationError, match="greater than 0"):
        ModelPool().configure(**bounds)


def test_a_circle_of_dependencies_is_refused_with_its_path_and_changes_nothing() -> None:
    fleet, pool = Fleet(), ModelPool()
    pool.register(fleet.spec("a", ("b",)))
    pool.register(fleet.spec("b", ("c",)))
    with pytest.raises(DependencyCycleError, match="c -> a -> b -> c"):
        pool.register(fleet.spec("c", ("a",)))
    assert pool.names() == ["a", "b"]
    assert pool.status("a").waits_on == ("c",)
    pool.register(fleet.spec("c"))
    assert pool.status("a").state is ModelState.REGISTERED


def test_models_are_registered_from_any_thread_while_it_runs() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            assert pool.status("app").state is ModelState.BLOCKED
            await asyncio.to_thread(pool.register, fleet.spec("base"))
            await use(pool, "app")
            assert fleet.loads() == ["base", "app"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_failing_listener_disturbs_nobody_and_is_counted() -> None:
    events: list[tuple[str, str]] = []

    def fail(event: str, name: str) -> None:
        events.append((event, name))
        raise RuntimeError

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.add_listener(fail)
        pool.register(fleet.spec("m"))
        async with pool:
            await use(pool, "m")
        told = ["registered", "asked", "loading", "ready", "leaving", "unloaded"]
        assert events == [(event, "m") for event in told]
        assert pool.get_stats()["listener_failures"] == 6
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_waiting_callers_learn_that_the_pool_stops() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=100.0), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        await pool.start()
        callers = [asyncio.create_task(use(pool, "m")) for _ in range(3)]
        await asyncio.sleep(1)
        stopping = asyncio.create_task(pool.stop())
        await asyncio.sleep(0)
        with pytest.raises(AlreadyClosedError):
            pool.lease("m")
        results = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(result, AlreadyClosedError) for result in results)
        await stopping
        assert clock.monotonic() == pytest.approx(1.0)
        check_ended(pool, fleet)

    run_virtual(scenario)
