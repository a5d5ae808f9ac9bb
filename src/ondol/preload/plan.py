"""decision: what to load next ahead of use, what does not fit, and what cannot be loaded and why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, KeysView, Sequence

__all__ = ["Known", "LeftOut", "Plan", "Prospect", "Room", "Shortage", "Wish", "find_hopeless", "plan_loads"]


class Wish(NamedTuple):
    """A model that is wanted ahead of use. ``worth`` is what a byte of it saves, ``position`` its place in line."""

    name: str
    priority: int
    worth: float
    position: int


class Known(Protocol):
    """What is known of a registered model. ``size_bytes`` is 0 when nobody knows."""

    @property
    def depends_on(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def is_ready(self) -> bool: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102


class Prospect(NamedTuple):
    """The least that there is of ``Known``."""

    depends_on: Sequence[str]
    is_ready: bool = False
    size_bytes: int = 0


class Room:
    """What may be taken: the free bytes, and those of the idle models of a lower priority, which may leave."""

    __slots__ = ("_idle_bytes", "free_bytes", "leaving")

    def __init__(self, free_bytes: int, idle_bytes: Mapping[int, int]) -> None:
        """Take in what is free, and what is idle by priority."""
        self.free_bytes = free_bytes
        self._idle_bytes = idle_bytes
        self.leaving: dict[int, int] = {}
        """What ``leaving_bytes`` has found."""

    def leaving_bytes(self, priority: int) -> int:
        """Return what may leave for a model of this ``priority``."""
        if priority not in self.leaving:
            lower = (size_bytes for other, size_bytes in self._idle_bytes.items() if other < priority)
            self.leaving[priority] = sum(lower)
        return self.leaving[priority]


class Shortage(NamedTuple):
    """The figures of a model that does not fit."""

    needed_bytes: int
    free_bytes: int
    leaving_bytes: int


class LeftOut(Mapping[str, str]):
    """The models that do not fit, each with the figures in words: they are made when they are read."""

    __slots__ = ("_shortages",)

    def __init__(self, shortages: Mapping[str, Shortage]) -> None:
        """Hold the figures."""
        self._shortages = shortages

    def __getitem__(self, name: str) -> str:
        """Return the figures of one model in words."""
        return _in_words(self._shortages[name])

    def __contains__(self, name: object) -> bool:
        """Tell whether a model is left out."""
        return name in self._shortages

    def keys(self) -> KeysView[str]:
        """Return the names, as a view whose set operations are fast."""
        return self._shortages.keys()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._shortages)

    def __len__(self) -> int:
        """Return how many are left out."""
        return len(self._shortages)


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
    left_out: Mapping[str, str]


def find_hopeless(
    wishes: Iterable[tuple[str, int]],
    known: Mapping[str, Known],
    *,
    failed: Collection[str],
    loading: Collection[str],
    room: Room,
) -> dict[str, Shortage]:
    """Return those of ``wishes`` (name and priority) that do not fit even if nothing else is loaded.

    Whatever goes before them takes at least as much of the room as it spares them, so nobody needs to know what they
    are worth. Those that are blocked are not among them.
    """
    hopeless: dict[str, Shortage] = {}
    alike: dict[tuple[int, int, int], Shortage] = {}
    free_bytes, leaving = room.free_bytes, room.leaving
    for name, priority in wishes:
        prospect = known.get(name)
        if prospect is None:
            continue
        needed_bytes = 0 if name in loading else prospect.size_bytes
        if prospect.depends_on:
            members = _members(name, known)
            if any(member not in known or member in failed for member in members):
                continue
            needed_bytes = _needed_bytes(members, known, loading)
        if needed_bytes > free_bytes:
            leaving_bytes = leaving.get(priority)
            if leaving_bytes is None:
                leaving_bytes = room.leaving_bytes(priority)
            if needed_bytes > free_bytes + leaving_bytes:
                figures = needed_bytes, free_bytes, leaving_bytes
                hopeless[name] = alike.get(figures) or alike.setdefault(figures, Shortage(*figures))
    return hopeless


def plan_loads(
    wishes: Iterable[Wish],
    known: Mapping[str, Known],
    *,
    failed: Collection[str],
    loading: Collection[str],
    room: Room | None = None,
    hopeless: Mapping[str, Shortage] | None = None,
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
        room: what may be taken; ``None`` is without a bound.
        hopeless: wanted too, but ``find_hopeless`` has found that they do not fit.
    """
    urgency: dict[str, tuple[int, float, int]] = {}
    blocked: dict[str, list[str]] = {}
    left_out: dict[str, Shortage] = {}
    taken: set[str] = set(loading)
    free_bytes = 0 if room is None else room.free_bytes
    for wish in sorted(wishes, key=_urgency, reverse=True):
        members = _members(wish.name, known)
        obstacles = [name for name in members if name not in known or name in failed]
        if obstacles:
            blocked[wish.name] = obstacles
            continue
        if room is not None:
            needed_bytes = _needed_bytes(members, known, taken)
            leaving_bytes = room.leaving_bytes(wish.priority)
            if needed_bytes > free_bytes + leaving_bytes:
                left_out[wish.name] = Shortage(needed_bytes, free_bytes, leaving_bytes)
                continue
            free_bytes -= needed_bytes
        taken.update(members)
        for name in members:
            urgency[name] = max(_urgency(wish), urgency.get(name, _urgency(wish)))
    left_out.update(hopeless or {})
    for name in taken:  # by a wish before or after it, or being loaded: it comes, even if it had no room of its own
        left_out.pop(name, None)
    order = sorted((name for name in urgency if name not in loading), key=lambda name: urgency[name], reverse=True)
    is_startable = {name: all(known[other].is_ready for other in known[name].depends_on) for name in order}
    return Plan(
        tuple(name for name in order if is_startable[name]),
        tuple(name for name in order if not is_startable[name]),
        blocked,
        LeftOut(left_out),
    )


@lru_cache(maxsize=4096)  # whoever watches reads the words again and again
def _in_words(shortage: Shortage) -> str:
    there = f"{format_bytes(max(0, shortage.free_bytes))} of room"
    leaving = f" and {format_bytes(shortage.leaving_bytes)} of idle models of lower priority"
    there += leaving * bool(shortage.leaving_bytes)
    return f"needs {format_bytes(shortage.needed_bytes)}, there is {there} beside what is worth more"


def _urgency(wish: Wish) -> tuple[int, float, int]:
    return wish.priority, wish.worth, -wish.position


def _needed_bytes(members: Iterable[str], known: Mapping[str, Known], taken: Collection[str]) -> int:
    return sum(known[name].size_bytes for name in members if name not in taken)


def _members(name: str, known: Mapping[str, Known]) -> list[str]:
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
