"""adapter: the end of the parent is the end of the child."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["die_with_parent", "find_prctl", "watch_hangup"]

_PR_SET_PDEATHSIG: Final = 1


def find_prctl() -> Callable[..., Any] | None:
    """Return Linux's ``prctl``, ``None`` elsewhere. Called before forking: a child should not load libraries."""
    try:
        import ctypes  # noqa: PLC0415  # not every build has it

        prctl: Callable[..., Any] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return prctl


def die_with_parent(prctl: Callable[..., Any] | None, parent_pid: int) -> bool:
    """Let the kernel kill this process when its parent's main thread ends; return whether it will.

    A parent that has ended already ends this process here.
    """
    is_set = prctl is not None and prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if os.getppid() != parent_pid:
        os._exit(1)
    return is_set


def watch_hangup(descriptor: int) -> None:
    """End this process as soon as the other side of the socket is gone, whatever it is doing: for other systems."""

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, 0)  # a hang-up is always reported
        poller.poll()
        os._exit(1)

    threading.Thread(target=watch, name="ondol-hangup", daemon=True).start()
