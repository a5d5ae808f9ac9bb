"""adapter: what a fork means for caches: no lock is held by a thread that the child does not have."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol

__all__ = ["Forkable", "guard_forks"]


class Forkable(Protocol):
    """An object with locks that has to be whole in a forked child."""

    def hold(self) -> None:
        """Wait until no other thread changes it, and keep it so."""
        ...

    def let_go(self) -> None:
        """End that, in the parent and in the child."""
        ...

    def forked(self) -> None:
        """In the child: forget what only the parent's threads and loops can bring to an end."""
        ...


_guarded: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()
_held: Final[list[Forkable]] = []
_turn = threading.RLock()
"""Held from before a fork until after it: two threads that fork at once take turns."""


def guard_forks(forkable: Forkable) -> None:
    """Have ``forkable`` held around every fork, as long as it lives."""
    _guarded.add(forkable)


def _before() -> None:
    _turn.acquire()
    _held.extend(_guarded)
    for forkable in _held:
        forkable.hold()


def _after_in_parent() -> None:
    while _held:
        _held.pop().let_go()
    _turn.release()


def _after_in_child() -> None:
    while _held:
        forkable = _held.pop()
        forkable.let_go()
        forkable.forked()
    _turn.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
