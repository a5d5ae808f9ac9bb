"""service: calling into the thread of an event loop from wherever one is."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["in_loop", "own_task"]


def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call in the loop's thread: at once when this is it."""
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        function(*args)
    else:
        loop.call_soon_threadsafe(function, *args)


def own_task(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Return a task of the running loop that nobody's request is the owner of.

    It does not inherit the context of whoever happened to set it off, and begins with the loop's next turn, whatever
    the loop's task factory: what is noted of a task must be noted before its first step.
    """
    loop = asyncio.get_running_loop()
    return asyncio.Task(work, loop=loop, name=name, context=contextvars.Context())
