"""service: what the pool knows of models that the policy does not: who may leave, and what is loaded along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.preload.proposal import Needs, Surroundings

if TYPE_CHECKING:
    from ondol.models import ModelPool
    from ondol.models.status import ModelOutline

__all__ = ["PoolSurroundings"]


class PoolSurroundings(Surroundings):
    """Asks a pool, in its loop's thread.

    Attributes:
        may_displace: whether anybody may leave at all. Where nothing loads on use, what left could not come back.
    """

    def __init__(self, pool: ModelPool) -> None:
        """Ask ``pool``."""
        self._pool = pool
        self.may_displace = True

    def may_leave(self, name: str) -> bool:
        """Tell whether a model may leave at once."""
        return self.may_displace and self._pool.may_leave(name)

    def needs(self, wished: str) -> Needs:
        """Return what a model depends on: the registered ones, and their bytes as far as they are not in memory."""
        found: dict[str, ModelOutline] = {}
        waiting = [wished]
        while waiting:
            known = self._pool.outline(waiting)
            found |= known
            waiting = [other for one in known.values() for other in one.depends_on if other not in found]
        found.pop(wished, None)
        absent_bytes = sum(one.size_bytes for one in found.values() if not one.is_ready)
        return Needs(frozenset(found), absent_bytes)
