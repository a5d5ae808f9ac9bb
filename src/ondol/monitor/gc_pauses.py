"""service: how long the garbage collector stops this process."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GcPauses"]


class _Span:
    """What was seen since the last ``take``."""

    __slots__ = ("count", "longest_s", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0
        self.total_s = 0.0


class GcPauses:
    """Times each collection between ``start`` and ``stop``.

    Thread-safety: all of it, without a lock: a collection may begin anywhere, also while a lock is held. Cost: two
    readings of the clock a collection.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Hook nothing yet; ``now`` gives seconds, and has to be fine: most pauses are far below a millisecond."""
        self._now = now
        self._span = _Span()
        self._began_s: float | None = None

    @property
    def longest_s(self) -> float:
        """The longest pause since the last ``take``."""
        return self._span.longest_s

    def start(self) -> None:
        """Begin; nothing happens when it has begun already."""
        if self._note not in gc.callbacks:
            gc.callbacks.append(self._note)

    def stop(self) -> None:
        """End; what was seen can still be taken."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)
        self._began_s = None

    def take(self) -> tuple[int, float, float]:
        """Return the number of collections, their seconds in all and of the longest, since the last call."""
        span, self._span = self._span, _Span()
        return span.count, span.total_s, span.longest_s

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = self._now()
            return
        began_s, self._began_s = self._began_s, None
        if began_s is None:
            return  # hooked, or stopped, in the midst of a collection
        pause_s = self._now() - began_s
        span = self._span
        span.count += 1
        span.total_s += pause_s
        span.longest_s = max(span.longest_s, pause_s)
