"""decision: what tuning needs of the other rooms."""

from __future__ import annotations

from typing import Protocol

__all__ = ["PausableLoads", "ResizableCache"]


class ResizableCache(Protocol):
    """A cache with a bound in bytes that can be moved while it works."""

    @property
    def max_bytes(self) -> int:
        """The bound now."""
        ...

    @property
    def used_bytes(self) -> int:
        """What the entries take."""
        ...

    def resize(self, max_bytes: int) -> None:
        """Move the bound; entries beyond it leave at once."""
        ...


class PausableLoads(Protocol):
    """Background loads that can be held back."""

    @property
    def is_paused(self) -> bool:
        """Whether they are held back, by whomever."""
        ...

    def pause(self, reason: str) -> None:
        """Begin no further load."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...
