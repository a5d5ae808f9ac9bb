"""service: the loads under way, each from its start to a ready model, or to the reason why not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ondol.errors import ModelBudgetError, ModelLoadError
from ondol.models.admission import too_large
from ondol.models.entry import Entry, Resident
from ondol.models.estimates import Estimate, learnt_seconds
from ondol.models.graph import dependencies
from ondol.models.job import Loaded, LoadJob, LoadTimeout, Tools
from ondol.models.ledger import Phase, choose_victims, judge_size
from ondol.models.loops import own_task
from ondol.models.spec import ModelState
from ondol.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.isolation import ModelExit
    from ondol.models.ports import Steering
    from ondol.models.registry import Registry
    from ondol.models.residents import Residents
    from ondol.models.wants import Wants

__all__ = ["Loads"]

logger = logging.getLogger("ondol.models")

_MAY_BECOME_READY: Final = frozenset({ModelState.LOADING, ModelState.WARMING, ModelState.READY, ModelState.DRAINING})


class Loads:
    """The load jobs of one run; the pool owns them, so no caller's leaving cancels one."""

    def __init__(
        self, registry: Registry, tools: Tools, residents: Residents, wants: Wants, steering: Steering
    ) -> None:
        """Begin with none."""
        self.jobs: dict[str, LoadJob] = {}
        self.leftovers: dict[str, asyncio.Future[None]] = {}
        """Threads of loads that were given up, by account."""
        self._registry = registry
        self._tools = tools
        self._residents = residents
        self._wants = wants
        self._steering = steering

    @property
    def is_measuring(self) -> bool:
        """Whether the sizes of models are measured."""
        return self._tools.meter.is_measuring

    def start(self, entry: Entry, *, is_demand: bool, need_bytes: int, is_to_be_alone: bool = False) -> None:
        """Reserve the bytes and begin; the caller has seen to it that they fit and that the dependencies are ready.

        A model that is ready is loaded anew beside the copy that serves.
        """
        spec = entry.spec
        registry = self._registry
        self._prepare_once()
        account = registry.free_account(spec.name)
        registry.ledger.reserve(account, need_bytes)
        job = LoadJob(
            spec,
            self._tools,
            is_demand=is_demand,
            account=account,
            built_on=tuple(self._residents.ready[name] for name in spec.depends_on),
            timeout_s=spec.load_timeout_s or registry.options.load_timeout_s,
            settled_bytes=self._settled_bytes(),
            is_to_be_alone=is_to_be_alone,
        )
        self.jobs[spec.name] = entry.job = job
        entry.load_started_s = registry.clock.monotonic()
        entry.retry_at_s = None
        if spec.name in self._residents.ready:
            registry.move(entry, ModelState.READY, "ready; a new copy loads beside it")
        else:
            reason = "loads for a request" if is_demand else "loads in the background"
            registry.move(entry, ModelState.LOADING, reason)
        job.task = own_task(self._load(entry, job), name=f"ondol-load-{account}")
        registry.announce("loading", spec.name)

    def _prepare_once(self) -> None:
        if not self._registry.is_memory_prepared:
            self._registry.is_memory_prepared = True
            if self._tools.prepare_memory is not None:
                try:
                    self._tools.prepare_memory()
                except Exception:
                    logger.exception("preparing the process's memory failed; models are loaded all the same")

    async def _load(self, entry: Entry, job: LoadJob) -> None:
        task = asyncio.current_task()
        try:
            if self._steering.is_closing:  # the stop came between the start of this task and its first step
                self._given_up(entry, job, "its load was given up: the pool stops")
                return
            loaded = await job.bring_up(lambda: self._warming(entry))
            await self._admit(entry, job, loaded)
        except asyncio.CancelledError as exc:
            if task is not None and task.cancelling():
                # Nobody but a stop and the end of the whole loop cancels a load: either way nothing more begins.
                self._given_up(entry, job, "its load was given up: the pool stops")
                self._steering.torn_down()
                raise
            self._failed(entry, job, ModelLoadError("the loader cancelled itself"), cause=exc)
        except LoadTimeout as exc:
            self._registry.totals.load_timeouts += 1
            self._failed(entry, job, exc)
        except (KeyboardInterrupt, GeneratorExit):  # the loop ends, or did so long ago
            self._steering.torn_down()
            raise
        except BaseException as exc:  # noqa: BLE001  # a loader may raise anything; ``failed`` logs it
            self._failed(entry, job, exc)
        finally:
            self._ended(entry, job)

    def _ended(self, entry: Entry, job: LoadJob) -> None:
        del self.jobs[job.spec.name]
        self._registry.spans.ended(entry, job, self._registry.ledger)
        if entry.job is job:
            entry.job = entry.load_started_s = None
        job.let_go_of_bases()
        if job.leftover is not None and not job.leftover.done():
            self._leave_behind(entry, job, job.leftover)
        elif self._registry.ledger.phase(job.account) is Phase.RESERVED:
            self._registry.ledger.release(job.account)
        self._steering.ended()

    def _leave_behind(self, entry: Entry, job: LoadJob, leftover: asyncio.Future[None]) -> None:
        """Count the bytes of a thread that was given up until it ends; the model is not loaded again before."""
        entry.leftover = self.leftovers[job.account] = leftover

        def ended(_leftover: asyncio.Future[None]) -> None:
            if entry.leftover is leftover:
                entry.leftover = None
            if self.leftovers.pop(job.account, None) is not None:
                self._registry.ledger.release(job.account)
            self._steering.ended()  # also when this run is over: the one after it may wait for the thread

        leftover.add_done_callback(ended)

    def close(self) -> None:
        """Count nothing any more of threads that were given up: the run is over."""
        for account in self.leftovers:
            self._registry.ledger.release(account)
        self.leftovers.clear()

    def _failed(self, entry: Entry, job: LoadJob, error: BaseException, *, cause: BaseException | None = None) -> None:
        job.error = type(error).__name__
        if entry.job is job:  # else the run it belongs to is over, and another one loads the model
            self._steering.failed(entry, error, cause=cause)

    def _warming(self, entry: Entry) -> None:
        if entry.state is ModelState.LOADING:  # else a copy serves, or leaves, meanwhile
            self._registry.move(entry, ModelState.WARMING, "answers its warm-up")

    def _given_up(self, entry: Entry, job: LoadJob, reason: str) -> None:
        if entry.job is not job:
            return
        if entry.state in {ModelState.LOADING, ModelState.WARMING}:
            self._registry.move(entry, entry.idle_state, reason)
        elif entry.state is ModelState.READY:
            self._registry.move(entry, ModelState.READY, f"ready; of the new copy: {reason}")

    async def _admit(self, entry: Entry, job: LoadJob, loaded: Loaded) -> None:
        """Make a loaded model ready when it is still wanted like this and there is room for what it really takes."""
        registry = self._registry
        size_bytes = self._size_of(entry, job, loaded)
        while not self._is_outdated(entry, job):
            if job.exited is not None:
                await self._put_away(job, loaded)
                raise job.exited.error()
            if registry.ledger.settle(job.account, size_bytes):
                self._became_ready(entry, job, loaded, size_bytes)
                return
            leaving = self._make_room(job, size_bytes)
            if not leaving:
                break
            self._steering.ended()  # what waits for one of those that leave is in nobody's way any more
            await asyncio.wait(leaving)
        await self._put_away(job, loaded)
        if self._is_outdated(entry, job):
            self._given_up(entry, job, "loaded, but no longer wanted like this")
        else:
            self._outgrown(entry, job, loaded, size_bytes)

    def _size_of(self, entry: Entry, job: LoadJob, loaded: Loaded) -> int:
        """Return the bytes to book for a model that is loaded: measured, stated, expected, or its share of a guess."""
        stated_bytes = loaded.stated_bytes
        if loaded.growth_bytes is None and stated_bytes is None and not entry.is_size_known:
            return self._shared_growth(job) or self._registry.ledger.size(job.account)
        has_unloaded = self._registry.has_unloaded and not loaded.growth_is_own
        expected_bytes = 0 if entry.is_size_guessed else entry.expected_bytes
        return judge_size(loaded.growth_bytes, expected_bytes, has_unloaded=has_unloaded, stated_bytes=stated_bytes)

    def _shared_growth(self, job: LoadJob) -> int:
        """Return a load's share of what the process grew by since it began, when several ran at once.

        What was settled meanwhile, or is expected of others under way, is theirs; the rest is divided among those whose
        size nobody knows. One share may be wrong; together they are right. 0 when something was unloaded meanwhile.
        """
        grown_bytes = self._tools.meter.shared_growth_since(job.reading) if job.reading is not None else None
        if grown_bytes is None:
            return 0
        entries = self._registry.entries
        beside = [entries[name] for name, other in self.jobs.items() if other is not job]
        beside = [entry for entry in beside if entry.spec.isolation == "thread"]
        known_bytes = sum(entry.expected_bytes for entry in beside if entry.is_size_known)
        others_bytes = self._settled_bytes() - job.settled_bytes + known_bytes
        return max(0, grown_bytes - others_bytes) // (1 + sum(not entry.is_size_known for entry in beside))

    def _settled_bytes(self) -> int:
        """Return what is booked for the models in this process's memory."""
        alive = self._registry.alive.items()
        return sum(self._registry.ledger.size(account) for account, held in alive if held.spec.isolation == "thread")

    def _make_room(self, job: LoadJob, size_bytes: int) -> list[asyncio.Task[None]]:
        """Let others go, or else the copy that served so far; return the unloads."""
        ledger = self._registry.ledger
        name = job.spec.name
        shortage = ledger.shortage(size_bytes - ledger.size(job.account))
        needed = dependencies(self._registry.graph, name)
        candidates = self._residents.candidates(self.jobs, needed)
        victims = choose_victims(candidates, shortage, may_go=self._wants.loading(name).may_displace)
        if victims:
            return self._residents.evict(victims, f"{name} took more than expected")
        resident = self._residents.ready.get(name)
        if resident is not None and ledger.size(resident.account) >= shortage:
            self._steering.make_way(name)
            self._steering.ended()  # more may leave now than before
            return self._residents.drains_of(name)
        return []

    async def _put_away(self, job: LoadJob, loaded: Loaded) -> None:
        self._registry.has_unloaded = True
        job.on_exit = lambda _exit: None
        has_crashed = job.exited is not None
        if not await self._tools.parting.part_with(job.spec, loaded, has_crashed=has_crashed):
            self._registry.totals.unload_failures += 1

    def _is_outdated(self, entry: Entry, job: LoadJob) -> bool:
        ready = self._residents.ready
        has_lost_dependency = any(ready.get(base.spec.name) is not base for base in job.built_on)
        return self._steering.is_closing or job.spec is not entry.spec or has_lost_dependency

    def _outgrown(self, entry: Entry, job: LoadJob, loaded: Loaded, size_bytes: int) -> None:
        """Remember the real size; the load is repeated once there is that much room, but only once."""
        name = entry.spec.name
        entry.is_size_guessed |= loaded.growth_bytes is None and not entry.is_size_known
        entry.measured_bytes = size_bytes
        error = too_large(name, size_bytes, self._residents.bytes_beside(name), self._registry.ledger.limit_bytes)
        if error is None and entry.has_outgrown:
            error = f"model {name!r} takes {format_bytes(size_bytes)} and grows with each load; give it a size_bytes"
        if error is not None:
            self._steering.failed(entry, ModelBudgetError(error))
            return
        entry.has_outgrown = True
        logger.warning("model %s takes %s, more than the room there is; it will wait", name, format_bytes(size_bytes))
        self._given_up(entry, job, f"took {format_bytes(size_bytes)}, more than the room there was")

    def _became_ready(self, entry: Entry, job: LoadJob, loaded: Loaded, size_bytes: int) -> None:
        registry = self._registry
        name = job.spec.name
        if loaded.growth_bytes is not None or loaded.stated_bytes is not None:
            entry.measured_bytes, entry.is_size_guessed = size_bytes, False
        elif size_bytes and not entry.is_size_known:
            entry.measured_bytes, entry.is_size_guessed = size_bytes, True
        entry.measured_seconds = learnt_seconds(entry.measured_seconds, loaded.seconds)
        entry.load_count += 1
        entry.last_error = None
        entry.has_outgrown = False
        entry.failures_in_a_row = 0
        entry.ready_at_s = registry.clock.monotonic()
        registry.totals.loads += 1
        registry.totals.load_seconds += loaded.seconds
        learnt_bytes = None if entry.is_size_guessed else entry.measured_bytes
        registry.learn(name, Estimate(job.spec.version, learnt_bytes, entry.measured_seconds))
        self._return_to_loading(entry)
        registry.move(entry, ModelState.READY, f"ready after {format_seconds(loaded.seconds)}")
        registry.record("models.load_time", loaded.seconds, "seconds", model=name)
        fields = {"model": name, "seconds": loaded.seconds, "size_bytes": size_bytes}
        logger.info("model %s is ready after %s", name, format_seconds(loaded.seconds), extra={"fields": fields})
        resident = Resident(job.spec, loaded.model, entry.use, account=job.account, built_on=job.built_on)
        registry.alive[job.account] = resident
        job.on_exit = self._watcher(resident)
        self._steering.became_ready(entry, resident)

    def _return_to_loading(self, entry: Entry) -> None:
        """Undo what became of the model's state when the copy that served left or crashed during the load."""
        if entry.state not in _MAY_BECOME_READY:
            self._registry.move_back_to_loading(entry)

    def _watcher(self, resident: Resident) -> Callable[[ModelExit], None]:
        def exited(ended: ModelExit) -> None:
            # Also when it was told to end: whoever leased it may have closed it. The pool closes only what it let go.
            self._steering.crashed(resident, ended.error())

        return exited
