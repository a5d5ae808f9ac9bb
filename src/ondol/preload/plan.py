"""decision: what to load next ahead of use, what does not fit, and what cannot be loaded and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Plan", "Prospect", "Wish", "plan_loads"]


class Wish(NamedTuple):
    """A model that is wanted ahead of use. ``worth`` is what a byte of it saves, ``position`` its place in line."""

    name: str
    priority: int
    worth: float
    position: int


class Prospect(NamedTuple):
    """What is known of a registered model. ``size_bytes`` is 0 when nobody knows."""

    depends_on: Sequence[str]
    is_ready: bool = False
    size_bytes: int = 0


class Plan(NamedTuple):
    """What comes next.

    Attributes:
        loads: may start now, best first: everything they depend on is ready.
        waiting: come later, best first, once what they depend on is ready.
        blocked: wanted, with the dependencies (or the model itself) that nobody registered or whose preload failed.
        left_out: wanted, but there is no room for them beside what is worth more; each with the figures in words.
    """

    loads: tuple[str, ...]
    waiting: tuple[str, ...]
    blocked: dict[str, list[str]]
    left_out: dict[str, str]


def plan_loads(
    wishes: Sequence[Wish],
    known: Mapping[str, Prospect],
    *,
    failed: Collection[str],
    loading: Collection[str],
    room_bytes: int | None = None,
    idle: Collection[tuple[int, int]] = (),
) -> Plan:
    """Return the plan for ``wishes``.

    Dependencies go first. Then priority decides, then learned worth, then the order of the wishes; a dependency
    inherits all of these from the most urgent wish that waits for it. When not all fit, those are left out that do
    not fit beside the more urgent ones; a smaller one behind them may still do.

    Args:
        wishes: what is wanted and was not tried yet.
        known: the registered models among them and all they depend on.
        failed: models whose preload failed; they are not tried again, nor what depends on them.
        loading: being loaded ahead of use now; their bytes are taken already.
        room_bytes: what may be taken without anybody leaving; ``None`` without a bound.
        idle: priority and bytes of each model that may leave for one of a higher priority.
    """
    urgency: dict[str, tuple[int, float, int]] = {}
    blocked: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    taken: set[str] = set(loading)
    for wish in sorted(wishes, key=_urgency, reverse=True):
        members = _members(wish.name, known)
        obstacles = [name for name in members if name not in known or name in failed]
        if obstacles:
            blocked[wish.name] = obstacles
            continue
        if room_bytes is not None:
            needed_bytes = sum(known[name].size_bytes for name in members if name not in taken)
            leaving_bytes = sum(size_bytes for priority, size_bytes in idle if priority < wish.priority)
            if needed_bytes > room_bytes + leaving_bytes:
                there = f"{format_bytes(max(0, room_bytes))} of room"
                there += f" and {format_bytes(leaving_bytes)} of idle models of lower priority" * bool(leaving_bytes)
                left_out[wish.name] = f"needs {format_bytes(needed_bytes)}, there is {there} beside what is worth more"
                continue
            room_bytes -= needed_bytes
        taken.update(members)
        for name in members:
            urgency[name] = max(_urgency(wish), urgency.get(name, _urgency(wish)))
    order = sorted((name for name in urgency if name not in loading), key=lambda name: urgency[name], reverse=True)
    is_startable = {name: all(known[other].is_ready for other in known[name].depends_on) for name in order}
    return Plan(
        tuple(name for name in order if is_startable[name]),
        tuple(name for name in order if not is_startable[name]),
        blocked,
        left_out,
    )


def _urgency(wish: Wish) -> tuple[int, float, int]:
    return wish.priority, wish.worth, -wish.position


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
