"""decision: what the cache asks of the stores behind its memory tier, and what it tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ondol.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Claim",
    "ClaimRequest",
    "FaultKind",
    "Invalidation",
    "LogGapError",
    "LogLine",
    "LogPage",
    "LogPosition",
    "Put",
    "SharedStore",
    "StoreFaultError",
]

FaultKind = Literal["connection", "timeout", "protocol", "loading", "readonly", "moved", "auth", "memory", "reply"]
"""Why a store did not do what it was asked; ``reply`` is any other error that it answered with."""


class StoreFaultError(StoreUnavailableError):
    """A store did not do what it was asked. It reaches no user of the cache: it is counted, and a miss."""

    def __init__(self, message: str, kind: FaultKind) -> None:
        """Keep the kind beside the message."""
        super().__init__(message)
        self.kind: FaultKind = kind


class LogGapError(LookupError):
    """A log does not tell everything since a position: what it told is lost, or it began a new life."""

    def __init__(self, message: str, *, is_rollback: bool) -> None:
        """Keep whether the store went back to an earlier state, so that its values may be outdated, too."""
        super().__init__(message)
        self.is_rollback = is_rollback


class Invalidation(NamedTuple):
    """What is not to be used any more: canonical keys, all entries with a tag, all that match a glob, or everything."""

    kind: Literal["keys", "tag", "pattern", "all"]
    values: tuple[str, ...] = ()


class LogPosition(NamedTuple):
    """A place in a store's log of invalidations; ``epoch`` tells one life of the log from the next."""

    epoch: str
    offset: str


class LogLine(NamedTuple):
    """One line of the log of invalidations: what another (or the same) process announced."""

    sender: str
    invalidation: Invalidation


class LogPage(NamedTuple):
    """What a log told since a position, and where to go on."""

    position: LogPosition
    lines: tuple[LogLine, ...] = ()
    woken: tuple[str, ...] = ()
    """Keys whose lease has ended, by a value or without one, while somebody waited for it."""


class ClaimRequest(NamedTuple):
    """Somebody who asks for a value in order to compute it when there is none."""

    key: str
    token: str
    """What the lease will be held under: 32 characters, never used twice."""


class Claim(NamedTuple):
    """What such a one gets."""

    frame: bytes | None
    """The value, when there is one."""
    is_granted: bool
    """Whether the caller holds the lease now and is to compute."""
    wait_s: float
    """Otherwise: how long the lease of whoever holds it lasts at most, in seconds."""
    stamp: int = 0
    """What was invalidated before this moment is known to the computation; goes into its ``Put``."""


class Put(NamedTuple):
    """One value to keep; with the ``token`` of a lease only while that lease is held, which it ends."""

    key: str
    frame: bytes
    ttl_s: float | None
    tags: tuple[str, ...] = ()
    token: str | None = None
    stamp: int = 0
    is_announced: bool = False
    """Whether other processes are told once it is kept, as they may hold an older value."""


class SharedStore(Protocol):
    """A store that several processes share: bytes by key, leases with fencing, and a log of invalidations.

    Every method raises ``StoreFaultError`` when the store cannot be reached, does not answer in time or answers
    with an error; where a result is a list, an item may be such an error instead. An operation that raised may have
    been done nevertheless. Belongs to one event loop at a time; several operations may be under way at once.

    Cancellation: leaves the store usable; whether the operation was done is not known.
    """

    @property
    def address(self) -> str:
        """Where the store is, without passwords."""
        ...

    async def open(self) -> None:
        """Connect anew. May be called again, after ``close`` or not, and then uses no earlier connection."""
        ...

    async def close(self) -> None:
        """Let go of all connections; does nothing when closed. Never raises ``StoreFaultError``."""
        ...

    async def ping(self) -> None:
        """Find out whether the store answers, and takes writes."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return one frame or ``None`` for each key, in one round trip (a node)."""
        ...

    async def claim_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[Claim | StoreFaultError]:
        """Return for each the value, or the lease under its token, or how long somebody else holds that."""
        ...

    async def put_many(self, puts: Sequence[Put]) -> list[bool | StoreFaultError]:
        """Keep values, for different keys.

        Without a token a value replaces what is there, and ends the lease of who computes it.

        Returns:
            Whether each was kept: with a token not when the lease went to another, or ran out, or when the key or
            one of the tags was invalidated since the claim.
        """
        ...

    async def extend_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[bool | StoreFaultError]:
        """Hold leases for ``lease_s`` from now; false for those that are not the token's any more."""
        ...

    async def release(self, key: str, token: str) -> None:
        """End the lease without a value, if it is still ``token``'s."""
        ...

    async def invalidate(self, invalidation: Invalidation, sender: str) -> int:
        """Drop what is meant and all leases that may lead to it, then write a line into the log.

        Returns:
            How many values went. From then on no value is found, or kept, whose computation began before the call.
        """
        ...

    async def announce(self, keys: Sequence[str], sender: str) -> int:
        """Write into the log that the values of ``keys`` are new, without dropping them; return how many they are."""
        ...

    async def position(self) -> LogPosition:
        """Return where the log ends now."""
        ...

    async def read_log(self, position: LogPosition, wait_s: float) -> LogPage:
        """Return what came after ``position``; when there is nothing yet, wait up to ``wait_s`` seconds for it.

        Raises:
            LogGapError: the log does not reach back to ``position`` or began a new life: lines may be lost.
        """
        ...
