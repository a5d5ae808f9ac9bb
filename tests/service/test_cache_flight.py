from __future__ import annotations

import asyncio
import gc
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache import Cache
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 20
"""Longest wait of a test for something that happens at once; reached only when it does not happen at all."""


def test_two_hundred_waiters_share_one_computation() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        calls: list[str] = []

        async def compute() -> str:
            calls.append("k")
            await asyncio.sleep(5)
            return "K"

        results = await asyncio.gather(*(cache.get_or_compute("slow", "k", compute=compute) for _ in range(200)))
        assert results == ["K"] * 200
        assert calls == ["k"]
        stats = cache.get_stats()
        assert (stats["computations"], stats["shared_computations"], stats["computing"]) == (1, 199, 0)
        assert stats["compute_seconds"] == pytest.approx(5)
        assert await cache.get("slow", "k") == "K"
        assert cache.get_stats()["saved_seconds"] == pytest.approx(200 * 5, rel=1e-6)

    run_virtual(scenario)


def test_an_error_reaches_every_waiter_and_is_not_kept() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            await asyncio.sleep(1)
            if len(calls) == 1:
                raise OSError("down")
            return "up"

        waiting = (cache.get_or_compute("n", compute=compute) for _ in range(50))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, OSError) for result in results)
        assert len(calls) == 1
        assert await cache.get_or_compute("n", compute=compute) == "up"
        stats = cache.get_stats()
        assert (stats["failed_computations"], stats["computations"], stats["computing"]) == (1, 2, 0)

    run_virtual(scenario)


@pytest.mark.parametrize("leaving", [0, 1, 2])
def test_cancelling_one_waiter_cancels_nobody_else(leaving: int) -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            await asyncio.sleep(10)
            return "done"

        tasks = [asyncio.create_task(cache.get_or_compute("n", compute=compute)) for _ in range(3)]
        await asyncio.sleep(5)
        tasks[leaving].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(leaving), asyncio.CancelledError)
        assert results == ["done", "done"]
        assert calls == [1]
        assert clock.monotonic() == pytest.approx(10)

    run_virtual(scenario)


def test_the_last_waiter_to_leave_cancels_the_computation() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        events: list[str] = []

        async def compute() -> str:
            events.append("begun")
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                events.append("cancelled")
                raise
            return "never"

        async def compute_again() -> str:
            events.append("again")
            return "value"

        tasks = [asyncio.create_task(cache.get_or_compute("n", compute=compute)) for _ in range(3)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Who comes now does not join what is being cancelled.
        assert await cache.get_or_compute("n", compute=compute_again) == "value"
        await asyncio.sleep(1)
        assert events == ["begun", "cancelled", "again"]
        assert cache.get_stats()["computing"] == 0

    run_virtual(scenario)


def test_a_timeout_of_one_caller_leaves_the_computation_to_the_other() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)

        async def compute() -> str:
            await asyncio.sleep(10)
            return "done"

        patient = asyncio.create_task(cache.get_or_compute("n", compute=compute))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.get_or_compute("n", compute=compute), 3)
        assert await patient == "done"

    run_virtual(scenario)


def test_a_computation_that_cancels_itself_cancels_its_caller_and_the_next_one_tries() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            await asyncio.sleep(1)
            if len(calls) == 1:
                raise asyncio.CancelledError
            return "done"

        first, second = await asyncio.gather(
            *(cache.get_or_compute("n", compute=compute) for _ in range(2)), return_exceptions=True
        )
        assert isinstance(first, asyncio.CancelledError)
        assert second == "done"
        assert len(calls) == 2

    run_virtual(scenario)


def invalidations() -> dict[str, Callable[[Cache], Any]]:
    return {
        "delete": lambda cache: cache.delete("n", 1),
        "pattern": lambda cache: cache.invalidate_pattern("n:*"),
        "clear": lambda cache: cache.clear(),
        "set": lambda cache: cache.set("n", "newer", 1),
        "off and on": lambda cache: (cache.set_enabled(False), cache.set_enabled(True)),
    }


