"""service: the newest health sample, shared by all who ask, and the event loop's lag."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor.host import HostSample, HostSampler

__all__ = ["HealthSource"]

_FRESH_S: Final = 1.0

_METRICS: Final = (
    ("system.memory_percent", "memory_percent", "percent"),
    ("system.memory_used_bytes", "memory_used_bytes", "bytes"),
    ("system.cpu_percent", "cpu_percent", "percent"),
    ("system.disk_percent", "disk_percent", "percent"),
    ("process.rss_bytes", "rss_bytes", "bytes"),
    ("process.open_files", "open_files", "count"),
    ("process.threads", "threads", "count"),
)


class HealthSource:
    """Keeps a sample for a second, so that many viewers cost no more than one. Thread-safe."""

    def __init__(self, host: HostSampler, clock: Clock) -> None:
        """Sample nothing yet."""
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        self._sample: HostSample | None = None
        self._sampled_at_s = 0.0
        self._lag_s = 0.0
        self._worst_lag_s = 0.0

    def read(self) -> dict[str, Any]:
        """Return the health as plain values, not older than a second."""
        sample = self._fresh_sample(_FRESH_S)
        return {**sample._asdict(), "loop_lag_seconds": max(self._lag_s, self._worst_lag_s)}

    def sample_metrics(self) -> list[tuple[str, float, str]]:
        """Sample now; return the measurements ``(name, value, unit)`` to be recorded, the worst lag since the last."""
        sample = self._fresh_sample(0.0)
        self._lag_s, self._worst_lag_s = self._worst_lag_s, 0.0
        figures = [(name, float(getattr(sample, field)), unit) for name, field, unit in _METRICS]
        return [*figures, ("process.loop_lag_seconds", self._lag_s, "seconds")]

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
