"""decision: what a claim is answered with: a value, a lease to compute it under, or neither."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["UNAVAILABLE", "Claimed", "Lease", "LeaseOwner", "Sender"]


class LeaseOwner(Protocol):
    """Who keeps a lease alive on behalf of the one who computes; called from any thread."""

    def commit(self, frame: bytes, ttl_s: float | None, tags: tuple[str, ...], done: Callable[[bool], None]) -> None:
        """Store a value and end the lease; ``done`` learns whether it was kept."""
        ...

    def release(self) -> None:
        """End the lease without a value."""
        ...


class Lease:
    """The right, and the duty, to compute a value for all processes. It is extended until it is used or forgotten.

    Thread-safety: may be used from any thread, once; what comes after the first ``commit`` or ``release`` does nothing.
    A lease that is dropped without either is released.
    """

    __slots__ = ("__weakref__", "_owner")

    def __init__(self, owner: LeaseOwner) -> None:
        self._owner: LeaseOwner | None = owner

    def commit(
        self,
        frame: bytes,
        ttl_s: float | None,
        tags: Sequence[str] = (),
        done: Callable[[bool], None] | None = None,
    ) -> None:
        """Store the value, soon, and end the lease. It is refused when the key or a tag was invalidated meanwhile.

        ``done``, if given, is called in the tier's thread with whether the value was kept; it must not block.
        """
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.commit(frame, checked_ttl_s(ttl_s), tuple(tags), done or _ignore)

    def release(self) -> None:
        """End the lease without a value: another caller, here or in another process, computes."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.release()

    def __del__(self) -> None:
        self.release()


class Claimed(NamedTuple):
    """The answer to a claim: ``frame`` is the value, or ``lease`` the right to compute it, or both are ``None``.

    With neither, the store is not available: compute, there is nothing to commit.
    """

    frame: bytes | None = None
    lease: Lease | None = None


UNAVAILABLE = Claimed()


class Sender:
    """One process as the store knows it: the sender of its invalidations, and the source of its leases' tokens."""

    def __init__(self, name: str) -> None:
        """Be called ``name``: 16 characters that no other process has."""
        self.name = name
        self._count = 0

    def new_token(self) -> str:
        """Return a token that nobody has used."""
        self._count += 1
        return f"{self.name}{self._count:016x}"


def checked_ttl_s(ttl_s: float | None) -> float | None:
    """Return a time to live, ``None`` for ever."""
    return None if ttl_s is None or math.isinf(ttl_s) else ttl_s


def _ignore(_is_kept: bool) -> None:
    pass
