"""Loads that fail are tried again, then quarantined; waits are bounded; nothing stays behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ondol.errors import (
    LeaseTimeoutError,
    MissingExtraError,
    ModelLoadError,
    ModelQuarantinedError,
)
from ondol.models import ModelPool, ModelSpec, ModelState, RetryPolicy
from ondol.testing import VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, check_ended, use

POLICY = RetryPolicy(attempts=3, first_s=1.0, factor=2.0, jitter_ratio=0.5)


def make_pool(clock: VirtualClock, **options: Any) -> ModelPool:
    given: dict[str, Any] = {"retry": POLICY, "random": lambda: 1.0} | options
    return ModelPool(clock=clock, **given)


def test_who_waits_does_not_notice_a_failure_that_passes() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock)
        pool.register(fleet.spec("m"))
        async with pool:
            callers = [asyncio.create_task(use(pool, "m")) for _ in range(3)]
            await asyncio.sleep(1.5)
            status = pool.status("m")
            assert (status.state, status.failures_in_a_row) == (ModelState.BACKOFF, 1)
            assert status.retry_in_s == pytest.approx(0.5)
            assert "attempt 2 of 3 follows" in status.reason
            late = asyncio.create_task(use(pool, "m"))
            fleet.failing.clear()
            models = await asyncio.gather(*callers, late)
            assert models == [fleet.made[0]] * 4
            assert clock.monotonic() == pytest.approx(3.0)  # load 1, backoff 1, load 1
            assert (pool.status("m").failures_in_a_row, pool.get_stats()["retries"]) == (0, 1)
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_after_three_in_a_row_it_is_quarantined_until_released() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock)
        pool.register(fleet.spec("m"))
        pool.register(fleet.spec("app", ("m",)))
        async with pool:
            with pytest.raises(ModelLoadError, match="m is broken") as caught:
                await use(pool, "m")
            assert isinstance(caught.value.__cause__, OSError)
            assert clock.monotonic() == pytest.approx(6.0)  # three loads, backoffs of 1 and 2
            assert pool.status("m").state is ModelState.QUARANTINED
            for name in ("m", "app"):
                with pytest.raises(ModelQuarantinedError, match=r"3 failure\(s\) in a row.*pool.release\('m'\)"):
                    await use(pool, name)
                with pytest.raises(ModelQuarantinedError):
                    await pool.load(name, is_background=True)
            await asyncio.sleep(1000)
            assert len(fleet.loads()) == 3
            fleet.failing.clear()
            assert pool.release("m")
            assert not pool.release("m")
            assert pool.status("m").state is ModelState.REGISTERED
            await use(pool, "app")
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("way_out", ["reload", "register", "restart"])
def test_other_ways_out_of_quarantine(way_out: str) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock, retry=RetryPolicy(attempts=1))
        pool.register(fleet.spec("m"))
        await pool.start()
        with pytest.raises(ModelLoadError):
            await use(pool, "m")
        assert pool.status("m").state is ModelState.QUARANTINED
        fleet.failing.clear()
        if way_out == "reload":
            await pool.reload("m")
        elif way_out == "register":
            pool.register(fleet.spec("m"), replace=True)
        else:
            await pool.stop()
            await pool.start()
        await use(pool, "m")
        await pool.stop()
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_the_lease_timeout_bounds_the_wait_and_the_retries_go_on() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m"}), make_pool(clock, lease_timeout_s=1.5)
        pool.register(fleet.spec("m"))
        async with pool:
            with pytest.raises(LeaseTimeoutError, match=r"backoff \(its load failed: OSError: m is broken"):
                await use(pool, "m")
            fleet.failing.clear()
            await asyncio.sleep(2)
            assert pool.status("m").state is ModelState.READY
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_no_retry_can_heal_fails_at_once_and_the_next_request_tries() -> None:
    calls = []

    def load() -> None:
        calls.append(1)
        raise MissingExtraError("onnxruntime", "onnx", "loading ONNX models")

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock)
        pool.register(ModelSpec("m", load=load))
        async with pool:
            for number in (1, 2):
                with pytest.raises(ModelLoadError, match=r"ondol\[onnx\]"):
                    await pool.load("m")
                assert (len(calls), pool.status("m").state) == (number, ModelState.FAILED)
            with pytest.raises(ModelLoadError):
                await pool.load("m")
            with pytest.raises(ModelQuarantinedError):
                await pool.load("m")
            assert len(calls) == 3

    run_virtual(scenario)


def test_a_dependent_waits_through_the_backoff_of_its_dependency() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"base"}), make_pool(clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            caller = asyncio.create_task(use(pool, "app"))
            await asyncio.sleep(1.5)
            assert (pool.status("app").state, pool.status("app").waits_on) == (ModelState.QUEUED, ("base",))
            fleet.failing.clear()
            await caller
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_background_load_in_backoff_can_be_taken_back_and_a_stop_ends_all() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(failing={"m", "n"}), make_pool(clock, max_background_loads=2)
        pool.register(fleet.spec("m"))
        pool.register(fleet.spec("n"))
        async with pool:
            waits = [asyncio.create_task(pool.load(name, is_background=True)) for name in ("m", "n")]
            await asyncio.sleep(1.5)
            assert not await pool.unload("m")
            assert pool.status("m").state is ModelState.REGISTERED
            assert pool.status("n").state is ModelState.BACKOFF
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["ModelNotLoadedError", "AlreadyClosedError"]
        assert fleet.loads() == ["m", "n"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_coroutine_that_hangs_is_cancelled_after_its_time() -> None:
    async def load() -> None:
        await asyncio.Event().wait()

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock, load_timeout_s=50.0, retry=None)
        pool.register(ModelSpec("own", load=load, load_timeout_s=5.0))
        pool.register(ModelSpec("pools", load=load))
        async with pool:
            for name, seconds in (("own", "5.00 s"), ("pools", "50.00 s")):
                with pytest.raises(ModelLoadError, match=f"not loaded within {seconds}"):
                    await pool.load(name)
            assert clock.monotonic() == pytest.approx(55.0)
            assert pool.get_stats()["load_timeouts"] == 2
            assert pool.get_stats()["used_bytes"] == 0

    run_virtual(scenario)


def test_a_thread_that_hangs_is_left_behind_and_its_late_model_put_away() -> None:
    may_return = threading.Event()
    put_away = threading.Event()

    def load() -> str:
        may_return.wait()
        return "late"

    def unload(model: str) -> None:
        assert model == "late"
        put_away.set()

    async def scenario() -> None:
        pool = ModelPool(retry=None)
        pool.register(ModelSpec("m", load=load, unload=unload, load_timeout_s=0.02))
        pool.register(ModelSpec("other", load=lambda: "fine"))
        async with pool:
            with pytest.raises(ModelLoadError, match="not loaded within"):
                await pool.load("m")
            async with pool.lease("other") as model:
                assert model == "fine"
            may_return.set()
            assert await asyncio.to_thread(put_away.wait, 30)

    asyncio.run(scenario())


def test_no_second_thread_is_started_while_the_one_that_hangs_still_runs_and_its_bytes_count() -> None:
    may_return = threading.Event()
    started: list[str] = []

    def load() -> str:
        started.append("started")
        may_return.wait()
        return "late"

    async def scenario() -> None:
        pool = ModelPool(memory_limit_bytes=100, retry=RetryPolicy(attempts=3, first_s=0.01))
        pool.register(ModelSpec("m", load=load, size_bytes=60, load_timeout_s=0.02))
        async with pool:
            with pytest.raises(ModelLoadError, match="the thread of its last load, which was given up, still runs"):
                await pool.load("m")
            status = pool.status("m")
            assert (status.state, status.failures_in_a_row) == (ModelState.QUARANTINED, 3)
            assert (started, pool.get_stats()["used_bytes"]) == (["started"], 60)
            may_return.set()
            leftover = pool._registry.entry("m").leftover
            assert leftover is not None
            await leftover
            assert pool.get_stats()["used_bytes"] == 0
            pool.release("m")
            await pool.load("m")
            assert (len(started), pool.get_stats()["used_bytes"]) == (2, 60)

    asyncio.run(scenario())


def test_memory_errors_are_tried_again_too() -> None:
    calls = []

    def load() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return "model"

    async def scenario(clock: VirtualClock) -> None:
        pool = make_pool(clock)
        pool.register(ModelSpec("m", load=load))
        async with pool, pool.lease("m") as model:
            assert (model, len(calls)) == ("model", 2)

    run_virtual(scenario)


@pytest.mark.parametrize(("seconds", "then"), [(125.0, ["old", "new"]), (115.0, ["new", "old"])])
def test_what_has_waited_for_minutes_goes_before_what_is_more_important_but_came_later(
    seconds: float, then: list[str]
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(load_seconds=seconds), make_pool(clock, max_background_loads=1)
        pool.register(fleet.spec("busy"))
        pool.register(fleet.spec("old", priority=1))
        pool.register(fleet.spec("new", priority=3))
        async with pool:
            loads = [asyncio.create_task(pool.load(name, is_background=True)) for name in ("busy", "old")]
            await asyncio.sleep(seconds - 1)
            loads.append(asyncio.create_task(pool.load("new", is_background=True)))
            await asyncio.gather(*loads)
            assert fleet.loads() == ["busy", *then]
        check_ended(pool, fleet)

    run_virtual(scenario)
