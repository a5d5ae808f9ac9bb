"""decision: what to load next ahead of use, and what cannot be loaded and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Plan", "Prospect", "Wish", "plan_loads"]


class Wish(NamedTuple):
    """A model that is wanted ahead of use. ``rate`` is its learned use, ``position`` its place in line."""

    name: str
    priority: int
    rate: float
    position: int


class Prospect(NamedTuple):
    """What is known of a registered model."""

    depends_on: Sequence[str]
    is_ready: bool = False


class Plan(NamedTuple):
    """What comes next.

    Attributes:
        loads: may start now, best first: everything they depend on is ready.
        waiting: come later, best first, once what they depend on is ready.
        blocked: wanted, with the dependencies (or the model itself) that nobody registered or whose preload failed.
    """

    loads: tuple[str, ...]
    waiting: tuple[str, ...]
    blocked: dict[str, list[str]]


def plan_loads(
    wishes: Sequence[Wish], known: Mapping[str, Prospect], *, failed: Collection[str], loading: Collection[str]
) -> Plan:
    """Return the plan for ``wishes``.

    Dependencies go first. Then priority decides, then learned use, then the order of the wishes; a dependency
    inherits all of these from the most urgent wish that waits for it.

    Args:
        wishes: what is wanted and was not tried yet.
        known: the registered models among them and all they depend on.
        failed: models whose preload failed; they are not tried again, nor what depends on them.
        loading: being loaded ahead of use now.
    """
    urgency: dict[str, tuple[int, float, int]] = {}
    blocked: dict[str, list[str]] = {}
    for wish in wishes:
        members = _members(wish.name, known)
        obstacles = [name for name in members if name not in known or name in failed]
        if obstacles:
            blocked[wish.name] = obstacles
            continue
        own = (wish.priority, wish.rate, -wish.position)
        for name in members:
            urgency[name] = max(own, urgency.get(name, own))
    order = sorted((name for name in urgency if name not in loading), key=lambda name: urgency[name], reverse=True)
    is_startable = {name: all(known[other].is_ready for other in known[name].depends_on) for name in order}
    return Plan(
        tuple(name for name in order if is_startable[name]),
        tuple(name for name in order if not is_startable[name]),
        blocked,
    )


def _members(name: str, known: Mapping[str, Prospect]) -> list[str]:
    """Return ``name`` and what it depends on, as far as it is not ready."""
    found: dict[str, None] = {}
    rest = [name]
    while rest:
        member = rest.pop()
        prospect = known.get(member)
        if member in found or (prospect is not None and prospect.is_ready):
            continue
        found[member] = None
        rest.extend(prospect.depends_on if prospect is not None else ())
    return list(found)
