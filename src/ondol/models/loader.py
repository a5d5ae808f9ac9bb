"""service: run a specification's own functions: coroutines on the loop, everything else in a thread of its own.

The threads are daemons: a loader that hangs for ever never keeps the process from ending. Whoever stops waiting
for one hands it a function that puts the late result away, and is told when that is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from ondol.models.turns import TURNS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call", "is_async"]

logger = logging.getLogger("ondol.models")


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling ``function`` makes a coroutine (partials and objects with such a ``__call__`` included)."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # not asking whether it is callable, but how


class _OneThread(Executor):
    """Runs one call in a new daemon thread; the pool bounds how many there are."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._future: Future[Any] = Future()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start the thread."""
        future = self._future
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001  # it is the waiter's
                future.set_exception(_carried(exc))
            except BaseException as exc:  # noqa: BLE001  # SystemExit in a thread would end it in silence
                future.set_exception(_wrapped(exc))
            else:
                future.set_result(result)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future

    def leave_behind(self, put_away: Callable[[Any], Any] | None, *, is_always: bool) -> asyncio.Future[None]:
        """Call ``put_away`` in a thread with the result when it comes; with ``is_always`` also when it fails.

        Returns: completes when the thread has ended and that is done, too.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def arrived(future: Future[Any]) -> None:
            has_failed = future.exception() is not None
            if put_away is None or (has_failed and not is_always):
                _complete(over, loop)
                return
            result = None if has_failed else future.result()
            threading.Thread(target=put_away_now, args=(put_away, result), daemon=True).start()

        def put_away_now(put_away: Callable[[Any], Any], result: Any) -> None:
            _quietly(put_away, result)
            _complete(over, loop)

        self._future.add_done_callback(arrived)
        return over


def _carried(error: Exception) -> Exception:
    """Return the error in a form a future can carry: ``StopIteration`` would never wake the one who waits."""
    return _wrapped(error) if isinstance(error, StopIteration) else error


def _wrapped(error: BaseException) -> RuntimeError:
    wrapped = RuntimeError(f"{type(error).__name__} was raised: {error}")
    wrapped.__cause__ = error
    return wrapped


def _complete(over: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """Complete ``over`` from any thread."""

    def complete() -> None:
        if not over.done():
            over.set_result(None)

    try:
        loop.call_soon_threadsafe(complete)
    except RuntimeError:  # its loop is closed: only its state can still be asked for
        with contextlib.suppress(RuntimeError):
            complete()


def _quietly(put_away: Callable[[Any], Any], result: Any) -> None:
    try:
        rest = put_away(result)
        if inspect.iscoroutine(rest):
            asyncio.run(rest)  # the loop it was meant for may be gone, this thread is all there is
    except BaseException:  # nobody is above this thread who could do anything about it
        logger.exception("putting away a model that came too late failed")


async def call(
    function: Callable[..., Any],
    *args: Any,
    name: str,
    put_away: Callable[[Any], Any] | None = None,
    is_always_put_away: bool = False,
    on_left_behind: Callable[[asyncio.Future[None]], None] | None = None,
) -> Any:
    """Return what ``function(*args)`` returns, awaited if need be, without holding up the loop.

    Args:
        function: a coroutine function, or a plain one, which runs in a thread (what it returns is awaited on the
            loop if it is awaitable).
        args: its arguments.
        name: names the thread.
        put_away: called with the result of a thread that ends after the caller was cancelled.
        is_always_put_away: call it with ``None`` when such a thread fails.
        on_left_behind: called, before the cancellation goes on, with a future that completes once such a thread has
            ended and its result was put away.

    Cancellation: cancels a coroutine; a thread cannot be stopped, it is left behind and its result put away.
    """
    if is_async(function):
        return await function(*args)
    thread = _OneThread(f"ondol-{name}")
    work = functools.partial(contextvars.copy_context().run, function, *args)
    try:
        with TURNS:  # here, not in the thread: one that is left behind may hang for ever
            result = await asyncio.get_running_loop().run_in_executor(thread, work)
    except asyncio.CancelledError:
        over = thread.leave_behind(put_away, is_always=is_always_put_away)
        if on_left_behind is not None:
            on_left_behind(over)
        raise
    return await result if inspect.isawaitable(result) else result
