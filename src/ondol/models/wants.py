"""service: what a run of the pool has been asked for and has not delivered yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.models.graph import Urgency, inherit, load_order
from ondol.models.queue import Want

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ondol.models.registry import Registry

__all__ = ["AGEING_S", "Wants"]

AGEING_S: Final = 10.0
"""Each ten seconds of waiting count like one step of priority, so that nothing waits for ever."""


class Wants:
    """The models that are wanted, since when, and whether to be loaded anew beside a copy that serves."""

    def __init__(self, registry: Registry, has_demand: Callable[[str], bool]) -> None:
        """Begin with none; ``has_demand`` tells whether a request waits for a model."""
        self._registry = registry
        self._has_demand = has_demand
        self._asked: dict[str, float] = {}
        self._anew: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._asked

    def ask(self, name: str, now_s: float, *, is_anew: bool = False) -> None:
        """Want a model; the first to ask decides how long it has been waited for."""
        self._asked.setdefault(name, now_s)
        if is_anew:
            self._anew.add(name)

    def covers(self, name: str) -> bool:
        """Tell whether ``name`` is wanted, or needed by something that is."""
        return name in self._asked or name in load_order(self._registry.graph, self._asked)

    def is_anew(self, name: str) -> bool:
        """Tell whether it is to be loaded although it is ready."""
        return name in self._anew

    def no_longer_anew(self, name: str) -> None:
        """Want it like any other: the copy that served goes first."""
        self._anew.discard(name)

    def drop(self, name: str) -> None:
        """Want it no more: it was delivered, or given up."""
        self._asked.pop(name, None)
        self._anew.discard(name)

    def clear(self) -> None:
        """Want nothing more."""
        self._asked.clear()
        self._anew.clear()

    def to_load(self, ready: Collection[str], loading: Collection[str]) -> list[Want]:
        """Return what is to be loaded, dependencies included, each as urgent as the most urgent that waits for it."""
        entries = self._registry.entries
        now_s = self._registry.clock.monotonic()
        asked = {
            name: Urgency(self._has_demand(name), entries[name].spec.priority + int((now_s - asked_s) / AGEING_S))
            for name, asked_s in self._asked.items()
        }
        return [
            Want(name, urgency.is_demand, urgency.priority, entries[name].index)
            for name, urgency in inherit(self._registry.graph, asked).items()
            if name in entries and name not in loading and (name not in ready or name in self._anew)
        ]
