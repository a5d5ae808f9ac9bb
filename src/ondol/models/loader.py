"""service: run a specification's own functions: coroutines on the loop, everything else in a thread of its own.

The threads are daemons: a loader that hangs for ever never keeps the process from ending. Whoever stops waiting
for one hands it a function that puts the late result away.
"""

from __future__ import annotations

import asyncio
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
                with TURNS:
                    result = fn(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001  # it is the waiter's
                future.set_exception(_carried(exc))
            except BaseException as exc:  # noqa: BLE001  # SystemExit in a thread would end it in silence
                future.set_exception(_wrapped(exc))
            else:
                future.set_result(result)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future

    def put_away_late(self, put_away: Callable[[Any], Any], *, is_always: bool) -> None:
        """Call ``put_away`` in a thread with the result when it comes; if ``is_always`` with ``None`` when none comes."""

        def arrived(future: Future[Any]) -> None:
            has_failed = future.exception() is not None
            if is_always or not has_failed:
                result = None if has_failed else future.result()
                threading.Thread(target=_quietly, args=(put_away, result), daemon=True).start()

        self._future.add_done_callback(arrived)


def _carried(error: Exception) -> Exception:
    """Return the error in a form a future can carry: ``StopIteration`` would never wake the one who waits."""
    return _wrapped(error) if isinstance(error, StopIteration) else error


def _wrapped(error: BaseException) -> RuntimeError:
    wrapped = RuntimeError(f"{type(error).__name__} was raised: {error}")
    wrapped.__cause__ = error
    return wrapped


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
) -> Any:
    """Return what ``function(*args)`` returns, awaited if need be, without holding up the loop.

    Args:
        function: a coroutine function, or a plain one, which runs in a thread (what it returns is awaited on the
            loop if it is awaitable).
        args: its arguments.
        name: names the thread.
        put_away: called with the result of a thread that ends after the caller was cancelled.
        is_always_put_away: call it with ``None`` when such a thread fails.

    Cancellation: cancels a coroutine; a thread cannot be stopped, it is left behind and its result put away.
    """
    if is_async(function):
        return await function(*args)
    thread = _OneThread(f"ondol-{name}")
    work = functools.partial(contextvars.copy_context().run, function, *args)
    try:
        result = await asyncio.get_running_loop().run_in_executor(thread, work)
    except asyncio.CancelledError:
        if put_away is not None:
            thread.put_away_late(put_away, is_always=is_always_put_away)
        raise
    return await result if inspect.isawaitable(result) else result
