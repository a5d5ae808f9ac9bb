"""decision: what the shared tier counts."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

__all__ = ["COUNTS", "Tally"]

COUNTS: Final = (
    "fetches",
    "hits",
    "misses",
    "batches",
    "claims",
    "puts",
    "dropped_puts",
    "commits",
    "refused_commits",
    "leases_granted",
    "lease_waits",
    "lease_takeovers",
    "leases_lost",
    "invalidations_sent",
    "invalidations_received",
    "invalidations_replayed",
    "gaps",
)
_RECENT: Final = 512


class Tally:
    """Counts and the times of the latest round trips; no locks of its own."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.failures: Counter[str] = Counter()
        self._recent_s: deque[float] = deque(maxlen=_RECENT)

    def took(self, seconds: float) -> None:
        """Take note of how long a round trip took."""
        self._recent_s.append(seconds)

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values."""
        recent_s = list(self._recent_s)
        return {
            **self.counts,
            "failures": dict(self.failures),
            "latency_mean_s": sum(recent_s) / len(recent_s) if recent_s else 0.0,
            "latency_max_s": max(recent_s, default=0.0),
        }
