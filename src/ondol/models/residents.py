"""service: the models in memory: who may leave, and how they leave.

A model that leaves takes those that depend on it along, first them; its leases are waited for; its bytes count until
its ``unload`` is done.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ondol.models.graph import dependencies
from ondol.models.job import put_away
from ondol.models.ledger import Candidate, Phase
from ondol.models.spec import ModelSpec, ModelState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ondol.models.entry import Entry, Resident
    from ondol.models.meter import MemoryMeter
    from ondol.models.ports import Steering
    from ondol.models.registry import Registry

__all__ = ["Residents"]

logger = logging.getLogger("ondol.models")


class Residents:
    """The models that are ready, and those on their way out. Use it in the loop's thread only.

    Attributes:
        ready: what may be leased.
        drains: the unloads under way, each waiting for its leases first.
    """

    def __init__(self, registry: Registry, meter: MemoryMeter, steering: Steering) -> None:
        """Begin with nothing in memory."""
        self.ready: dict[str, Resident] = {}
        self.drains: dict[str, asyncio.Task[None]] = {}
        self._registry = registry
        self._meter = meter
        self._steering = steering

    def candidates(self, loading: Iterable[str], needed: Collection[str] = ()) -> list[Candidate]:
        """Return who might leave.

        Args:
            loading: models that load now; what they depend on stays.
            needed: models that must stay for another reason.
        """
        loaded = {*self.ready, *self.drains, *loading}
        return [
            Candidate(
                name,
                self._registry.ledger.size(name),
                resident.used_order,
                resident.spec.priority,
                is_held=bool(resident.leases) or resident.spec.residency == "pinned" or name in needed,
                dependents=frozenset(loaded.intersection(self._registry.needed_by.get(name, ()))),
            )
            for name, resident in self.ready.items()
        ]

    def bytes_beside(self, name: str) -> int:
        """Return what has to stay while ``name`` is loaded: its dependencies and pinned models."""
        staying = set(dependencies(self._registry.graph, name))
        staying.update(other for other, held in self.ready.items() if held.spec.residency == "pinned")
        return sum(self._bytes_of(other) for other in staying - {name})

    def _bytes_of(self, name: str) -> int:
        entry = self._registry.entries.get(name)
        if name in self.ready or entry is None:
            return self._registry.ledger.size(name)
        return entry.expected_bytes

    def evict(self, victims: Iterable[str], reason: str) -> list[asyncio.Task[None]]:
        """Let ``victims`` go to make room; return their unloads."""
        drains = []
        for name in victims:
            self._registry.totals.evictions += 1
            self._registry.record("models.evictions", 1.0, "count", model=name)
            drains.append(self.start_drain(name, f"evicted: {reason}"))
        return drains

    def start_drain(self, name: str, reason: str) -> asyncio.Task[None]:
        """Take a ready model out of use and unload it once its leases are back; dependents go with it."""
        resident = self.ready.pop(name)
        entry = self._registry.entry(name)
        self._registry.move(entry, ModelState.DRAINING, reason)
        for other in self._registry.needed_by.get(name, ()):
            if other in self.ready:
                self.start_drain(other, f"{name}, which it depends on, goes ({reason})")
        if not resident.leases:
            self._registry.ledger.leave(name)
        task = asyncio.get_running_loop().create_task(self._drain(entry, resident, reason), name=f"ondol-unload-{name}")
        self.drains[name] = task
        return task

    async def _drain(self, entry: Entry, resident: Resident, reason: str) -> None:
        name = resident.spec.name
        try:
            dependents = [self.drains[n] for n in self._registry.needed_by.get(name, ()) if n in self.drains]
            if dependents:
                await asyncio.wait(dependents)
            await _idle(resident)
            if self._registry.ledger.phase(name) is Phase.RESIDENT:
                self._registry.ledger.leave(name)
            await self.put_away(resident.spec, resident.model)
        except asyncio.CancelledError:
            self._steering.torn_down()  # only a stop out of patience or the end of the loop cancels this
            logger.warning("model %s was let go of without unloading it: %d lease(s) held", name, resident.leases)
            raise
        finally:
            resident.model = entry.resident = None
            self._registry.ledger.release(name)
            del self.drains[name]
            self._registry.move(entry, ModelState.UNLOADED, reason)
            self._registry.announce("unloaded", name)
            self._steering.ended()

    async def put_away(self, spec: ModelSpec, model: Any) -> None:
        """Unload a model that is not (or no longer) in use."""
        self._registry.has_unloaded = True
        if not await put_away(spec, model, self._meter):
            self._registry.totals.unload_failures += 1


async def _idle(resident: Resident) -> None:
    if resident.leases:
        is_idle = asyncio.Event()
        resident.on_idle = is_idle.set
        await is_idle.wait()
