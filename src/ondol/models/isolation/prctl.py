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
_PARENT_CHECK_MS: Final = 1000
_GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


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


def watch_hangup(descriptor: int, parent_pid: int) -> None:
    """End this process when the socket's other side or the parent is gone: for systems without ``prctl``."""

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLHUP)
        while os.getppid() == parent_pid and not any(event & _GONE for _, event in poller.poll(_PARENT_CHECK_MS)):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="ondol-hangup", daemon=True).start()
