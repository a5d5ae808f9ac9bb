"""decision: what the pool is handed from outside, and what its parts know of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ondol.models.entry import Entry, Resident

__all__ = ["Advisor", "EstimateStore", "Listener", "MemoryProbe", "Steering"]

MemoryProbe = Callable[[], int]
"""Returns the resident set size of this process in bytes."""

Listener = Callable[[str, str], None]
"""Takes ``(event, model name)``, must return at once, and ignores events that it does not know. Events:

- ``registered``: a specification was taken in.
- ``leased``: a request found the model ready and holds it now.
- ``asked``: a request begins to wait for the lease of a model that is not ready; nothing was loaded or evicted for it
  yet. A request that is not refused at once is announced once, as ``leased`` or as ``asked``, whatever becomes of it.
- ``loading``: a load begins, also one beside a copy that serves. It ends with ``ready`` or ``failed``; or with nothing
  when it is given up: its specification was replaced, it has outgrown its room and will begin again, the pool stops.
- ``ready``: a load has ended well; the model, or its new copy, may be leased.
- ``failed``: a load has not ended well, or cannot begin.
- ``leaving``: a model that was ready may not be leased any more: it is evicted, unloaded, idle for too long, stopped
  with the pool, or it crashed. Not said of an old copy whose place a new one has taken.
- ``unloaded``: it is out of memory. Not said of one that crashed.
- ``crashed``: the process of a ready model ended by itself; said after its ``leaving``.
- ``released``: a backoff or a quarantine was ended by hand.
- ``limit``: ``configure`` has changed the memory limit; the name is empty. Models that had to leave for it at once have
  been told of already.

``registered`` comes in the thread that registers, and so does ``limit`` from ``configure`` while the pool does not run;
the others come in the pool's event loop. What a listener changes in the
pool is looked at when all of its present turn is done."""


class Advisor(Protocol):
    """Knows better than the pool itself which models are worth keeping. Asked in the pool's event loop."""

    def coldest_first(self, now_s: float) -> Iterator[str]:
        """Return the names of the models in memory, the one least worth keeping first; ``now_s`` is monotonic.

        It is read no further than victims are needed, and closed then if it has a ``close`` (a generator has): time to
        put back what was taken out to find the next. What is not ready is skipped; ready models that are not named
        leave last. When it raises, the pool's own order of what it has not named yet is used.
        """
        ...


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
