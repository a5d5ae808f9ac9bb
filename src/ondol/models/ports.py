"""decision: what the pool is handed from outside, and what its parts know of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ondol.models.entry import Entry, Resident

__all__ = ["Listener", "MemoryProbe", "Steering"]

MemoryProbe = Callable[[], int]
"""Returns the resident set size of this process in bytes."""

Listener = Callable[[str, str], None]
"""Takes ``(event, model name)``. Events: ``registered`` ``leased`` ``ready`` ``failed`` ``unloaded``.

``registered`` comes in the thread that registers, the others in the pool's event loop. It must return at once."""


class Steering(Protocol):
    """What loads and unloads report to: the run they belong to."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing new may begin."""
        ...

    def became_ready(self, entry: Entry, resident: Resident) -> None:
        """Take note that a model is in memory and may be leased."""
        ...

    def failed(self, entry: Entry, error: BaseException, *, cause: BaseException | None = None) -> None:
        """Take note that a load failed."""
        ...

    def ended(self) -> None:
        """Take note that a load or an unload is over: there may be room or a slot for another."""
        ...

    def torn_down(self) -> None:
        """Take note that a task was cancelled from outside: the loop ends, nothing new may begin."""
        ...
