"""decision: whether a waiting load starts, waits for room, makes room, or cannot have any."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ondol.models.ledger import Candidate, Ledger, choose_victims
from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.models.queue import Slots, Want

__all__ = ["Admission", "Turn", "Verdict", "too_large"]


class Verdict(Enum):
    """What becomes of a waiting load in this turn."""

    START = "start"
    WAIT = "wait"
    WAIT_FOR_LEASES = "wait for leases"
    NO_ROOM = "no room"


class Admission(NamedTuple):
    """A verdict with its reason, and who leaves for it."""

    verdict: Verdict
    reason: str
    victims: tuple[str, ...] = ()


class Turn:
    """One pass through the queue, in its order.

    Room that is being made for a demand is promised to it: nothing after it takes it away. While a demand waits for
    room no background load starts. A demand that waits for leases to end does not hold up other demands.

    Attributes:
        ledger: the bytes booked.
        slots: what may still start.
        is_anything_moving: loads or unloads are under way, after which there may be more room.
        promised_bytes: room that earlier wants wait for.
    """

    __slots__ = (
        "is_anything_moving",
        "is_demand_waiting",
        "is_waiting_for_leases",
        "ledger",
        "promised_bytes",
        "slots",
    )

    def __init__(self, ledger: Ledger, slots: Slots, *, is_anything_moving: bool) -> None:
        """Begin with nothing promised and nobody waiting."""
        self.ledger = ledger
        self.slots = slots
        self.is_anything_moving = is_anything_moving
        self.promised_bytes = 0
        self.is_demand_waiting = False
        self.is_waiting_for_leases = False

    @property
    def is_room_short(self) -> bool:
        """Whether anything waits for room."""
        return self.is_demand_waiting or self.is_waiting_for_leases or self.promised_bytes > 0

    def judge(self, want: Want, need_bytes: int, candidates: Callable[[], Iterable[Candidate]]) -> Admission:
        """Return what becomes of ``want``, whose dependencies are ready, and count it in.

        Args:
            want: next in the order.
            need_bytes: what it will probably take; 0 when nobody knows.
            candidates: returns who might leave, the first to go first; asked only when room is short.
        """
        shortage = self.ledger.shortage(need_bytes + self.promised_bytes) if need_bytes else 0
        if not self.slots.has_free(is_demand=want.is_demand):
            self.is_demand_waiting |= want.is_demand and shortage > 0
            return Admission(Verdict.WAIT, "waits for its turn: as many loads as allowed are under way")
        if self.is_demand_waiting and not want.is_demand:
            return Admission(Verdict.WAIT, "waits behind a request that waits for room")
        if not shortage:
            self.slots.take(is_demand=want.is_demand)
            self.is_anything_moving = True
            return Admission(Verdict.START, "")
        return self._make_room(want, need_bytes, shortage, candidates)

    def _make_room(
        self, want: Want, need_bytes: int, shortage: int, candidates: Callable[[], Iterable[Candidate]]
    ) -> Admission:
        still_short = shortage - self.ledger.leaving_bytes
        victims = choose_victims(candidates(), still_short, may_go=want.may_displace)
        self.is_demand_waiting |= want.is_demand
        if victims or still_short <= 0:
            self.slots.take(is_demand=want.is_demand)  # or room would be made for more than can load
            self.promised_bytes += need_bytes
            self.is_anything_moving = True
            who = f"{', '.join(victims)} leaving" if victims else "unloads under way"
            return Admission(Verdict.WAIT, f"waits for {format_bytes(shortage)} of room from {who}", tuple(victims))
        figures = f"needs {format_bytes(need_bytes)}; {self.ledger.describe()}"
        if want.is_demand:
            self.is_waiting_for_leases = True
            return Admission(Verdict.WAIT_FOR_LEASES, f"waits for room, everything that could leave is held: {figures}")
        if self.is_anything_moving:
            self.is_waiting_for_leases = True
            return Admission(Verdict.WAIT, f"waits for room: {figures}")
        return Admission(Verdict.NO_ROOM, f"no room to load {want.name!r} in the background: {figures}")


def too_large(name: str, need_bytes: int, beside_bytes: int, limit_bytes: int | None) -> str | None:
    """Return why a model can never fit, with the figures, or ``None``."""
    if limit_bytes is None or need_bytes + beside_bytes <= limit_bytes:
        return None
    beside = f" beside {format_bytes(beside_bytes)} of pinned models and of what it depends on" if beside_bytes else ""
    return (
        f"model {name!r} needs {format_bytes(need_bytes)}{beside}, the limit of all models is "
        f"{format_bytes(limit_bytes)}: raise MODEL_MEMORY_LIMIT_MB or use a smaller model"
    )
