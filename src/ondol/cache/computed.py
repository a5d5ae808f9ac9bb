"""decision: what a computation gave, under what terms it is kept, and errors that are kept as answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.cache.lifetime import DEFAULT_LIFETIME, Lifetime

if TYPE_CHECKING:
    from ondol.cache.lifetime import Timing

__all__ = ["DEFAULT_TERMS", "Computed", "KeptError", "Terms"]


class Terms(NamedTuple):
    """How long a result lives, what it can be dropped by, which errors are kept too, and where it is kept."""

    lifetime: Lifetime = DEFAULT_LIFETIME
    tags: tuple[str, ...] = ()
    negative_ttl_s: float | None = None
    """How long an error is given again without computing; ``None``: not at all."""
    negative_errors: tuple[type[Exception], ...] = (Exception,)
    is_local: bool = False
    """Whether it stays in this process's memory, out of the tiers below."""


class KeptError:
    """An error that stands in the cache in place of a value, and is raised by those who ask for it to be computed."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error.with_traceback(None)  # whose frames would keep alive what the computation held

    def again(self) -> Exception:
        """Return the error for the next caller, without the frames of the last one."""
        return self.error.with_traceback(None)


class Computed(NamedTuple):
    """A result and all that is needed to keep it."""

    value: Any
    cost_s: float
    size_bytes: int
    timing: Timing | None = None
    tags: tuple[str, ...] = ()
    frame: bytes | None = None
    """As the tiers below keep it; ``None`` when it does not go there."""
    ttl_s: float | None = None
    """For how long the tiers below keep it."""
    origin: str | None = None
    """The tier below that it came from."""
    is_unencodable: bool = False
    """Whether it would go into the tiers below and cannot."""
    lease: Any = None
    """The right to publish it, where a shared tier gave one."""


DEFAULT_TERMS: Final = Terms()
