"""service: the newest health sample, shared by all who ask, the event loop's lag and the collector's pauses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor.gc_pauses import GcPauses
    from ondol.monitor.host import HostSample, HostSampler

__all__ = ["HealthSource"]

_FRESH_S: Final = 1.0

_METRICS: Final = (
    ("system.memory_percent", "memory_percent", "percent"),
    ("system.memory_used_bytes", "memory_used_bytes", "bytes"),
    ("system.memory_high_percent", "memory_high_percent", "percent"),
    ("system.memory_pressure_percent", "memory_pressure_percent", "percent"),
    ("system.cpu_percent", "cpu_percent", "percent"),
    ("system.cpu_pressure_percent", "cpu_pressure_percent", "percent"),
    ("system.cpu_throttled_percent", "cpu_throttled_percent", "percent"),
    ("system.io_pressure_percent", "io_pressure_percent", "percent"),
    ("system.disk_percent", "disk_percent", "percent"),
    ("process.rss_bytes", "rss_bytes", "bytes"),
    ("process.open_files", "open_files", "count"),
    ("process.open_files_percent", "open_files_percent", "percent"),
    ("process.threads", "threads", "count"),
)


class HealthSource:
    """Keeps a sample for a second, so that many viewers cost no more than one. Thread-safe."""

    def __init__(self, host: HostSampler, clock: Clock, gc_pauses: GcPauses | None = None) -> None:
        """Sample nothing yet.

        Args:
            host: looks at the machine.
            clock: tells how old a sample is.
            gc_pauses: times the garbage collector; its figures are left out without it.
        """
        self._host = host
        self._clock = clock
        self._gc_pauses = gc_pauses
        self._lock = threading.Lock()
        self._sample: HostSample | None = None
        self._sampled_at_s = 0.0
        self._lag_s = 0.0
        self._worst_lag_s = 0.0
        self._gc_pause_s = 0.0

    def start(self) -> None:
        """Begin to time the garbage collector; nothing happens when that has begun already."""
        if self._gc_pauses is not None:
            self._gc_pauses.start()

    def stop(self) -> None:
        """Leave the garbage collector alone, and close the files that sampling keeps open.

        What is asked for later is sampled as before, which opens them again.
        """
        if self._gc_pauses is not None:
            self._gc_pauses.stop()
        self._host.close()

    def read(self) -> dict[str, Any]:
        """Return the health as plain values, not older than a second."""
        health = self._fresh_sample(_FRESH_S)._asdict()
        health["loop_lag_seconds"] = max(self._lag_s, self._worst_lag_s)
        gc_pauses = self._gc_pauses
        health["gc_pause_seconds"] = None if gc_pauses is None else max(self._gc_pause_s, gc_pauses.longest_s)
        return health

    def sample_metrics(self) -> list[tuple[str, float, str]]:
        """Sample now; return the measurements ``(name, value, unit)`` to be recorded, those that this system has.

        Lag and pause are the worst since the last call.
        """
        sample = self._fresh_sample(0.0)
        values = ((name, getattr(sample, field), unit) for name, field, unit in _METRICS)
        figures = [(name, float(value), unit) for name, value, unit in values if value is not None]
        self._lag_s, self._worst_lag_s = self._worst_lag_s, 0.0
        figures.append(("process.loop_lag_seconds", self._lag_s, "seconds"))
        if self._gc_pauses is not None:
            _, _, self._gc_pause_s = self._gc_pauses.take()
            figures.append(("process.gc_pause_seconds", self._gc_pause_s, "seconds"))
        return figures

    def note_lag(self, lag_s: float) -> None:
        """Remember that the event loop woke up so much later than it was asked to."""
        self._worst_lag_s = max(self._worst_lag_s, lag_s)

    def _fresh_sample(self, max_age_s: float) -> HostSample:
        with self._lock:
            now_s = self._clock.monotonic()
            if self._sample is None or now_s - self._sampled_at_s >= max_age_s:
                self._sample = self._host.sample()
                self._sampled_at_s = now_s
            return self._sample
