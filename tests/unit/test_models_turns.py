from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ondol.models.loader import call
from ondol.models.turns import TURN_S, ShortTurns
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield
    sys.setswitchinterval(before_s)


def test_turns_are_short_until_the_last_one_has_left() -> None:
    turns = ShortTurns()
    with turns:
        with turns:
            assert sys.getswitchinterval() == pytest.approx(TURN_S)
        assert sys.getswitchinterval() == pytest.approx(TURN_S)
    assert sys.getswitchinterval() == pytest.approx(0.004)


def test_turns_that_are_shorter_already_stay() -> None:
    sys.setswitchinterval(0.0001)
    own_s = sys.getswitchinterval()
    for _ in range(100):
        with ShortTurns():
            assert sys.getswitchinterval() == own_s
    assert sys.getswitchinterval() == own_s


def test_what_somebody_else_sets_meanwhile_stays() -> None:
    with ShortTurns():
        sys.setswitchinterval(0.002)
    assert sys.getswitchinterval() == pytest.approx(0.002)


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_load_in_a_thread_has_short_turns_and_leaves_none_behind(has_failed: bool) -> None:
    seen: list[float] = []
    ended: list[threading.Thread] = []

    def load() -> None:
        seen.append(sys.getswitchinterval())
        ended.append(threading.current_thread())
        if has_failed:
            raise OSError("broken")

    async def scenario(_clock: VirtualClock) -> None:
        if has_failed:
            with pytest.raises(OSError, match="broken"):
                await call(load, name="m")
        else:
            await call(load, name="m")

    run_virtual(scenario)
    ended[0].join()
    assert seen == [pytest.approx(TURN_S)]
    assert sys.getswitchinterval() == pytest.approx(0.004)


def test_a_thread_that_is_left_behind_keeps_no_turns_short() -> None:
    begun, hung = threading.Event(), threading.Event()

    def load() -> None:
        begun.set()
        hung.wait()

    async def scenario() -> None:
        task = asyncio.create_task(call(load, name="m"))
        await asyncio.to_thread(begun.wait)
        assert sys.getswitchinterval() == pytest.approx(TURN_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sys.getswitchinterval() == pytest.approx(0.004)

    try:
        asyncio.run(scenario())
    finally:
        hung.set()
