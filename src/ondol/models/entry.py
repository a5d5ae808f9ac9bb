"""decision: what the pool remembers of one model, and which state may follow which."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import LifecycleError
from ondol.models.spec import ModelSpec, ModelState
from ondol.models.worth import Use

if TYPE_CHECKING:
    from asyncio import Future, TimerHandle
    from collections.abc import Callable, Mapping

    from ondol.models.estimates import Estimate
    from ondol.models.job import LoadJob

__all__ = ["FOLLOWERS", "Entry", "Resident", "withdraw"]

_S = ModelState

_FAILURES: Final = frozenset({_S.FAILED, _S.BACKOFF, _S.QUARANTINED})

FOLLOWERS: Final[Mapping[ModelState, frozenset[ModelState]]] = {
    _S.REGISTERED: frozenset({_S.QUEUED, _S.BLOCKED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.LOADING, _S.REGISTERED, _S.UNLOADED, _S.BLOCKED}) | _FAILURES,
    _S.LOADING: frozenset({_S.WARMING, _S.READY, _S.QUEUED, _S.REGISTERED, _S.UNLOADED}) | _FAILURES,
    _S.WARMING: frozenset({_S.READY, _S.QUEUED, _S.REGISTERED, _S.UNLOADED}) | _FAILURES,
    _S.READY: frozenset({_S.DRAINING}) | _FAILURES,  # failures: the process of an isolated model ended
    _S.DRAINING: frozenset({_S.UNLOADED, _S.READY}) | _FAILURES,  # but for the first: what a load beside it came to
    _S.UNLOADED: frozenset({_S.QUEUED, _S.BLOCKED, _S.FAILED}),
    _S.FAILED: frozenset({_S.QUEUED, _S.BLOCKED, _S.REGISTERED, _S.UNLOADED}),
    _S.BACKOFF: frozenset({_S.QUEUED, _S.BLOCKED, _S.REGISTERED, _S.UNLOADED}) | _FAILURES,
    _S.QUARANTINED: frozenset({_S.BLOCKED, _S.REGISTERED, _S.UNLOADED}),
    _S.BLOCKED: frozenset({_S.QUEUED, _S.REGISTERED, _S.UNLOADED, _S.FAILED}),
}


class Resident:
    """A model in memory, who holds it, and what it was built on.

    The leases are counted here and not per name: one returned late, after its pool was stopped and started
    again, is never mistaken for a lease of the model loaded since. While a model is loaded anew there are two of it.

    Attributes:
        account: under which its bytes are booked.
        use: of the model's entry; every copy counts into the same.
        built_on: the models it depends on, as they were when it was loaded.
        supports: what was built on this one, loads under way included; it cannot go before them.
        idle_timer: while its idle time is watched; then ``idle_since_s`` is kept up to date.
        is_parting: its unload has begun.
    """

    __slots__ = (
        "account",
        "built_on",
        "idle_since_s",
        "idle_timer",
        "is_parting",
        "leases",
        "model",
        "on_unused",
        "spec",
        "supports",
        "use",
    )

    def __init__(self, spec: ModelSpec, model: Any, use: Use, *, account: str, built_on: tuple[Resident, ...]) -> None:
        """Hold ``model``, which nobody leases yet."""
        self.spec = spec
        self.model = model
        self.use = use
        self.account = account
        self.leases = 0
        self.built_on = built_on
        self.supports: set[Resident | LoadJob] = set()
        self.idle_timer: TimerHandle | None = None
        self.idle_since_s = 0.0
        self.is_parting = False
        self.on_unused: Callable[[], None] | None = None
        """Called when the last lease is returned, or the last of what was built on it has gone."""
        for base in built_on:
            base.supports.add(self)

    @property
    def is_used(self) -> bool:
        """Whether it is leased, or something in memory was built on it."""
        return bool(self.leases or self.supports)

    def stop_watching_idle(self) -> None:
        """End the watch of its idle time."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None

    def let_go_of_bases(self) -> None:
        """Say that nothing of this one needs what it was built on any more."""
        withdraw(self, self.built_on)
        self.built_on = ()


