"""adapter: the advisory lock (flock) that processes hold in turn on a file; the kernel frees that of a dead one."""

from __future__ import annotations

import time
from typing import Final

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
except ImportError:  # pragma: no cover  # a system without it
    flock = None  # type: ignore[assignment]  # asked for below

__all__ = ["HAS_LOCKS", "give_lock", "take_lock"]

HAS_LOCKS: Final = flock is not None

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.004


def take_lock(descriptor: int, patience_s: float) -> bool:
    """Take the lock of an open file for this process alone; return false when another keeps it for ``patience_s``.

    It is asked for again and again instead of waited for: one who holds it may be stopped, and for how long.

    Raises:
        OSError: this file system, or this system, has no such locks.
    """
    if not HAS_LOCKS:
        message = "this system has no flock"
        raise OSError(message)
    pause_s, deadline_s = _FIRST_PAUSE_S, None
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            now_s = time.monotonic()
            deadline_s = now_s + patience_s if deadline_s is None else deadline_s
            if now_s >= deadline_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            return True


def give_lock(descriptor: int) -> None:
    """Give the lock back."""
    flock(descriptor, LOCK_UN)
