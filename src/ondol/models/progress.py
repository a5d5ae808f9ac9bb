"""decision: how far a load is, and when a model will be ready, by what is learnt of load times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.models.graph import load_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.graph import Graph

__all__ = ["eta_s", "progress", "remaining_s"]

_NEVER_FULL = 0.99


def progress(elapsed_s: float, expected_s: float | None) -> float | None:
    """Return 0 to 1; a load that takes longer than expected stays just below 1. ``None`` when nothing is expected.

    >>> progress(1.0, 4.0), progress(9.0, 4.0), progress(1.0, None)
    (0.25, 0.99, None)
    """
    if expected_s is None:
        return None
    return min(elapsed_s / expected_s, _NEVER_FULL) if expected_s > 0 else _NEVER_FULL


def remaining_s(elapsed_s: float, expected_s: float | None) -> float | None:
    """Return the seconds a load will still take; ``None`` when nobody can tell, as when it is overdue.

    >>> remaining_s(1.0, 4.0), remaining_s(5.0, 4.0)
    (3.0, None)
    """
    if expected_s is None or elapsed_s > expected_s:
        return None
    return expected_s - elapsed_s


def eta_s(graph: Graph, name: str, own_s: Callable[[str], float | None]) -> float | None:
    """Return when ``name`` will be ready: the longest way through what it depends on.

    Loads that wait for a slot or for room take longer than that; how much longer nobody knows.

    Args:
        graph: who depends on whom.
        name: a registered model.
        own_s: the seconds a model itself still needs (0 when it is ready), ``None`` when that is not known.
    """
    ready_at_s: dict[str, float] = {}
    for member in load_order(graph, [name]):
        own = own_s(member)
        if own is None:
            return None
        begin_s = max((ready_at_s[other] for other in graph.get(member, ())), default=0.0)
        ready_at_s[member] = begin_s + own
    return ready_at_s[name]