def withdraw(user: Resident | LoadJob, bases: tuple[Resident, ...]) -> None:
    """Take ``user`` out of what ``bases`` support."""
    for base in bases:
        base.supports.discard(user)
        if base.on_unused is not None and not base.is_used:
            base.on_unused()


@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """One registered model: its state with reason and time, and what was learnt of it. Times are monotonic."""

    spec: ModelSpec
    index: int
    changed_at_s: float
    state: ModelState = ModelState.REGISTERED
    reason: str = "registered, not asked for yet"
    resident: Resident | None = None
    use: Use = field(default_factory=Use)
    measured_bytes: int | None = None
    measured_seconds: float | None = None
    is_size_guessed: bool = False
    """``measured_bytes`` is a share of what several loads took together; the next that runs alone replaces it."""
    job: LoadJob | None = None
    """The load under way."""
    leftover: Future[None] | None = None
    """The thread of a load that was given up; it still runs."""
    load_started_s: float | None = None
    """When it began."""
    ready_at_s: float | None = None
    load_count: int = 0
    failure_count: int = 0
    failures_in_a_row: int = 0
    crashes_in_a_row: int = 0
    retry_at_s: float | None = None
    last_error: str | None = None
    failed_at_s: float | None = None
    pinned_by_hand: bool | None = None
    promised_until_s: float = -math.inf
    """Until then somebody counts on it to stay."""
    has_outgrown: bool = False
    """The last load turned out larger than the room there was, and is repeated with the size now known."""

    @property
    def idle_state(self) -> ModelState:
        """The state of a model that is neither loaded nor asked for."""
        return ModelState.UNLOADED if self.load_count else ModelState.REGISTERED

    @property
    def is_pinned(self) -> bool:
        """Whether it is never evicted."""
        return self.spec.residency == "pinned" if self.pinned_by_hand is None else self.pinned_by_hand

    def is_promised(self, now_s: float) -> bool:
        """Tell whether somebody counts on it to stay."""
        return self.promised_until_s > now_s

    @property
    def strikes(self) -> int:
        """Loads that failed and crashes, since it last worked."""
        return self.failures_in_a_row + self.crashes_in_a_row

    @property
    def expected_bytes(self) -> int:
        """What a load will probably take: measured, else given, else 0."""
        return self.measured_bytes if self.measured_bytes is not None else self.spec.size_bytes or 0

    @property
    def is_size_known(self) -> bool:
        """Whether its size was measured or given."""
        return self.spec.size_bytes is not None or (self.measured_bytes is not None and not self.is_size_guessed)

    @property
    def expected_seconds(self) -> float | None:
        """How long a load will probably take: learnt, else given, else unknown."""
        return self.measured_seconds if self.measured_seconds is not None else self.spec.load_seconds

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

    def note_failure(self, error: str, now_s: float) -> None:
        """Count a load that failed or a crash; the caller counts it in its row."""
        self.failure_count += 1
        self.last_error = error
        self.failed_at_s = now_s

    def forgive(self) -> None:
        """Forget failures as far as they hold up the next load."""
        self.failures_in_a_row = self.crashes_in_a_row = 0
        self.retry_at_s = None

    def adopt(self, spec: ModelSpec) -> None:
        """Take a new specification; what was measured of the old one counts only for one of the same version."""
        is_same = bool(spec.version) and spec.version == self.spec.version
        self.spec = spec
        if not is_same:
            self.measured_bytes = self.measured_seconds = None
            self.is_size_guessed = False
        self.has_outgrown = False
        self.last_error = None
        self.failed_at_s = None
        self.forgive()

    def learn(self, estimate: Estimate) -> None:
        """Take what was learnt of this version before, as far as nothing was measured yet."""
        if self.measured_bytes is None:
            self.measured_bytes = estimate.size_bytes
        if self.measured_seconds is None:
            self.measured_seconds = estimate.load_seconds

    def reset(self, reason: str, now_s: float) -> None:
        """Become idle from any state: what was in memory or loading belongs to a run that is over."""
        self.resident = self.job = None
        self.load_started_s = None
        self.retry_at_s = None
        if self.state not in {ModelState.BLOCKED, ModelState.FAILED, ModelState.QUARANTINED}:
            self.state, self.reason, self.changed_at_s = self.idle_state, reason, now_s
