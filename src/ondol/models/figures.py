"""decision: the figures of a pool: what it counts, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ondol.models.spec import ModelState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.models.ledger import Ledger
    from ondol.models.status import ModelStatus

__all__ = ["Totals", "figures"]


@dataclass(slots=True, eq=False, repr=False)
class Totals:
    """Counters over the pool's whole life."""

    loads: int = 0
    load_failures: int = 0
    unload_failures: int = 0
    listener_failures: int = 0
    advisor_failures: int = 0
    lease_timeouts: int = 0
    load_timeouts: int = 0
    retries: int = 0
    crashes: int = 0
    reloads: int = 0
    idle_unloads: int = 0
    estimate_failures: int = 0
    evictions: int = 0
    leases: int = 0
    load_seconds: float = 0.0


def figures(totals: Totals, ledger: Ledger, statuses: Sequence[ModelStatus]) -> dict[str, Any]:
    """Return them as plain data."""
    states = [status.state for status in statuses]
    return {
        "models": [status.as_dict() for status in statuses],
        "ready": states.count(ModelState.READY),
        "loading": states.count(ModelState.LOADING) + states.count(ModelState.WARMING),
        "queued": states.count(ModelState.QUEUED),
        "backoff": states.count(ModelState.BACKOFF),
        "quarantined": states.count(ModelState.QUARANTINED),
        "used_bytes": ledger.used_bytes,
        "limit_bytes": ledger.limit_bytes,
        "loads": totals.loads,
        "load_failures": totals.load_failures,
        "unload_failures": totals.unload_failures,
        "listener_failures": totals.listener_failures,
        "advisor_failures": totals.advisor_failures,
        "evictions": totals.evictions,
        "leases": totals.leases,
        "lease_timeouts": totals.lease_timeouts,
        "load_timeouts": totals.load_timeouts,
        "retries": totals.retries,
        "crashes": totals.crashes,
        "reloads": totals.reloads,
        "idle_unloads": totals.idle_unloads,
        "estimate_failures": totals.estimate_failures,
        "load_seconds_total": totals.load_seconds,
    }
