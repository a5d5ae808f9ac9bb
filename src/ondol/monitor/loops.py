"""service: ends tasks of event loops other than the running one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["cancel_elsewhere"]


def cancel_elsewhere(task: asyncio.Task[None] | None) -> None:
    """End a task of another loop, which is not waited for; one of a loop that was closed is over already."""
    if task is not None and not task.done():
        with contextlib.suppress(RuntimeError):  # the loop is closed
            task.get_loop().call_soon_threadsafe(task.cancel)