@pytest.mark.parametrize("how", list(invalidations()))
def test_what_is_invalidated_while_it_is_computed_is_not_kept(how: str) -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)

        async def compute() -> str:
            await asyncio.sleep(10)
            return "old"

        waiter = asyncio.create_task(cache.get_or_compute("n", 1, compute=compute))
        await asyncio.sleep(5)
        done = invalidations()[how](cache)
        if asyncio.iscoroutine(done):
            await done
        assert await waiter == "old"
        assert await cache.get("n", 1) == ("newer" if how == "set" else None)

    run_virtual(scenario)


def test_a_computation_may_ask_for_other_keys_and_even_its_own() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        depth: list[int] = []

        @cache.cached("sum")
        async def total(number: int) -> int:
            return number + (await total(number - 1) if number else 0)

        async def own() -> str:
            depth.append(1)
            await asyncio.sleep(1)
            return "inner" if len(depth) == 2 else "outer+" + await cache.get_or_compute("own", compute=own)

        assert await total(20) == 210
        assert await cache.get_or_compute("own", compute=own) == "outer+inner"

    run_virtual(scenario)


def test_threads_share_one_computation() -> None:
    cache = Cache()
    is_computing, may_end = threading.Event(), threading.Event()
    calls: list[int] = []

    @cache.cached("f")
    def f(number: int) -> int:
        calls.append(number)
        is_computing.set()
        assert may_end.wait(WAIT_S)
        return number * 2

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(f, 21) for _ in range(8)]
        assert is_computing.wait(WAIT_S)
        _until(lambda: cache.get_stats()["misses"] == 8)
        may_end.set()
        assert [result.result(WAIT_S) for result in results] == [42] * 8
    assert calls == [21]
    stats = cache.get_stats()
    assert stats["computations"] == 1
    assert stats["shared_computations"] == 7


def test_an_error_in_a_thread_reaches_every_thread() -> None:
    cache = Cache()
    may_end = threading.Event()

    @cache.cached("f")
    def f() -> int:
        assert may_end.wait(WAIT_S)
        raise OSError("down")

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(f) for _ in range(4)]
        _until(lambda: cache.get_stats()["misses"] == 4)
        may_end.set()
        assert all(isinstance(result.exception(WAIT_S), OSError) for result in results)
    assert cache.get_nowait("f", default="absent") == "absent"


def test_coroutines_wait_for_a_thread_and_threads_for_a_coroutine() -> None:
    cache = Cache()
    calls: list[str] = []

    async def scenario() -> None:
        may_end = threading.Event()

        def in_thread() -> str:
            calls.append("thread")
            assert may_end.wait(WAIT_S)
            return "from thread"

        leader = asyncio.create_task(asyncio.to_thread(cache.cached("a")(in_thread)))
        await _reached(lambda: calls == ["thread"])
        follower = asyncio.create_task(cache.get_or_compute("a", compute=lambda: "from coroutine"))
        await asyncio.sleep(0)
        may_end.set()
        assert list(await asyncio.gather(leader, follower)) == ["from thread", "from thread"]

        proceed = asyncio.Event()

        async def in_loop() -> str:
            calls.append("loop")
            await proceed.wait()
            return "from coroutine"

        first = asyncio.create_task(cache.get_or_compute("b", compute=in_loop))
        await asyncio.sleep(0)
        second = asyncio.create_task(asyncio.to_thread(cache.cached("b")(lambda: "from thread")))
        await _reached(lambda: cache.get_stats()["names"]["b"]["misses"] == 2)
        proceed.set()
        assert list(await asyncio.gather(first, second)) == ["from coroutine", "from coroutine"]

    asyncio.run(scenario())
    assert calls == ["thread", "loop"]


def test_a_plain_function_in_a_coroutine_does_not_wait_for_its_own_loop() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)

        async def slow() -> str:
            await asyncio.sleep(10)
            return "shared"

        waiter = asyncio.create_task(cache.get_or_compute("n", compute=slow))
        await asyncio.sleep(1)
        assert cache.cached("n")(lambda: "at once")() == "at once"
        assert await waiter == "shared"
        assert await cache.get("n") == "shared"

    run_virtual(scenario)


