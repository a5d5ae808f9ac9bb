"""What stands under a pool in a random history: models, processes, threads, time, and a ledger that watches itself."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ondol.errors import ModelCrashedError, RemoteModelError
from ondol.models.isolation import ModelExit
from ondol.models.ledger import Ledger, Phase
from ondol.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from ondol.models import ModelSpec
    from ondol.models.entry import Resident
    from ondol.models.job import LoadJob
    from ondol.models.run import PoolRun
    from tests.property.pool_workshop import Workshop

__all__ = [
    "Building",
    "CheckedLedger",
    "Copy",
    "Disk",
    "FakeIsolator",
    "FakeModel",
    "FakeProcess",
    "MachineLoop",
    "Plan",
    "StatingModel",
    "Threads",
    "Work",
    "copy_of",
    "isolated_loader",
]


class Plan(NamedTuple):
    """How the models of one specification behave."""

    number: int
    name: str
    kind: str
    said_bytes: int | None
    seconds: float
    warm_up: str | None


@dataclass(eq=False)
class Building:
    """A load under way."""

    plan: Plan
    job: LoadJob
    run: PoolRun
    began_at: int
    bases: tuple[Copy, ...]


@dataclass(eq=False)
class Copy:
    """A model that was made; it is ``alive``, then ``going``, then ``gone``."""

    number: int
    plan: Plan
    job: LoadJob
    began_at: int
    bases: tuple[Copy, ...]
    size_bytes: int
    phase: str = "alive"
    held: int = 0
    users: set[Copy | Building] = field(default_factory=set)
    has_crashed: bool = False
    is_excused: bool = False
    """The pool was allowed to let go of it without unloading it."""
    unloads: int = 0
    unused_since_s: float | None = None

    def __str__(self) -> str:
        return f"{self.plan.name} no. {self.number}"


class FakeModel:
    """What a lease gives. The world refers to its copy only, so that the model's memory goes with it."""

    __slots__ = ("__weakref__", "copy")

    def __init__(self, copy: Copy) -> None:
        self.copy = copy


class StatingModel(FakeModel):
    """A model that says how large it is."""

    @property
    def size_bytes(self) -> int:
        return self.copy.size_bytes


class FakeProcess(FakeModel):
    """A model in a process of its own, which may end at any time."""

    __slots__ = ("_loop", "_on_exit", "_workshop", "name")

    def __init__(self, copy: Copy, workshop: Workshop, on_exit: Callable[[ModelExit], None]) -> None:
        super().__init__(copy)
        self.name = copy.plan.name
        self._workshop = workshop
        self._loop = workshop.loop
        self._on_exit = on_exit

    def pss_bytes(self) -> int:
        return self.copy.size_bytes

    async def read(self, attribute: str) -> int:
        assert attribute == "size_bytes"
        await asyncio.sleep(0.05)
        if self.copy.phase == "gone":
            raise ModelCrashedError("it is gone")
        if self.copy.number % 5:
            raise RemoteModelError("no such attribute", type_name="AttributeError", remote_traceback="")
        return self.copy.size_bytes

    async def close(self) -> None:
        if self.copy.phase == "gone":
            return
        self._workshop.begin_unload(self.copy)
        try:
            await asyncio.sleep(0.1)
        finally:
            self._end(is_expected=True)

    def kill(self, *, reason: str = "") -> None:
        self.copy.is_excused |= bool(reason)
        if self.copy.phase != "gone":
            self._workshop.begin_unload(self.copy)
            self._end(is_expected=False)

    def crash(self) -> None:
        self.copy.has_crashed = True
        is_expected = self.copy.phase == "going"
        self.copy.phase = "going"
        self._end(is_expected=is_expected)

    def _end(self, *, is_expected: bool) -> None:
        if self.copy.phase == "gone":
            return
        self._workshop.end_unload(self.copy)
        self._workshop.processes.pop(self.copy, None)
        ended = ModelExit(self.name, None, "SIGKILL", is_expected=is_expected, reason="", stderr_tail=())
        if not self._loop.is_closed():
            self._loop.call_soon(self._on_exit, ended)


