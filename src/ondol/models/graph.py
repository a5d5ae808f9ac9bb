"""decision: the dependency graph: circles, load order, what is missing, inherited urgency.

A graph maps each registered name to the names it depends on. Names that are depended on but not registered
are not keys of it. A graph of the other direction (name to those that depend on it) is walked the same way.
Every walk is iterative: a chain of thousands of models is as good as one of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Graph", "Urgency", "dependencies", "find_cycle", "inherit", "load_order", "missing"]

Graph = Mapping[str, Sequence[str]]


class Urgency(NamedTuple):
    """How urgently a model is wanted; the greater goes first.

    Attributes:
        relief_per_s: requests that wait for it per second that it takes to load.
    """

    is_demand: bool
    priority: int
    relief_per_s: float = 0.0


def find_cycle(graph: Graph, start: str, depends_on: Sequence[str]) -> list[str] | None:
    """Return the path of the circle that ``start`` would close by depending on ``depends_on``, or ``None``.

    >>> find_cycle({"b": ["c"], "c": ["a"]}, "a", ["b"])
    ['a', 'b', 'c', 'a']
    """
    path = [start]
    pending = [iter(depends_on)]
    seen = {start}
    while pending:
        name = next(pending[-1], None)
        if name is None:
            pending.pop()
            path.pop()
        elif name == start:
            return [*path, start]
        elif name not in seen:
            seen.add(name)
            path.append(name)
            pending.append(iter(graph.get(name, ())))
    return None


def load_order(graph: Graph, names: Iterable[str]) -> list[str]:
    """Return ``names`` and all they depend on, each after its dependencies; unregistered names included.

    The graph must be free of circles. Cost: O(nodes + edges reached).

    >>> load_order({"a": ["b", "c"], "b": ["c"], "c": []}, ["a"])
    ['c', 'b', 'a']
    """
    order: dict[str, None] = {}
    for root in names:
        if root in order:
            continue
        stack = [(root, iter(graph.get(root, ())))]
        while stack:
            name, rest = stack[-1]
            child = next((other for other in rest if other not in order), None)
            if child is None:
                order[name] = None
                stack.pop()
            else:
                stack.append((child, iter(graph.get(child, ()))))
    return list(order)


def dependencies(graph: Graph, name: str) -> list[str]:
    """Return all that ``name`` depends on, directly or not, in load order."""
    return load_order(graph, [name])[:-1] if graph.get(name) else []


def missing(graph: Graph, name: str) -> list[str]:
    """Return the dependencies of ``name``, direct or not, that are not registered."""
    return [other for other in dependencies(graph, name) if other not in graph]


def inherit(graph: Graph, asked: Mapping[str, Urgency]) -> dict[str, Urgency]:
    """Return the urgency of everything ``asked`` for and all it depends on.

    A dependency is as urgent as the most urgent that waits for it, and brings the most relief that one of them does.

    >>> inherit({"a": ["b"], "b": []}, {"a": Urgency(True, 8, 0.5), "b": Urgency(False, 9)})["b"]
    Urgency(is_demand=True, priority=8, relief_per_s=0.5)
    """
    urgencies: dict[str, Urgency] = {}
    for name, urgency in asked.items():
        for member in load_order(graph, [name]) if graph.get(name) else (name,):
            known = urgencies.get(member, urgency)
            relief_per_s = max(known.relief_per_s, urgency.relief_per_s)
            urgencies[member] = max(known, urgency)._replace(relief_per_s=relief_per_s)
    return urgencies
