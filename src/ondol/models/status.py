"""decision: what can be seen of one model, and of what a pool is busy with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ondol.models.spec import Isolation, ModelState, Residency

__all__ = ["LoadState", "ModelOutline", "ModelStatus"]


class ModelStatus(NamedTuple):
    """What can be seen of one model. Times called ``…_at`` are seconds since 1970.

    Attributes:
        since_s: how long it has been in this state, in seconds.
        waits_on: for a blocked model the dependencies that are missing or failed, for a queued one those not ready.
        leases: how many hold it now.
        size_bytes: measured, else expected, else ``None``.
        load_seconds: learnt of its loads (warm-up included), else expected, else ``None``.
        last_error: of the last failed load or crash; cleared by the next load that succeeds.
        is_warm: ready, and its warm-up call (if it has one) was answered.
        version: of its specification.
        isolation: ``thread``, or ``process`` for a process of its own.
        is_pinned: never evicted, by its specification or by hand.
        progress: 0 to 1 of the load under way by what is learnt of its time, 1 when it is ready, ``None`` when nobody
            can tell. While a ready model is loaded anew beside itself it is the progress of that load.
        eta_s: seconds until it is ready, by the same; ``None`` when nothing is under way or nobody can tell.
        retry_in_s: seconds until a load that failed is tried again.
        failures_in_a_row: loads that failed and crashes, since it last worked.
        idle_ttl_s: unloaded after so long without a lease; ``None`` is never.
    """

    name: str
    state: ModelState
    reason: str
    since_s: float
    residency: Residency
    priority: int
    depends_on: tuple[str, ...]
    waits_on: tuple[str, ...]
    leases: int
    size_bytes: int | None
    load_seconds: float | None
    load_count: int
    failure_count: int
    last_error: str | None
    is_warm: bool
    version: str
    isolation: Isolation
    is_pinned: bool
    progress: float | None
    eta_s: float | None
    retry_in_s: float | None
    failures_in_a_row: int
    idle_ttl_s: float | None
    changed_at: float
    loaded_at: float | None
    last_used_at: float | None
    last_error_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data for JSON."""
        return self._asdict() | {
            "state": self.state.value,
            "depends_on": list(self.depends_on),
            "waits_on": list(self.waits_on),
        }


class ModelOutline(NamedTuple):
    """The few facts of one model that plans need.

    Attributes:
        size_bytes: measured, else expected, else 0.
        is_in_memory: ready, being loaded or leaving.
        leases: how many hold it now.
    """

    name: str
    priority: int
    depends_on: tuple[str, ...]
    size_bytes: int
    is_ready: bool
    is_in_memory: bool
    is_pinned: bool
    leases: int


class LoadState(NamedTuple):
    """What a pool is busy with; of one that does not run all is 0.

    Attributes:
        free_bytes: what may still be booked: neither loaded, nor reserved, nor leaving. ``None`` is without limit.
        is_demand_waiting: a request waits for a model whose load has not begun.
        demand_loads: loads for requests that are under way.
        background_loads: other loads that are under way.
    """

    free_bytes: int | None = 0
    is_demand_waiting: bool = False
    demand_loads: int = 0
    background_loads: int = 0
