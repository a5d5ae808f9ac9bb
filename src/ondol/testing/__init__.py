"""service: helpers for testing code that uses ondol: a fake clock and an event loop on virtual time."""

from __future__ import annotations

from ondol.testing.clock import FakeClock
from ondol.testing.loop import VirtualClock, VirtualTimeLoop, run_virtual

__all__ = ["FakeClock", "VirtualClock", "VirtualTimeLoop", "run_virtual"]
