"""decision: what the pool is handed from outside, and what its parts know of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ondol.models.entry import Entry, Resident

__all__ = ["EstimateStore", "Listener", "MemoryProbe", "Steering"]

MemoryProbe = Callable[[], int]
"""Returns the resident set size of this process in bytes."""

Listener = Callable[[str, str], None]
"""Takes ``(event, model name)``. Events: ``registered`` ``leased`` ``ready`` ``failed`` ``crashed`` ``released``
``unloaded``.

``registered`` comes in the thread that registers, the others in the pool's event loop. It must return at once."""


class EstimateStore(Protocol):
    """Where learnt sizes and load times outlive the process. Both methods may block for a moment."""

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, as plain data; ``None`` when there is nothing.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        ...

    def write(self, plain: dict[str, Any]) -> None:
        """Keep ``plain`` in place of what was there.

        Raises:
            OSError: it cannot be written.
        """
        ...


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

    def crashed(self, resident: Resident, error: BaseException) -> None:
        """Take note that the process of a loaded model ended by itself."""
        ...

    def make_way(self, name: str) -> None:
        """Let the copy that serves go before the new one comes: there is no room for two."""
        ...

    def ended(self) -> None:
        """Take note that a load or an unload is over: there may be room or a slot for another."""
        ...

    def torn_down(self) -> None:
        """Take note that a task was cancelled from outside: the loop ends, nothing new may begin."""
        ...
