"""adapter: what a Redis client raises, in ondol's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import exceptions

from ondol.cache.ports import StoreFaultError

if TYPE_CHECKING:
    from ondol.cache.ports import FaultKind

__all__ = ["fault_of"]

# The first that matches counts: several of these are subclasses of later ones.
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], FaultKind], ...] = (
    (exceptions.BusyLoadingError, "loading"),
    ((exceptions.AuthenticationError, exceptions.NoPermissionError), "auth"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.OutOfMemoryError, "memory"),
    ((exceptions.MovedError, exceptions.AskError, exceptions.ClusterDownError), "moved"),
    (exceptions.InvalidResponse, "protocol"),
    ((exceptions.TimeoutError, TimeoutError), "timeout"),
    ((exceptions.ConnectionError, exceptions.RedisClusterException, OSError, EOFError), "connection"),
    (exceptions.ResponseError, "reply"),
)
_WORDS: tuple[tuple[str, FaultKind], ...] = (
    ("OOM", "memory"),
    ("LOADING", "loading"),
    ("MASTERDOWN", "loading"),
    ("READONLY", "readonly"),
    ("MISCONF", "readonly"),
    ("NOREPLICAS", "readonly"),
    ("MOVED", "moved"),
    ("ASK ", "moved"),
    ("CLUSTERDOWN", "moved"),
    ("NOAUTH", "auth"),
    ("WRONGPASS", "auth"),
    ("NOPERM", "auth"),
)


def fault_of(exc: Exception) -> StoreFaultError:
    """Return the fault that ``exc`` stands for, with ``exc`` as its cause."""
    if isinstance(exc, StoreFaultError):
        return exc
    kind = _kind_of(exc)
    if kind == "connection" and isinstance(exc.__cause__, exceptions.RedisError):
        kind = _kind_of(exc.__cause__)  # what went wrong while the connection was made
    fault = StoreFaultError(f"Redis: {type(exc).__name__}: {exc}{_advice(kind)}", kind)
    fault.__cause__ = exc
    return fault


def _kind_of(exc: BaseException) -> FaultKind:
    # "protocol" is the rest: what a reader trips over in a reply that is none.
    kind: FaultKind = next((kind for types, kind in _KINDS if isinstance(exc, types)), "protocol")
    if kind != "reply":
        return kind
    # Errors raised inside a script carry the server's word further inside.
    return next((kind for word, kind in _WORDS if word in str(exc)[:200]), "reply")


def _advice(kind: FaultKind) -> str:
    if kind == "moved":
        return " (a cluster's address begins with redis+cluster:// or rediss+cluster://)"
    return ""
