"""decision: the byte ledger of loaded models, and who leaves when room is needed.

Every model's bytes pass through three phases: *reserved* (expected, while it loads), *resident* (measured) and
*leaving* (its unload runs; the bytes count until it is done). All three count against the limit.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ondol.errors import ModelBudgetError
from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

__all__ = ["Candidate", "Ledger", "Phase", "by_worth", "choose_victims", "judge_size"]


class Phase(Enum):
    """Where a model's bytes are."""

    RESERVED = "reserved"
    RESIDENT = "resident"
    LEAVING = "leaving"


class Ledger:
    """Bytes of models against a limit; ``None`` is no limit.

    It never books more than the limit. Only lowering the limit can leave it with ``excess_bytes``, until enough
    models have left.
    """

    __slots__ = ("_accounts", "_limit_bytes", "_totals")

    def __init__(self, limit_bytes: int | None = None) -> None:
        """Begin empty."""
        self._accounts: dict[str, tuple[int, Phase]] = {}
        self._totals = dict.fromkeys(Phase, 0)
        self._limit_bytes = limit_bytes

    @property
    def limit_bytes(self) -> int | None:
        """The bound of all bytes together."""
        return self._limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes

    @property
    def used_bytes(self) -> int:
        """Reserved, resident and leaving bytes together."""
        return sum(self._totals.values())

    @property
    def leaving_bytes(self) -> int:
        """Bytes that unloads under way will free."""
        return self._totals[Phase.LEAVING]

    @property
    def free_bytes(self) -> int | None:
        """What may still be booked; ``None`` is without limit."""
        return None if self._limit_bytes is None else max(0, self._limit_bytes - self.used_bytes)

    @property
    def excess_bytes(self) -> int:
        """What is booked beyond a limit that was lowered; else 0."""
        return 0 if self._limit_bytes is None else max(0, self.used_bytes - self._limit_bytes)

    def shortage(self, extra_bytes: int) -> int:
        """Return how many bytes are missing to book ``extra_bytes`` more; 0 when they fit.

        Nothing more always fits, also into a limit that was lowered below what is booked.
        """
        if self._limit_bytes is None or extra_bytes <= 0:
            return 0
        return max(0, self.used_bytes + extra_bytes - self._limit_bytes)

    def phase(self, name: str) -> Phase | None:
        """Return the phase of a model's bytes, or ``None`` when it has none booked."""
        account = self._accounts.get(name)
        return account[1] if account else None

    def size(self, name: str) -> int:
        """Return the bytes booked for a model."""
        account = self._accounts.get(name)
        return account[0] if account else 0

    def reserve(self, name: str, size_bytes: int) -> None:
        """Book the expected bytes of a load that begins.

        Raises:
            ModelBudgetError: they do not fit, or the model is booked already.
        """
        if name in self._accounts or self.shortage(size_bytes) or size_bytes < 0:
            raise ModelBudgetError(f"cannot book {format_bytes(size_bytes)} for model {name!r}: {self.describe()}")
        self._book(name, size_bytes, Phase.RESERVED)

    def settle(self, name: str, size_bytes: int) -> bool:
        """Replace a reservation by the measured bytes; ``False`` (and nothing changed) when they do not fit."""
        if self.shortage(size_bytes - self.size(name)):
            return False
        self.release(name)
        self._book(name, size_bytes, Phase.RESIDENT)
        return True

    def leave(self, name: str) -> None:
        """Count a model's bytes as leaving: its unload has begun."""
        size_bytes = self.size(name)
        self.release(name)
        self._book(name, size_bytes, Phase.LEAVING)

    def release(self, name: str) -> None:
        """Forget a model's bytes: they are free."""
        size_bytes, phase = self._accounts.pop(name, (0, Phase.RESERVED))
        self._totals[phase] -= size_bytes

    def clear(self) -> None:
        """Forget everything that is booked."""
        self._accounts.clear()
        self._totals = dict.fromkeys(Phase, 0)

    def describe(self) -> str:
        """Return the figures in words."""
        limit = "no limit" if self._limit_bytes is None else f"limit {format_bytes(self._limit_bytes)}"
        reserved, resident, leaving = (format_bytes(self._totals[phase]) for phase in Phase)
        return f"{limit}; loaded {resident}, reserved {reserved}, leaving {leaving}"

    def _book(self, name: str, size_bytes: int, phase: Phase) -> None:
        self._accounts[name] = (size_bytes, phase)
        self._totals[phase] += size_bytes


