"""service: what a run of the pool has been asked for and has not delivered yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.models.graph import Urgency, inherit, load_order
from ondol.models.queue import Displacing, Want
from ondol.models.spec import MIN_PRIORITY
from ondol.models.worth import believed_load_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ondol.models.registry import Registry

__all__ = ["AGEING_S", "Wants"]

AGEING_S: Final = 60.0
"""Each minute of waiting counts like one step of priority, so that nothing waits for ever.

A step is to be longer than what many models take to load. With ten seconds the age decided nearly everything as soon as
a few loads waited for each other: it was first come first served, the order that makes requests wait longest.
"""
_BY_PRIORITY: Final = Displacing()


class Wants:
    """The models that are wanted: since when, what each may displace, and whether beside a copy that serves."""

    def __init__(self, registry: Registry, count_demand: Callable[[str], int]) -> None:
        """Begin with none; ``count_demand`` tells how many requests wait for a model."""
        self._registry = registry
        self._count_demand = count_demand
        self._asked: dict[str, float] = {}
        self._anew: set[str] = set()
        self._displacing: dict[str, Displacing] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._asked

    def ask(self, name: str, now_s: float, *, is_anew: bool = False, displacing: Displacing = _BY_PRIORITY) -> None:
        """Want a model; the first to ask decides how long it has been waited for.

        Args:
            name: of the model.
            now_s: monotonic.
            is_anew: load it although it is ready.
            displacing: what it may displace, besides what earlier ones who asked have allowed.
        """
        self._asked.setdefault(name, now_s)
        if is_anew:
            self._anew.add(name)
        self._displacing[name] = self._displacing.get(name, displacing).joined(displacing)

    def may_displace(self, name: str, displacing: Displacing) -> bool:
        """Tell whether ``displacing`` allows nothing that a model was not wanted with already."""
        return self._displacing.get(name, _BY_PRIORITY).covers(displacing)

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
        self._displacing.pop(name, None)

    def clear(self) -> None:
        """Want nothing more."""
        self._asked.clear()
        self._anew.clear()
        self._displacing.clear()

    def to_load(self, ready: Collection[str], loading: Collection[str]) -> list[Want]:
        """Return what is to be loaded, dependencies included, each as urgent as the most urgent that waits for it."""
        entries = self._registry.entries
        displacing = self._with_dependencies()
        return [
            Want(name, *urgency[:2], entries[name].index, urgency.relief_per_s, *displacing.get(name, ()))
            for name, urgency in inherit(self._registry.graph, self._urgencies()).items()
            if name in entries and name not in loading and (name not in ready or name in self._anew)
        ]

    def loading(self, name: str) -> Want:
        """Return the want that a load under way is for; one that may displace nothing when nobody wants it any more."""
        wants = (want for want in self.to_load((), ()) if want.name == name)
        return next(wants, Want(name, is_demand=False, priority=MIN_PRIORITY, position=0))

    def _urgencies(self) -> dict[str, Urgency]:
        now_s = self._registry.clock.monotonic()
        urgencies = {}
        for name, asked_s in self._asked.items():
            entry = self._registry.entries[name]
            waiting = self._count_demand(name)
            priority = entry.spec.priority + int((now_s - asked_s) / AGEING_S)
            urgencies[name] = Urgency(waiting > 0, priority, _relief_per_s(waiting, entry.expected_seconds))
        return urgencies

    def _with_dependencies(self) -> dict[str, tuple[frozenset[str], int]]:
        """Return what may go, and below which priority, for what is wanted in the background, dependencies included."""
        graph, entries = self._registry.graph, self._registry.entries
        found: dict[str, tuple[frozenset[str], int]] = {}
        for name, displacing in self._displacing.items():
            if self._count_demand(name):
                continue  # it may displace anything
            below = MIN_PRIORITY if displacing.is_only else entries[name].spec.priority
            for member in load_order(graph, [name]) if graph.get(name) else (name,):
                names, known = found.get(member, (displacing.names, below))
                found[member] = names | displacing.names, max(known, below)
        return found


def _relief_per_s(waiting: int, load_seconds: float | None) -> float:
    """Return it in two digits: load times are measured, and where they differ by less the registration decides."""
    return float(f"{waiting / believed_load_s(load_seconds):.2g}")
