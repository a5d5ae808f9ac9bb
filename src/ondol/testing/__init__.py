"""service: helpers for testing code that uses ondol: a fake clock, an event loop on virtual time, a shared store."""

from __future__ import annotations

from ondol.testing.clock import FakeClock
from ondol.testing.loop import VirtualClock, VirtualTimeLoop, run_virtual
from ondol.testing.shared_server import FakeSharedServer
from ondol.testing.shared_store import FakeSharedStore

__all__ = ["FakeClock", "FakeSharedServer", "FakeSharedStore", "VirtualClock", "VirtualTimeLoop", "run_virtual"]
