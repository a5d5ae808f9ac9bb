"""adapter: how long a thread may keep the interpreter while others wait, shorter while models are loaded in threads."""

from __future__ import annotations

import sys
import threading
from typing import Final

__all__ = ["TURNS", "TURN_S", "ShortTurns"]

TURN_S: Final = 0.0005
_HALF_A_MICROSECOND_S: Final = 0.5e-6  # the interpreter cuts off what is below one, turns would shrink each time


class ShortTurns:
    """While it is entered, threads that compute in Python hand over to each other after half a millisecond.

    By default each may keep the interpreter for 5 ms while the event loop waits, and the loop waits anew after every
    read and write: beside five such loaders a server answers some ten requests a second. Loads take no longer by it.
    A thread within a long call of a library that does not release the interpreter cannot be hurried. Whoever waits
    for the thread enters it, so that one that is left behind has no say in it any more.

    Thread-safety: safe; may be entered several times at once.
    """

    def __init__(self) -> None:
        """Begin with nobody inside."""
        self._lock = threading.Lock()
        self._entered = 0
        self._before_s = 0.0
        self._set_s = 0.0

    def __enter__(self) -> None:
        """Shorten the turns, unless they are as short already."""
        with self._lock:
            self._entered += 1
            if self._entered == 1:
                self._before_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before_s, TURN_S) + _HALF_A_MICROSECOND_S)
                self._set_s = sys.getswitchinterval()

    def __exit__(self, *_exc: object) -> None:
        """Put back what was there before, unless somebody else has set it meanwhile."""
        with self._lock:
            self._entered -= 1
            if not self._entered and sys.getswitchinterval() == self._set_s:
                sys.setswitchinterval(self._before_s + _HALF_A_MICROSECOND_S)


TURNS: Final = ShortTurns()
"""The interpreter has one interval, so there is one of these."""
