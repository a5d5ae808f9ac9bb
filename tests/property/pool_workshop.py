"""Where the models of a random history are made, warmed up and unloaded, and the books on what became of each."""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any

from ondol.errors import ConfigurationError, ModelLoadError
from ondol.models import ModelSpec
from tests.property.pool_fakes import (
    Building,
    Copy,
    FakeModel,
    FakeProcess,
    Plan,
    StatingModel,
    Threads,
    Work,
    copy_of,
    isolated_loader,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models import ModelPool
    from ondol.models.isolation import ModelExit
    from ondol.models.run import PoolRun

__all__ = ["EMPTY_BYTES", "Workshop"]

EMPTY_BYTES = 1000
"""What the process takes without any model."""
_MOST_LOADS_AT_ONCE = 300


class _AbortError(BaseException):
    """What no sensible loader raises."""


class Workshop:
    """Makes specifications whose functions behave as the moods of the moment say, and watches what the pool does."""

    pool: ModelPool

    def __init__(self, threads: Threads, fault: Callable[[str], None]) -> None:
        """Begin with no model; ``pool`` is to be set before the first is loaded."""
        self.plans: dict[int, Plan] = {}
        self.copies: list[Copy] = []
        """Those in memory."""
        self.models: weakref.WeakSet[FakeModel] = weakref.WeakSet()
        self.buildings: list[Building] = []
        self.processes: dict[Copy, FakeProcess] = {}
        self.rss_bytes = EMPTY_BYTES
        self.extra_bytes: dict[str, int] = {}
        self.load_moods: dict[str, str] = {}
        self.warm_moods: dict[str, str] = {}
        self.unload_moods: dict[str, str] = {}
        self.earlier_runs: list[PoolRun] = []
        """Those that left something behind when they were stopped."""
        self.events = 0
        self._threads = threads
        self._fault = fault
        self._instant = (0.0, 0)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of now."""
        return self._threads.loop

    def calm(self) -> None:
        """Let all models behave well from now on."""
        for moods in (self.load_moods, self.warm_moods, self.unload_moods, self.extra_bytes):
            moods.clear()

    def excuse_all(self) -> None:
        """Allow the pool to let go of whatever is in memory now without unloading it."""
        for copy in self.copies:
            copy.is_excused = True

    def restart_idle_time(self) -> None:
        """Expect no idle unload for a while: the time without use may count from now."""
        for copy in self.copies:
            if copy.unused_since_s is not None:
                copy.unused_since_s = self.loop.time()

    def forget_lost_loop(self) -> None:
        """Expect nothing more of what was under way in a loop that was closed."""
        self.earlier_runs.clear()
        for building in self.buildings.copy():
            self._end_load(building)

    def next_event(self) -> int:
        """Return a number greater than any before."""
        self.events += 1
        return self.events

    def _expect(self, is_true: object, text: str) -> None:
        if not is_true:
            self._fault(text)

    def spec(self, name: str, *, depends_on: tuple[str, ...] = (), kind: str = "async", **fields: Any) -> ModelSpec:
        """Make a specification; ``fields`` are those of a ``register`` among the actions."""
        fields = {"size_bytes": None, "seconds": 1.0, "warm_up": None} | fields
        plan = Plan(len(self.plans), name, kind, fields["size_bytes"], fields.pop("seconds"), fields.pop("warm_up"))
        self.plans[plan.number] = plan
        if "ttl_s" in fields:
            fields["idle_ttl_s"] = fields.pop("ttl_s")
        return ModelSpec(
            name,
            self._loader(plan),
            depends_on=tuple(other for other in depends_on if other != name),
            isolation="process" if kind == "process" else "thread",
            warm_up=self._warmer(plan),
            unload=self._unloader(plan),
            **fields,
        )

    def _loader(self, plan: Plan) -> Callable[..., Any]:
        if plan.kind == "process":
            return functools.partial(isolated_loader, plan.number)
        if plan.kind == "async":
            return functools.partial(self._load_async, plan)
        return Work(functools.partial(self._load_begins, plan), functools.partial(self._load_ends, plan))

    def _load_begins(self, plan: Plan) -> float:
        self._threads.begun = building = self._begin_load(plan)
        is_hanging = self.load_moods.get(plan.name) == "hang" and building.job.timeout_s is not None
        return 200.0 if is_hanging else plan.seconds

    def _load_ends(self, plan: Plan) -> FakeModel:
        building = self._threads.begun
        assert building is not None
        try:
            self._fail_load(plan)
            return self._made(building)
        finally:
            self._end_load(building)

    async def _load_async(self, plan: Plan) -> FakeModel:
        building = self._begin_load(plan)
        try:
            await self._take(plan, building)
            self._fail_load(plan)
            return self._made(building)
        finally:
            self._end_load(building)

    async def load_process(self, plan: Plan, on_exit: Callable[[ModelExit], None]) -> FakeProcess:
        """Load as the fork server would."""
        building = self._begin_load(plan)
        try:
            await self._take(plan, building)
            self._fail_load(plan)
            copy = self._make_copy(building)
            self.processes[copy] = process = FakeProcess(copy, self, on_exit)
            self.models.add(process)
            return process
        finally:
            self._end_load(building)

    async def _take(self, plan: Plan, building: Building) -> None:
        mood = self.load_moods.get(plan.name, "well")
        if mood == "hang" and building.job.timeout_s is not None:
            await asyncio.sleep(10_000.0)
        try:
            await asyncio.sleep(plan.seconds)
        except asyncio.CancelledError:
            if mood != "stubborn" or plan.kind == "process":
                raise
            await asyncio.sleep(3.0)  # it takes no notice and goes on

    def _fail_load(self, plan: Plan) -> None:
        mood = self.load_moods.get(plan.name, "well")
        if plan.kind == "process":
            errors: dict[str, BaseException] = {
                "error": ModelLoadError("it raised there"),
                "hopeless": ConfigurationError("no such loader"),
            }
        else:
            errors = {
                "error": OSError("no such file"),
                "hopeless": ImportError("no such package"),
                "cancelled": asyncio.CancelledError(),
                "memory": MemoryError(),
                "exit": SystemExit(3),
                "base": _AbortError(),
                "timeout": TimeoutError("the network"),
            }
        if mood in errors:
            raise errors[mood]

    def _begin_load(self, plan: Plan) -> Building:
        self._count_loads()
        run = self.pool._run
        job = None if run is None else run._loads.jobs.get(plan.name)
        if run is None or job is None or job.task is not asyncio.current_task():
            message = f"{plan.name} loads, but not in a job of the pool"
            self._fault(message)
            raise AssertionError(message)
        for other in self.buildings:
            is_same = other.plan.name == plan.name and other.run is run and other.plan.kind != "sync"
            self._expect(not is_same, f"{plan.name} is loaded twice at once")
        bases = tuple(resident.model.copy for resident in job.built_on)
        for base in bases:
            self._expect(base.phase == "alive" or base.has_crashed, f"{plan.name} is built on {base}: {base.phase}")
        building = Building(plan, job, run, self.next_event(), bases)
        self.buildings.append(building)
        for base in bases:
            base.users.add(building)
        return building

    def _count_loads(self) -> None:
        now_s, count = self.loop.time(), 0
        if self._instant[0] == now_s:
            count = self._instant[1] + 1
        self._instant = (now_s, count)
        if count > _MOST_LOADS_AT_ONCE:
            self._fault("it loads without end, and no time passes")
            self.loop.stop()

    def _end_load(self, building: Building) -> None:
        if building in self.buildings:
            self.buildings.remove(building)
        for base in building.bases:
            base.users.discard(building)

    def _made(self, building: Building) -> FakeModel:
        copy = self._make_copy(building)
        model = StatingModel(copy) if copy.number % 5 == 0 else FakeModel(copy)
        self.models.add(model)
        return model

    def _make_copy(self, building: Building) -> Copy:
        plan = building.plan
        size_bytes = max(0, (plan.said_bytes or 10) + self.extra_bytes.get(plan.name, 0))
        copy = Copy(self.next_event(), plan, building.job, building.began_at, building.bases, size_bytes)
        self.copies.append(copy)
        for base in copy.bases:
            base.users.add(copy)
        if plan.kind != "process":
            self.rss_bytes += size_bytes
        return copy

    def _warmer(self, plan: Plan) -> Callable[..., Any] | None:
        if plan.warm_up == "async":
            return functools.partial(self._warm_async, plan)
        return None if plan.warm_up is None else Work(lambda _model: self._warm_seconds(plan), self._warm)

    def _warm_seconds(self, plan: Plan) -> float:
        return {"hang": 150.0, "slow": 3.0}.get(self.warm_moods.get(plan.name, "well"), 0.2)

    async def _warm_async(self, plan: Plan, model: FakeModel) -> None:
        self._check_usable(model.copy, "warmed up")
        await asyncio.sleep(self._warm_seconds(plan))
        self._warm(model)

    def _warm(self, model: FakeModel) -> None:
        copy = model.copy
        self._check_usable(copy, "warmed up")
        mood = self.warm_moods.get(copy.plan.name, "well")
        errors = {"error": OSError("cold"), "cancelled": asyncio.CancelledError(), "exit": SystemExit(2)}
        if mood in errors:
            raise errors[mood]

    def _unloader(self, plan: Plan) -> Callable[..., Any]:
        if plan.kind == "sync" or (plan.kind == "async" and plan.warm_up == "sync"):  # what was in a thread ends in one
            return Work(self._unload_begins, self._unload_ends)
        return self._unload_process if plan.kind == "process" else self._unload_async

    def _unload_begins(self, model: FakeModel) -> float:
        self.begin_unload(model.copy)
        return 5.0 if self.unload_moods.get(model.copy.plan.name) == "slow" else 0.5

    def _unload_ends(self, model: FakeModel) -> None:
        if model.copy.phase == "alive":  # it came too late and is put away
            self.begin_unload(model.copy)
        self.end_unload(model.copy)
        self._fail_unload(model.copy)

    async def _unload_async(self, model: FakeModel) -> None:
        copy = model.copy
        del model
        self.begin_unload(copy)
        mood = self.unload_moods.get(copy.plan.name, "well")
        try:
            await asyncio.sleep(5.0 if mood == "slow" else 0.5)
        except asyncio.CancelledError:
            if mood != "stubborn":
                raise
            await asyncio.sleep(3.0)
        finally:
            self.end_unload(copy)
        self._fail_unload(copy)

    async def _unload_process(self, model: FakeProcess) -> None:
        self._check_usable(model.copy, "unloaded")
        self._check_unused(model.copy)
        await asyncio.sleep(0.1)
        self._fail_unload(model.copy)

    def _fail_unload(self, copy: Copy) -> None:
        mood = self.unload_moods.get(copy.plan.name, "well")
        errors = {"error": OSError("busy"), "cancelled": asyncio.CancelledError(), "exit": SystemExit(1)}
        if mood in errors:
            raise errors[mood]

    def hold(self, copy: Copy, name: str) -> None:
        """Note that a lease of ``name`` gave the model."""
        self._expect(copy.plan.name == name, f"a lease of {name} gave {copy}")
        self._check_usable(copy, "given to a lease")
        copy.held += 1

    def let_go(self, copy: Copy) -> None:
        """Note that the lease is about to end."""
        self._check_usable(copy, "leased")
        copy.held -= 1
        copy.unused_since_s = self.loop.time()

    def _check_usable(self, copy: Copy, what: str) -> None:
        is_fine = copy.phase == "alive" or copy.has_crashed or copy.is_excused
        self._expect(is_fine, f"{copy} was {what}, but is {copy.phase}")

    def begin_unload(self, copy: Copy) -> None:
        """Note that a model is unloaded; nobody may use it any more."""
        copy.unloads += 1
        self._expect(copy.phase == "alive" and copy.unloads == 1, f"{copy} is unloaded, but is {copy.phase} already")
        self._check_unused(copy)
        copy.phase = "going"

    def _check_unused(self, copy: Copy) -> None:
        if copy.is_excused or copy.has_crashed:
            return
        self._expect(not copy.held, f"{copy} is unloaded while {copy.held} lease(s) hold it")
        for user in copy.users:
            if isinstance(user, Building):
                is_used = self._has_building(user)
            else:
                is_used = not user.is_excused and (user.phase == "going" or self.is_kept(user))
            self._expect(not is_used, f"{copy} is unloaded while {user} was built on it")

    def end_unload(self, copy: Copy) -> None:
        """Note that nothing is left of a model."""
        copy.phase = "gone"
        if copy in self.copies:  # else it is left of a loop that was closed
            self.copies.remove(copy)
        if copy.plan.kind != "process":
            self.rss_bytes -= copy.size_bytes
        for base in copy.bases:
            base.users.discard(copy)

    # What the pool knows of them

    def runs(self) -> list[PoolRun]:
        """Return the present run and those that left something behind."""
        self.earlier_runs = [run for run in self.earlier_runs if run._loads.jobs or run._residents.drains]
        run = self.pool._run
        return [*self.earlier_runs, run] if run is not None and run not in self.earlier_runs else self.earlier_runs

    def _has_building(self, building: Building) -> bool:
        return building.run._loads.jobs.get(building.plan.name) is building.job

    def has_job(self, copy: Copy) -> bool:
        """Tell whether the load that made it has not ended yet."""
        return any(job is copy.job for run in self.runs() for job in run._loads.jobs.values())

    def is_kept(self, copy: Copy) -> bool:
        """Tell whether the pool still counts it among its own."""
        alive = self.pool._registry.alive.values()
        return self.has_job(copy) or any(copy_of(resident) is copy for resident in alive)