class Candidate(NamedTuple):
    """A ready model that might leave.

    Attributes:
        worth: what keeping a byte of it saves; the least goes first.
        used_at_s: of its last use; decides between equal worths.
        is_held: leased, pinned, or needed by something that must not wait for it.
        dependents: loaded models that depend on it; it can only leave together with them.
        is_promised: somebody was promised that it stays; only what a request waits for may displace it.
    """

    name: str
    size_bytes: int
    worth: float
    used_at_s: float = 0.0
    priority: int = 5
    is_held: bool = False
    dependents: frozenset[str] = frozenset()
    is_promised: bool = False


def _worth(candidate: Candidate) -> tuple[float, float]:
    return candidate.worth, candidate.used_at_s


def by_worth(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return them in the order in which they go: worth least first, of equals the one not used for longest."""
    return sorted(candidates, key=_worth)


def choose_victims(
    candidates: Iterable[Candidate],
    needed_bytes: int,
    *,
    may_go: Callable[[Candidate], bool] = lambda _candidate: True,
    gone: Collection[str] = (),
    is_partial: bool = False,
) -> list[str]:
    """Return who leaves to free ``needed_bytes``, dependents before what they depend on.

    Those that come first go first; a model whose going turns out not to be needed stays.

    Args:
        candidates: all ready models in the order of ``by_worth``; read only as far as needed, then closed if it is a
            generator.
        needed_bytes: how much is missing.
        may_go: tells of one that is not held whether it may go for this (a background load displaces nothing better).
        gone: models that leave anyway; their bytes are not in what is missing.
        is_partial: return what helps even when it is not enough.

    Returns:
        Names; empty when room cannot be made (or none is needed).

    Cost: what is taken of ``candidates``, and what of it waits for dependents again for each that goes.
    """
    ranked = iter(candidates)
    try:
        chosen, freed = _first_free(ranked, needed_bytes, may_go, gone)
    finally:
        if isinstance(ranked, Generator):
            ranked.close()
    if freed < needed_bytes:
        return [candidate.name for candidate in chosen] if is_partial else []
    return _without_needless(chosen, freed - needed_bytes)


def _first_free(
    ranked: Iterator[Candidate], needed_bytes: int, may_go: Callable[[Candidate], bool], gone: Collection[str]
) -> tuple[list[Candidate], int]:
    """Return the first that are free to go, as many as it takes or as there are, and the bytes they free."""
    chosen: list[Candidate] = []
    held_up: list[Candidate] = []
    left = set(gone)
    freed = 0
    while freed < needed_bytes:
        victim = next((candidate for candidate in held_up if candidate.dependents <= left), None)
        if victim is not None:
            held_up.remove(victim)
        else:
            victim = next(ranked, None)
            if victim is None:
                break
            if victim.is_held or victim.name in left or not may_go(victim):
                continue
            if not victim.dependents <= left:
                held_up.append(victim)
                continue
        chosen.append(victim)
        left.add(victim.name)
        freed += victim.size_bytes
    return chosen, freed


def _without_needless(chosen: Sequence[Candidate], spare_bytes: int) -> list[str]:
    """Keep those out of the chosen whose bytes are spare, the worthiest first."""
    going = {candidate.name: candidate for candidate in chosen}
    worthiest_first = sorted(chosen, key=_worth, reverse=True)
    while True:
        needed_gone = {name for other in going.values() for name in other.dependents}
        removable = (c for c in worthiest_first if c.name in going and c.name not in needed_gone)
        spared = next((c for c in removable if c.size_bytes <= spare_bytes), None)
        if spared is None:
            break
        spare_bytes -= spared.size_bytes
        del going[spared.name]  # what left only for its sake may stay now too: look again
    return list(going)


def judge_size(
    growth_bytes: int | None, expected_bytes: int, *, has_unloaded: bool, stated_bytes: int | None = None
) -> int:
    """Return the bytes to book for a model that is loaded.

    Args:
        growth_bytes: how much the process grew by the load, or ``None`` when it cannot be told (no probe, or other
            loads ran at the same time).
        expected_bytes: measured earlier, or given by the specification.
        has_unloaded: something was unloaded before in this process. Allocators keep memory, a load then fills
            what is there already, and growth is only a lower bound.
        stated_bytes: what the loaded model says of itself (``size_bytes``). Weights that are mapped come into memory
            only with their use, so growth is only a lower bound then, too.
    """
    least_bytes = stated_bytes or 0
    if growth_bytes is None or growth_bytes <= 0:
        return least_bytes or expected_bytes
    if has_unloaded and not least_bytes:
        least_bytes = expected_bytes
    return max(growth_bytes, least_bytes)
