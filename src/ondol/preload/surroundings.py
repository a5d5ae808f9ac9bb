"""service: what the pool knows of models that the policy does not: who may leave, and what is loaded along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.errors import UnknownModelError
from ondol.models import ModelState
from ondol.preload.proposal import Surroundings

if TYPE_CHECKING:
    from ondol.models import ModelPool

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

    def may_leave(self, name: str, wished: str) -> bool:
        """Tell whether a model may leave for ``wished``: not what that depends on, nor what is held in any way."""
        return self.may_displace and self._pool.may_leave(name) and name not in self._needed(wished)

    def extra_bytes(self, wished: str) -> int:
        """Return the bytes of the models that ``wished`` depends on and that are not in memory."""
        return sum(size_bytes for size_bytes, is_ready in self._needed(wished).values() if not is_ready)

    def _needed(self, wished: str) -> dict[str, tuple[int, bool]]:
        """Return all that a model depends on: its bytes, and whether it is in memory."""
        found: dict[str, tuple[int, bool]] = {}
        waiting = [wished]
        while waiting:
            name = waiting.pop()
            try:
                status = self._pool.status(name)
            except UnknownModelError:
                continue
            for other in status.depends_on:
                if other not in found:
                    found[other] = (0, False)
                    waiting.append(other)
            if name in found:
                found[name] = (status.size_bytes or 0, status.state is ModelState.READY)
        return found
