"""decision: the policies that the adaptive one chooses among."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ondol.cache.policies.gdsf import GDSF, GdsfParams, GdsfPolicy
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.protocol import EvictionPolicy
from ondol.cache.policies.s3fifo import S3FifoPolicy
from ondol.cache.policies.shadow import LruShadow, Shadow

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.entry import Entry
    from ondol.cache.policies.ghosts import Ghosts

__all__ = ["EXPERTS", "GHOST_RATIO", "OFFERED", "SAFE", "START", "STEERED", "AnyShadow", "Expert", "HandoverPolicy"]


class HandoverPolicy(EvictionPolicy, Protocol):
    """A policy that can take over another one's entries."""

    def adopt(self, entry: Entry) -> None:
        """Take an entry that another policy gave up; they come in that one's order, the first to leave first."""
        ...

    def hand_over(self) -> None:
        """Have entries that are evicted from now on not remembered: another policy takes them."""
        ...

    def owns(self, entry: Entry) -> bool:
        """Return whether a live entry is among its own."""
        ...

    def __len__(self) -> int: ...


AnyShadow = Shadow | LruShadow


class Expert(NamedTuple):
    """One policy that may take charge."""

    name: str
    make: Callable[[Ghosts], HandoverPolicy]
    """For the entries themselves; those that follow each other share what they know of entries that left."""
    make_shadow: Callable[[], AnyShadow]
    """The shadow that says how it would do."""
    needs_sizes: bool = False
    """Whether it is looked at only where sizes or costs vary."""
    needs_costs: bool = False
    """Whether it is looked at only where costs vary."""


def _relative(params: GdsfParams, *, needs_sizes: bool = False, needs_costs: bool = False) -> Expert:
    make = partial(GdsfPolicy, params)
    return Expert(params.name, make, lambda: Shadow(GdsfPolicy(params)), needs_sizes, needs_costs)


_GATE: Final = GdsfParams("gate", cost_exponent=0.2, queue_ratio=0.1, ghost_ratio=3.0)
_THRIFT: Final = GdsfParams("thrift", cost_exponent=0.3, newcomer=0.3, ghost_ratio=3.0)
STEERED: Final = {params.name: params for params in (_GATE, _THRIFT)}
"""Those whose regard for costs is steered, and where it begins."""

GHOST_RATIO: Final = 3.0
"""Bytes of entries that left and are remembered, in parts of the bound."""

EXPERTS: Final = (
    Expert("lru", LruPolicy, LruShadow),
    Expert("s3fifo", S3FifoPolicy, lambda: Shadow(S3FifoPolicy())),
    _relative(_GATE),
    _relative(GDSF, needs_sizes=True),
    _relative(_THRIFT, needs_costs=True),
)
OFFERED: Final = ("lru", "s3fifo", "gdsf")
"""Those that a user can have instead: what is chosen must not do worse."""
START: Final = "s3fifo"
"""In charge while the cache is far from full: it needs no notice of hits."""
SAFE: Final = "lru"
"""In charge from then on until another one is better beyond doubt."""
