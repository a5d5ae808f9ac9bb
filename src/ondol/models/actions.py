"""decision: what may be asked of a model, what can be seen of it while it is done, and what that needs of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from ondol.models.status import ModelStatus

__all__ = ["ACTIONS", "Action", "Controllable", "Operation"]

Action = Literal["load", "unload", "pin", "unpin", "reload", "release"]
ACTIONS: Final[tuple[Action, ...]] = ("load", "unload", "pin", "unpin", "reload", "release")


class Controllable(Protocol):
    """What operations need of the pool; :class:`ondol.models.ModelPool` has it."""

    def status(self, name: str) -> ModelStatus:
        """Return what can be seen of one model."""
        ...

    async def load(self, name: str) -> None:
        """Return when it is ready."""
        ...

    async def unload(self, name: str) -> bool:
        """Return when it is unloaded; whether there was anything to unload."""
        ...

    async def reload(self, name: str) -> None:
        """Return when a new copy took the place of the one loaded."""
        ...

    def pin(self, name: str) -> None:
        """Never evict it from now on."""
        ...

    def unpin(self, name: str) -> None:
        """Let it be evicted again."""
        ...

    def release(self, name: str) -> bool:
        """End its backoff or quarantine; return whether it was in one."""
        ...


class Operation(NamedTuple):
    """What can be seen of one action on one model.

    Attributes:
        progress: 0 to 1, by learnt load times; 1 when it succeeded, ``None`` when nobody can tell.
        eta_s: seconds until it ends, by the same.
        detail: what the model is doing while it runs: its state and the reason.
        error: what went wrong, when it failed.
        error_type: the class of that error.
        created_at: seconds since 1970.
        ended_at: the same.
    """

    id: str
    model: str
    action: Action
    status: Literal["running", "succeeded", "failed"]
    progress: float | None
    eta_s: float | None
    detail: str
    error: str | None
    error_type: str | None
    created_at: float
    ended_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data for JSON."""
        return self._asdict()