class FakeIsolator:
    """Stands for the pool's isolator: processes that are objects."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def start(
        self, spec: ModelSpec, *, timeout_s: float | None, clock: object, on_exit: Callable[[ModelExit], None]
    ) -> FakeProcess:
        assert isinstance(spec.load, functools.partial)
        return await self._workshop.load_process(self._workshop.plans[spec.load.args[0]], on_exit)

    async def close(self) -> None:
        """End all that is left, as the end of the fork server does."""
        for process in list(self._workshop.processes.values()):
            process.copy.is_excused = True
            process.crash()


def isolated_loader(number: int) -> None:
    """Stand for the loader of an isolated model: something another process could import."""
    raise NotImplementedError(number)


# Time and threads


class Work:
    """A plain function of a specification: ``begin`` says how long its thread will take, the call is its end."""

    __slots__ = ("_end", "begin")

    def __init__(self, begin: Callable[..., float], end: Callable[..., Any]) -> None:
        self.begin = begin
        self._end = end

    def __call__(self, *args: Any) -> Any:
        return self._end(*args)


class Threads:
    """What the module ``threading`` is to the pool: the work of a thread is done at the virtual moment of its end."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.waiting: list[_FakeThread] = []
        self.begun: Building | None = None
        """Of the thread that begins or ends just now."""
        self.seconds = 0.0
        self.fault = fault

    def Thread(self, *, target: Callable[..., Any], args: tuple[Any, ...] = (), **_fields: Any) -> _FakeThread:  # noqa: N802
        """Make a thread, as ``threading.Thread`` does."""
        return _FakeThread(self, functools.partial(target, *args))

    def finish_all(self) -> None:
        """Let all end now."""
        while self.waiting:
            self.waiting[0].finish()


class _FakeThread:
    def __init__(self, threads: Threads, work: Callable[[], Any]) -> None:
        self._threads = threads
        self._work = work
        self._building: Building | None = None

    def start(self) -> None:
        threads = self._threads
        self._building, threads.begun = threads.begun, None
        seconds, threads.seconds = threads.seconds, 0.2
        threads.waiting.append(self)
        if not threads.loop.is_closed():
            threads.loop.call_later(seconds, self.finish)

    def finish(self) -> None:
        threads = self._threads
        if self not in threads.waiting:
            return
        threads.waiting.remove(self)
        threads.begun = self._building
        try:
            self._work()
        except BaseException as exc:  # noqa: BLE001  # a real thread would end and tell standard error
            threads.fault(f"a thread ended with {exc!r}")
        threads.begun = None


class MachineLoop(VirtualTimeLoop):
    """Virtual time that also passes while fake threads work, with a look around whenever it is about to pass."""

    def __init__(self, threads: Threads, at_rest: Callable[[float], None]) -> None:
        super().__init__()
        self._threads = threads
        self._at_rest = at_rest
        threads.loop = self

    def jump(self, seconds: float) -> None:
        self._at_rest(seconds)
        super().jump(seconds)

    def run_in_executor(  # type: ignore[override]  # as in its base
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        function, *rest = getattr(func, "args", ()) or (None,)
        self._threads.seconds = function.begin(*rest) if isinstance(function, Work) else 0.05
        return asyncio.SelectorEventLoop.run_in_executor(self, executor, func, *args)


class Adviser:
    """Names what it is given, fails after so many, and knows when it is asked anew before it was closed."""

    def __init__(self, names: Sequence[str], fails_after: int, fault: Callable[[str], None]) -> None:
        self._names = names
        self._fails_after = fails_after
        self._fault = fault
        self._is_open = False

    def coldest_first(self, _now_s: float) -> Iterator[str]:
        if self._is_open:
            self._fault("the advisor is asked before what it said last was closed")
        self._is_open = True
        try:
            for number, name in enumerate(self._names):
                if number == self._fails_after:
                    raise OSError("no idea")
                yield name
        finally:
            self._is_open = False


class CheckedLedger(Ledger):
    """A ledger that knows when what is booked goes beyond the limit, or is given back twice."""

    __slots__ = ("_fault",)

    def __init__(self, fault: Callable[[str], None], limit_bytes: int | None) -> None:
        super().__init__(limit_bytes)
        self._fault = fault

    def reserve(self, name: str, size_bytes: int) -> None:
        super().reserve(name, size_bytes)
        self._check(name, size_bytes)

    def settle(self, name: str, size_bytes: int) -> bool:
        self._expect(name, {Phase.RESERVED})
        growth_bytes = size_bytes - self.size(name)
        has_settled = super().settle(name, size_bytes)
        if has_settled:
            self._check(name, growth_bytes)
        return has_settled

    def leave(self, name: str) -> None:
        self._expect(name, {Phase.RESIDENT})
        super().leave(name)

    def release(self, name: str) -> None:
        self._expect(name, set(Phase))
        super().release(name)

    def _expect(self, name: str, phases: set[Phase]) -> None:
        if self.phase(name) not in phases:
            self._fault(f"the bytes of {name} are {self.phase(name)}, not {phases}")

    def _check(self, name: str, growth_bytes: int) -> None:
        if growth_bytes > 0 and self.excess_bytes:
            self._fault(f"{growth_bytes} bytes more for {name} go beyond the limit: {self.describe()}")


class Disk:
    """Where the pool keeps what it learnt."""

    def __init__(self) -> None:
        self.is_broken = False
        self.plain: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        return self.plain

    def write(self, plain: dict[str, Any]) -> None:
        if self.is_broken:
            raise OSError("the disk is full")
        self.plain = plain


def copy_of(resident: Resident) -> Copy | None:
    """Return the world's side of what the pool keeps; ``None`` when it has let go of the model."""
    return None if resident.model is None else resident.model.copy
