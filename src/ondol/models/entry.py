"""decision: what the pool remembers of one model, and which state may follow which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import LifecycleError
from ondol.models.spec import ModelSpec, ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FOLLOWERS", "Entry", "Resident"]

_S = ModelState

FOLLOWERS: Final[Mapping[ModelState, frozenset[ModelState]]] = {
    _S.REGISTERED: frozenset({_S.QUEUED, _S.BLOCKED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.LOADING, _S.REGISTERED, _S.UNLOADED, _S.FAILED, _S.BLOCKED}),
    _S.LOADING: frozenset({_S.WARMING, _S.READY, _S.FAILED, _S.QUEUED, _S.REGISTERED, _S.UNLOADED}),
    _S.WARMING: frozenset({_S.READY, _S.FAILED, _S.QUEUED, _S.REGISTERED, _S.UNLOADED}),
    _S.READY: frozenset({_S.DRAINING}),
    _S.DRAINING: frozenset({_S.UNLOADED}),
    _S.UNLOADED: frozenset({_S.QUEUED, _S.BLOCKED, _S.FAILED}),
    _S.FAILED: frozenset({_S.QUEUED, _S.BLOCKED, _S.REGISTERED, _S.UNLOADED}),
    _S.BLOCKED: frozenset({_S.QUEUED, _S.REGISTERED, _S.UNLOADED, _S.FAILED}),
}


class Resident:
    """A model in memory, and who holds it.

    The leases are counted here and not per name: one returned late, after its pool was stopped and started
    again, is never mistaken for a lease of the model loaded since.
    """

    __slots__ = ("leases", "model", "on_idle", "spec", "used_order")

    def __init__(self, spec: ModelSpec, model: Any, *, used_order: int = 0) -> None:
        """Hold ``model``, which nobody leases yet."""
        self.spec = spec
        self.model = model
        self.leases = 0
        self.used_order = used_order
        self.on_idle: Callable[[], None] | None = None
        """Called when the last lease is returned."""


@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """One registered model: its state with reason and time, and what was learnt of it."""

    spec: ModelSpec
    index: int
    changed_at_s: float
    state: ModelState = ModelState.REGISTERED
    reason: str = "registered, not asked for yet"
    resident: Resident | None = None
    measured_bytes: int | None = None
    measured_seconds: float | None = None
    load_count: int = 0
    failure_count: int = 0
    last_error: str | None = None
    has_outgrown: bool = False
    """The last load turned out larger than the room there was, and is repeated with the size now known."""

    @property
    def idle_state(self) -> ModelState:
        """The state of a model that is neither loaded nor asked for."""
        return ModelState.UNLOADED if self.load_count else ModelState.REGISTERED

    @property
    def expected_bytes(self) -> int:
        """What a load will probably take: measured, else given, else 0."""
        return self.measured_bytes if self.measured_bytes is not None else self.spec.size_bytes or 0

    def move(self, state: ModelState, reason: str, now_s: float) -> None:
        """Enter ``state``; the same state again only renews the reason.

        Raises:
            LifecycleError: ``state`` cannot follow the present one: a mistake in the pool.
        """
        if state is not self.state:
            if state not in FOLLOWERS[self.state]:
                message = f"model {self.spec.name!r} cannot go from {self.state} to {state} ({reason})"
                raise LifecycleError(message)
            self.state = state
            self.changed_at_s = now_s
        self.reason = reason

    def adopt(self, spec: ModelSpec) -> None:
        """Take a new specification; what was measured of the old one no longer counts."""
        self.spec = spec
        self.measured_bytes = None
        self.measured_seconds = None
        self.has_outgrown = False
        self.last_error = None

    def reset(self, reason: str, now_s: float) -> None:
        """Become idle from any state: the event loop in which it was loaded or loading is gone."""
        self.resident = None
        if self.state not in {ModelState.BLOCKED, ModelState.FAILED}:
            self.state, self.reason, self.changed_at_s = self.idle_state, reason, now_s
