"""service: the loads under way, each from its start to a ready model, or to the reason why not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ondol.errors import ModelBudgetError, ModelLoadError
from ondol.models.admission import too_large
from ondol.models.entry import Entry, Resident
from ondol.models.graph import dependencies
from ondol.models.job import Loaded, LoadJob
from ondol.models.ledger import Phase, choose_victims, judge_size
from ondol.models.spec import ModelState
from ondol.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from ondol.models.meter import MemoryMeter
    from ondol.models.ports import Steering
    from ondol.models.registry import Registry
    from ondol.models.residents import Residents

__all__ = ["Loads"]

logger = logging.getLogger("ondol.models")


class Loads:
    """The load jobs of one run; the pool owns them, so no caller's leaving cancels one."""

    def __init__(self, registry: Registry, meter: MemoryMeter, residents: Residents, steering: Steering) -> None:
        """Begin with none."""
        self.jobs: dict[str, LoadJob] = {}
        self._registry = registry
        self._meter = meter
        self._residents = residents
        self._steering = steering

    def start(self, entry: Entry, *, is_demand: bool, need_bytes: int) -> None:
        """Reserve the bytes and begin; the caller has seen to it that they fit."""
        spec = entry.spec
        self._registry.ledger.reserve(spec.name, need_bytes)
        job = LoadJob(spec, is_demand=is_demand, clock=self._registry.clock, meter=self._meter)
        self.jobs[spec.name] = job
        reason = "loads for a request" if is_demand else "loads in the background"
        self._registry.move(entry, ModelState.LOADING, reason)
        job.task = asyncio.get_running_loop().create_task(self._load(entry, job), name=f"ondol-load-{spec.name}")

    async def _load(self, entry: Entry, job: LoadJob) -> None:
        name = job.spec.name
        task = asyncio.current_task()
        try:
            if self._steering.is_closing:  # the stop came between the start of this task and its first step
                self._registry.move(entry, entry.idle_state, "its load was given up: the pool stops")
                return
            loaded = await job.bring_up(lambda: self._registry.move(entry, ModelState.WARMING, "answers its warm-up"))
            await self._admit(entry, job, loaded)
        except asyncio.CancelledError as exc:
            if task is not None and task.cancelling():
                # Nobody but a stop and the end of the whole loop cancels a load: either way nothing more begins.
                self._registry.move(entry, entry.idle_state, "its load was given up: the pool stops")
                self._steering.torn_down()
                raise
            self._steering.failed(entry, ModelLoadError("the loader cancelled itself"), cause=exc)
        except (Exception, SystemExit) as exc:  # noqa: BLE001  # a loader may raise anything; ``failed`` logs it
            self._steering.failed(entry, exc)
        finally:
            del self.jobs[name]
            if self._registry.ledger.phase(name) is Phase.RESERVED:
                self._registry.ledger.release(name)
            self._steering.ended()

    async def _admit(self, entry: Entry, job: LoadJob, loaded: Loaded) -> None:
        """Make a loaded model ready when it is still wanted like this and there is room for what it really takes."""
        registry = self._registry
        size_bytes = judge_size(loaded.growth_bytes, entry.expected_bytes, has_unloaded=registry.has_unloaded)
        while not self._is_outdated(entry, job):
            if registry.ledger.settle(job.spec.name, size_bytes):
                self._became_ready(entry, job, loaded, size_bytes)
                return
            shortage = registry.ledger.shortage(size_bytes - registry.ledger.size(job.spec.name))
            victims = choose_victims(
                self._residents.candidates(self.jobs, dependencies(registry.graph, job.spec.name)), shortage
            )
            if not victims:
                self._outgrown(entry, size_bytes)
                break
            await asyncio.wait(self._residents.evict(victims, f"{job.spec.name} took more than expected"))
        else:
            self._registry.move(entry, entry.idle_state, "loaded, but no longer wanted like this")
        await self._residents.put_away(job.spec, loaded.model)

    def _is_outdated(self, entry: Entry, job: LoadJob) -> bool:
        has_lost_dependency = any(name not in self._residents.ready for name in job.spec.depends_on)
        return self._steering.is_closing or job.spec is not entry.spec or has_lost_dependency

    def _outgrown(self, entry: Entry, size_bytes: int) -> None:
        """Remember the real size; the load is repeated once there is that much room, but only once."""
        name = entry.spec.name
        entry.measured_bytes = size_bytes
        error = too_large(name, size_bytes, self._residents.bytes_beside(name), self._registry.ledger.limit_bytes)
        if error is None and entry.has_outgrown:
            error = f"model {name!r} takes {format_bytes(size_bytes)} and grows with each load; give it a size_bytes"
        if error is not None:
            self._steering.failed(entry, ModelBudgetError(error))
            return
        entry.has_outgrown = True
        logger.warning("model %s takes %s, more than the room there is; it will wait", name, format_bytes(size_bytes))
        self._registry.move(entry, entry.idle_state, f"took {format_bytes(size_bytes)}, more than the room there was")

    def _became_ready(self, entry: Entry, job: LoadJob, loaded: Loaded, size_bytes: int) -> None:
        registry = self._registry
        name = job.spec.name
        if loaded.growth_bytes is not None and size_bytes:
            entry.measured_bytes = size_bytes
        entry.measured_seconds = loaded.seconds
        entry.load_count += 1
        entry.last_error = None
        entry.has_outgrown = False
        registry.totals.loads += 1
        registry.totals.load_seconds += loaded.seconds
        registry.move(entry, ModelState.READY, f"ready after {format_seconds(loaded.seconds)}")
        registry.record("models.load_time", loaded.seconds, "seconds", model=name)
        fields = {"model": name, "seconds": loaded.seconds, "size_bytes": size_bytes}
        logger.info("model %s is ready after %s", name, format_seconds(loaded.seconds), extra={"fields": fields})
        self._steering.became_ready(entry, Resident(job.spec, loaded.model, used_order=registry.totals.leases))
