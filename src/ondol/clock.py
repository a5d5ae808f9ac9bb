"""adapter: the system's clocks behind a protocol, so that tests can put their own time in.

Only reading time is injected. Waiting is plain asyncio; tests run it on a virtual-time loop
(:mod:`ondol.testing`).
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What the rooms need to know of time."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""
        ...

    def wall(self) -> float:
        """Return seconds since the Unix epoch; may jump when the machine's clock is set."""
        ...


class SystemClock:
    """The machine's own clocks: ``time.monotonic`` and ``time.time`` themselves, for they are read on hot paths."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