def test_two_event_loops_share_one_computation() -> None:
    cache = Cache()
    calls: list[str] = []
    is_computing, may_end = threading.Event(), threading.Event()

    async def compute() -> str:
        calls.append(threading.current_thread().name)
        is_computing.set()
        await asyncio.to_thread(may_end.wait, WAIT_S)
        return "value"

    def in_own_loop() -> str:
        async def ask() -> str:
            return str(await cache.get_or_compute("n", compute=compute))

        return asyncio.run(ask())

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(in_own_loop)
        assert is_computing.wait(WAIT_S)
        others = [pool.submit(in_own_loop) for _ in range(2)]
        _until(lambda: cache.get_stats()["misses"] == 3)
        may_end.set()
        assert {future.result(WAIT_S) for future in [first, *others]} == {"value"}
    assert len(calls) == 1


def test_when_a_loop_shuts_down_others_compute_for_themselves() -> None:
    cache = Cache()
    is_computing = threading.Event()
    may_leave = threading.Event()

    async def never() -> str:
        is_computing.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    async def leave_in_the_middle() -> None:
        task = asyncio.create_task(cache.get_or_compute("n", compute=never))
        await asyncio.to_thread(may_leave.wait, WAIT_S)
        del task  # asyncio.run cancels it, and the computation

    def in_thread() -> str:
        return cache.cached("n")(lambda: "retried")()

    async def in_loop() -> Any:
        return await cache.get_or_compute("n", compute=lambda: "retried")

    with ThreadPoolExecutor(3) as pool:
        leaver = pool.submit(asyncio.run, leave_in_the_middle())
        assert is_computing.wait(WAIT_S)
        waiting: list[Future[Any]] = [pool.submit(in_thread), pool.submit(asyncio.run, in_loop())]
        _until(lambda: cache.get_stats()["misses"] == 3)
        may_leave.set()
        leaver.result(WAIT_S)
        assert [future.result(WAIT_S) for future in waiting] == ["retried", "retried"]
    assert cache.get_stats()["computing"] == 0


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_loop_that_stopped_or_closed_in_the_middle_blocks_nobody(
    is_closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache()
    loop = asyncio.new_event_loop()

    async def never() -> str:
        await asyncio.get_running_loop().create_future()
        return "never"

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.create_task(cache.get_or_compute("n", compute=never))
        await asyncio.sleep(0.001)
        return task

    abandoned = loop.run_until_complete(begin())
    if is_closed:
        loop.close()

    async def ask() -> Any:
        return await cache.get_or_compute("n", compute=lambda: "retried")

    try:
        assert asyncio.run(ask()) == "retried"
        assert cache.get_nowait("n") == "retried"
    finally:
        if not is_closed:
            abandoned.cancel()
            loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    assert cache.get_nowait("n") == "retried"
    if is_closed:
        # asyncio reports pending tasks of a closed loop when they are collected: here and now, not in another test.
        with caplog.at_level(logging.CRITICAL, "asyncio"):
            del abandoned
            gc.collect()


def test_a_waiter_notices_when_the_computing_loop_stops_without_a_word() -> None:
    cache = Cache()
    loop = asyncio.new_event_loop()
    is_computing = threading.Event()

    async def never() -> str:
        is_computing.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    tasks: list[asyncio.Task[Any]] = []

    def run_loop() -> None:
        tasks.append(loop.create_task(cache.get_or_compute("n", compute=never)))
        loop.run_forever()

    async def ask() -> Any:
        return await cache.get_or_compute("n", compute=lambda: "retried")

    with ThreadPoolExecutor(2) as pool:
        runner = pool.submit(run_loop)
        assert is_computing.wait(WAIT_S)
        waiter = pool.submit(asyncio.run, ask())
        _until(lambda: cache.get_stats()["misses"] == 2)
        loop.call_soon_threadsafe(loop.stop)
        runner.result(WAIT_S)
        assert waiter.result(WAIT_S) == "retried"
    tasks[0].cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_computation_cancelled_before_its_first_step_is_tried_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        cache = Cache(clock=clock)
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            return "done"

        first = asyncio.create_task(cache.get_or_compute("n", compute=compute))
        second = asyncio.create_task(cache.get_or_compute("n", compute=compute))
        asyncio.get_running_loop().call_soon(
            lambda: [task.cancel() for task in asyncio.all_tasks() if "_fly" in repr(task.get_coro())]
        )
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] == "done"
        assert calls == [1]

    run_virtual(scenario)


def _until(condition: Callable[[], bool]) -> None:
    """Wait in a thread until another thread has got somewhere."""
    pause = threading.Event()
    for _ in range(WAIT_S * 200):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")


async def _reached(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(_until, condition)
