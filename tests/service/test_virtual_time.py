"""The virtual-time loop: hours pass at once, in order, and stand still while a thread works."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ondol.testing import FakeClock, VirtualClock, run_virtual


def test_sleeping_a_day_takes_no_time_and_keeps_the_order() -> None:
    async def scenario(clock: VirtualClock) -> list[str]:
        order: list[str] = []

        async def after(delay_s: float, name: str) -> None:
            await asyncio.sleep(delay_s)
            order.append(name)

        await asyncio.gather(after(86_400, "day"), after(1, "second"), after(3600, "hour"))
        assert 86_400 <= clock.monotonic() < 86_401
        assert clock.wall() - clock.monotonic() == 1_750_000_000
        return order

    assert run_virtual(scenario) == ["second", "hour", "day"]


def test_time_stands_still_while_a_thread_works() -> None:
    async def scenario(clock: VirtualClock) -> None:
        gate = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(gate.wait, 10))
        timer = asyncio.ensure_future(asyncio.sleep(5))
        for _ in range(50):
            await asyncio.sleep(0)
        assert clock.monotonic() == 0
        assert not timer.done()
        gate.set()
        assert await work
        await timer
        assert clock.monotonic() >= 5

    run_virtual(scenario)


def test_a_task_left_behind_fails_the_scenario() -> None:
    async def forgotten() -> None:
        await asyncio.sleep(10)

    keep: list[asyncio.Task[None]] = []

    async def scenario(_clock: VirtualClock) -> None:
        keep.append(asyncio.create_task(forgotten()))

    with pytest.raises(AssertionError, match="forgotten"):
        run_virtual(scenario)


def test_the_fake_clock_never_goes_back() -> None:
    clock = FakeClock(start_s=5)
    clock.advance(2)
    assert clock.monotonic() == 7
    assert clock.wall() == 1_750_000_002
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
