"""decision: the policies that the adaptive one chooses among."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from ondol.cache.policies.gdsf import GDSF, GdsfParams, GdsfPolicy
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.protocol import EvictionPolicy
from ondol.cache.policies.s3fifo import S3FifoPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.entry import Entry
    from ondol.cache.policies.ghosts import Ghosts

__all__ = ["EXPERTS", "GHOST_RATIO", "OFFERED", "START", "THRIFT", "Expert", "HandoverPolicy"]


class HandoverPolicy(EvictionPolicy, Protocol):
    """A policy that can take over another one's entries."""

    def adopt(self, entry: Entry) -> None:
        """Take an entry that another policy gave up; they come in that one's order, the first to leave first."""
        ...

    def owns(self, entry: Entry) -> bool:
        """Return whether a live entry is among its own."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Expert:
    """One policy that may take charge."""

    name: str
    make: Callable[[Ghosts], HandoverPolicy]
    """For the entries themselves; those that follow each other share what they know of entries that left."""
    make_shadow: Callable[[], HandoverPolicy]
    """For the shadow that says how it would do."""
    needs_costs: bool = False
    """Whether it is any different from the others only where costs vary."""


def _relative(params: GdsfParams, *, needs_costs: bool = False) -> Expert:
    return Expert(params.name, partial(GdsfPolicy, params), partial(GdsfPolicy, params), needs_costs)


_GATE: Final = GdsfParams("gate", cost_exponent=0.0, queue_ratio=0.1, ghost_ratio=3.0)
_DOUBT: Final = GdsfParams("doubt", cost_exponent=0.0, newcomer=0.1, ghost_ratio=3.0)
THRIFT: Final = GdsfParams("thrift", cost_exponent=0.3, newcomer=0.1, ghost_ratio=3.0)
"""Where it begins; its exponent is steered."""

GHOST_RATIO: Final = 3.0
"""Bytes of entries that left and are remembered, in parts of the bound."""

EXPERTS: Final = (
    Expert("lru", LruPolicy, LruPolicy),
    Expert("s3fifo", S3FifoPolicy, S3FifoPolicy),
    _relative(GDSF),
    _relative(_GATE),
    _relative(_DOUBT),
    _relative(THRIFT, needs_costs=True),
)
OFFERED: Final = ("lru", "s3fifo", "gdsf")
"""Those that a user can have instead: what is chosen must not do worse."""
START: Final = "s3fifo"
"""In charge until more is known."""
