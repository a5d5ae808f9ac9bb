"""service: an asyncio loop whose time jumps to the next timer when nothing can run.

``await asyncio.sleep(3600)`` takes no time on it, and the order of events is the same in every run.
While a thread started with ``run_in_executor`` (so also ``asyncio.to_thread``) works, time stands still:
a timeout never fires merely because real work takes real time.

Source: the idea is trio's ``MockClock(autojump_threshold=0)``; this is asyncio's form of it.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

__all__ = ["VirtualClock", "VirtualTimeLoop", "run_virtual"]

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for real I/O only while a thread works; else advances the loop's time instead of waiting."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.loop.busy_threads or timeout is None:
            # Nothing is due on the loop: only a thread or a socket can wake it.
            return super().select(None)
        self.loop.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; make one with :func:`run_virtual`."""

    def __init__(self) -> None:
        """Begin at time 0."""
        self._virtual_now_s = 0.0
        self.busy_threads = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._virtual_now_s

    def jump(self, seconds: float) -> None:
        """Let virtual ``seconds`` pass."""
        # asyncio rounds timers to the clock's resolution: without the margin a timer could be missed for ever.
        self._virtual_now_s += seconds + 1e-9

    def run_in_executor(  # type: ignore[override]  # typeshed's overload uses a private TypeVarTuple
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` in a thread and hold the time until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.busy_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's name
        """Join the default executor's threads; time stands still meanwhile, or the time limit would pass at once."""
        self.busy_threads += 1
        try:
            if sys.version_info >= (3, 12):
                await super().shutdown_default_executor(timeout)
            else:
                await super().shutdown_default_executor()
        finally:
            self.busy_threads -= 1

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self.busy_threads -= 1


class VirtualClock:
    """The running virtual loop's time as a :class:`ondol.clock.Clock`; usable in any thread of the test."""

    def __init__(self, loop: VirtualTimeLoop, epoch_s: float = 1_750_000_000.0) -> None:
        """Read the time of ``loop``; ``epoch_s`` is the wall clock at its time 0."""
        self._loop = loop
        self._epoch_s = epoch_s

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def wall(self) -> float:
        """Return the wall clock that goes with it."""
        return self._epoch_s + self._loop.time()


def run_virtual(scenario: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Run ``scenario(clock)`` to its end on a new virtual-time loop.

    Raises:
        AssertionError: the scenario left tasks running behind it (they are cancelled and named).
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return runner.run(_checked(scenario(VirtualClock(loop))))


async def _checked(scenario: Coroutine[Any, Any, T]) -> T:
    result = await scenario
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.gather(*left, return_exceptions=True)
        names = ", ".join(repr(task.get_coro()) for task in left)
        message = f"the scenario left {len(left)} task(s) running: {names}"
        raise AssertionError(message)
    return result
