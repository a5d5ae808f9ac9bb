"""A model pool in a world of fake models, driven step by step on virtual time, and what must hold at every moment.

``World.step(kind, arguments, pause_s)`` does one thing to the pool and lets time pass. ``ACTIONS`` lists what can be
done, each with the values its arguments may have; the property test and ``scripts/soak.py`` choose from it.

The world keeps books of its own: which copies of models were made, by whom they are held, what they were built on, and
how they went (``Workshop``). Whenever nothing can run but time, all invariants are checked (``Audit``); what happens in
between is checked where it happens: in loaders, unloads, leases and the ledger. Nothing here is random or takes real
time: threads are callbacks of the loop (``Threads``), processes are objects (``FakeIsolator``).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import traceback
from random import Random
from typing import TYPE_CHECKING, Any, Self

import ondol.models.loader
from ondol.errors import DependencyCycleError
from ondol.models import ModelPool
from ondol.testing import VirtualTimeLoop
from tests.property.pool_actions import ACTIONS, AT_FIRST, LEASE_TIMEOUT_S, LIMIT, NAMES, PAUSES_S, RETRIES, SIZES
from tests.property.pool_audit import SLACK_S, Audit
from tests.property.pool_callers import EXPECTED_ERRORS, Callers
from tests.property.pool_fakes import Adviser, CheckedLedger, Disk, FakeIsolator, MachineLoop, Threads
from tests.property.pool_workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from ondol.models.run import PoolRun
    from tests.property.pool_actions import Arguments

__all__ = ["ACTIONS", "PAUSES_S", "World", "WorldError", "quiet_logs"]

_LAST_CALL_S = 1.0


class WorldError(AssertionError):
    """Something that must hold does not; the message has the history that led there."""


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep the pool's log silent: it has thousands of failures to tell of."""
    logger = logging.getLogger("ondol.models")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


class World:
    """A pool, its models and its callers. Use it as a context; ``step`` it; ``settle`` it in the end."""

    def __init__(self, seed: int = 0) -> None:
        """Make a pool; ``seed`` decides its options and the jitter of its retries."""
        self.random = Random(seed)
        self.history: list[str] = []
        self.faults: list[str] = []
        self.steps = 0
        self._threads = Threads(self.fault)
        self.loop = self._make_loop()
        self.workshop = Workshop(self._threads, self.fault)
        self._disk = Disk()
        self._is_probe_broken = False
        self.pool = self.workshop.pool = self._make_pool()
        self._close_pool = self.pool._close
        self.pool._close = self._watched_close  # type: ignore[method-assign]  # a seam nobody else needs
        self._grace_ends_s: float | None = None
        self._ambushes: dict[str, str] = {}
        """What is to be done in the moment of the next event of a kind."""
        self._callers = Callers(self.pool, self.workshop, self.note, self.fault)
        self._audit = Audit(self.pool, self.workshop, self.fault)
        self._threading: Any = None
        for name in NAMES:
            if name != "late":
                fields = {"depends_on": AT_FIRST.get(name, ()), "size_bytes": SIZES[name]}
                self._register(name, kind=self._kind_at_first(name), **fields)

    def _make_loop(self) -> MachineLoop:
        loop = MachineLoop(self._threads, self._at_rest)
        loop.set_exception_handler(self._report)
        return loop

    def _make_pool(self) -> ModelPool:
        draw = self.random
        pool = ModelPool(
            clock=self,
            memory_limit_bytes=LIMIT,
            lease_timeout_s=LEASE_TIMEOUT_S,
            stop_grace_s=draw.choice((1000.0, 4.0)),
            memory_probe=draw.choice((self._probe, None)),
            retry=RETRIES[0],
            random=draw.random,
            estimates=draw.choice((self._disk, None)),
            release_memory=draw.choice((self._release_memory, None)),
        )
        isolator: Any = FakeIsolator(self.workshop)
        pool._isolator = isolator
        pool._tools = pool._tools._replace(isolator=isolator)
        pool._registry.ledger = CheckedLedger(self.fault, LIMIT)
        pool.add_listener(self._heard)
        return pool

    def _kind_at_first(self, name: str) -> str:
        kind = self.random.choice(("async", "async", "sync", "process"))
        return kind if name != "base" else "async"

    def _register(self, name: str, **fields: Any) -> None:
        self.pool.register(self.workshop.spec(name, **fields), replace=name in self.pool.names())

    # As the pool's clock

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self.loop.time()

    def wall(self) -> float:
        """Return the wall clock that goes with it."""
        return 1_750_000_000.0 + self.loop.time()

    @property
    def events(self) -> int:
        """How much has happened so far."""
        return self.workshop.events

    def _probe(self) -> int:
        if self._is_probe_broken:
            raise OSError("no such file")
        return self.workshop.rss_bytes

    def _release_memory(self) -> None:
        self.workshop.events += 1
        if self._disk.is_broken:
            raise OSError("no such system call")

    # Its life

    def __enter__(self) -> Self:
        """Put fake threads under the pool and start it."""
        self._threading = vars(ondol.models.loader)["threading"]
        vars(ondol.models.loader)["threading"] = self._threads
        self.loop.run_until_complete(self.pool.start())
        return self

    def __exit__(self, *_exc: object) -> None:
        """Leave nothing behind, whatever went wrong."""
        if not self.loop.is_closed():
            self._close_loop()
        self._threads.finish_all()
        vars(ondol.models.loader)["threading"] = self._threading

    def step(self, kind: str, arguments: Arguments, pause_s: float = 0.0) -> None:
        """Do one thing and let ``pause_s`` pass.

        Raises:
            WorldError: something that must hold does not.
        """
        self.steps += 1
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self.note(f"{kind}({shown}), then {pause_s:g} s")
        if kind == "new_loop":
            self._change_loop(**arguments)
        else:
            self._run(self._act(getattr(self, f"_do_{kind}"), arguments, pause_s))
        self._audit.statuses()
        self._raise_fault()

    async def _act(self, action: Callable[..., None], arguments: Arguments, pause_s: float) -> None:
        self._try(lambda: action(**arguments))
        await asyncio.sleep(pause_s)

    def _try(self, deed: Callable[[], None]) -> None:
        try:
            deed()
        except EXPECTED_ERRORS as exc:
            self.note(f"  {type(exc).__name__}: {exc}")
        except Exception as exc:  # noqa: BLE001  # kept with the history
            self.fault(f"the pool raised {exc!r}")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self.loop.run_until_complete(work)
        except RuntimeError:
            self._raise_fault()  # the fault stopped the loop
            raise

    def _raise_fault(self) -> None:
        if self.faults:
            raise WorldError(f"{self.faults[0]}\n{self.describe()}")

    def settle(self) -> None:
        """Let every caller come to its end, stop, and see that nothing is left over.

        Raises:
            WorldError: something is.
        """
        self.note("settle")
        self._run(self._settle())
        self._raise_fault()
        self.note("stop and look what is left")
        self._run(self._stop_for_good())
        self._raise_fault()
        self._audit.leftovers()
        self._raise_fault()

    async def _settle(self) -> None:
        for _ in range(200):
            if not self._callers.waiting:
                return
            await asyncio.sleep(100.0)
        self.fault("these callers wait for ever: " + ", ".join(caller.label for caller in self._callers.waiting))

    async def _stop_for_good(self) -> None:
        await self.pool.stop(grace_s=100_000.0)
        while self._threads.waiting or self._callers.waiting:  # noqa: ASYNC110  # virtual seconds cost nothing
            await asyncio.sleep(1.0)
        await asyncio.sleep(0)

    # What it says

    def note(self, line: str) -> None:
        """Add a line to the history."""
        self.history.append(f"{self.loop.time():9.2f}  {line}")

    def fault(self, text: str) -> None:
        """Remember that something that must hold does not."""
        if not self.faults:
            self.note(f"FAULT: {text}")
        self.faults.append(text)

    def describe(self, lines: int = 80) -> str:
        """Return the end of the history and what can be seen of the models now."""
        rows = [f"  {s.name}: {s.state} ({s.reason}), {s.leases} leases" for s in self.pool.statuses()]
        return "\n".join(["The history that led there:", *self.history[-lines:], "The models now:", *rows])

    def _heard(self, event: str, name: str) -> None:
        self.workshop.events += 1
        self.note(f"  -> {event} {name}")
        self._audit.event(event, name)
        deed = self._ambushes.pop(event, None)
        if deed is not None:
            self._try(lambda: self._spring(deed, name))

    def _spring(self, deed: str, name: str) -> None:
        """Do ``deed`` in the very moment in which something happens to the model ``name``."""
        self.note(f"  {deed} of {name} at once")
        if deed == "cancel":
            self._callers.cancel_one_of(name)
        elif deed == "limit":
            self._do_limit(60)
        elif deed == "crash":
            self._do_crash(0)
        else:
            getattr(self, f"_do_{deed}")(name)

    def _report(self, _loop: object, context: dict[str, Any]) -> None:
        self.fault(f"left to the loop: {context.get('message')}: {context.get('exception')!r}")

    def _at_rest(self, seconds: float) -> None:
        """Look around: nothing can run, ``seconds`` are about to pass."""
        self._excuse(seconds)
        try:
            self._audit.rest(seconds)
        except Exception:  # noqa: BLE001  # it is a fault like any other
            self.fault(f"the check itself failed: {traceback.format_exc()}")

    def _excuse(self, seconds: float) -> None:
        ends_s = self._grace_ends_s
        if ends_s is not None and self.loop.time() + seconds >= ends_s - SLACK_S:
            self.workshop.excuse_all()

    # What can be done

    def _do_lease(self, name: str, seconds: float, nested: str | None, is_failing: bool) -> None:
        self._callers.call(f"lease {name}", self._callers.lease(name, seconds, nested, is_failing=is_failing))

    def _do_load(self, name: str, is_background: bool, displacing: Sequence[str], is_only: bool) -> None:
        load = self.pool.load(name, is_background=is_background, displacing=displacing, is_only_displacing=is_only)
        self._callers.call(f"load {name}", load)

    def _do_advise(self, names: Sequence[str] | None, fails_after: int) -> None:
        self.pool.set_advisor(None if names is None else Adviser(names, fails_after, self.fault))

    def _do_unload(self, name: str) -> None:
        self._callers.call(f"unload {name}", self._callers.unload(name))

    def _do_reload(self, name: str) -> None:
        self._callers.call(f"reload {name}", self._callers.reload(name))

    def _do_cancel(self, number: int) -> None:
        self._callers.cancel(number)

    def _do_ambush(self, event: str, deed: str) -> None:
        self._ambushes[event] = deed

    def _do_register(self, **fields: Any) -> None:
        with contextlib.suppress(DependencyCycleError):
            self._register(**fields)
            self.workshop.restart_idle_time()

    def _do_renew(self, name: str) -> None:
        entry = self.pool._registry.entries.get(name)
        if entry is not None:
            self.pool.register(dataclasses.replace(entry.spec), replace=True)

    def _do_load_mood(self, name: str, mood: str) -> None:
        self.workshop.load_moods[name] = mood

    def _do_warm_mood(self, name: str, mood: str) -> None:
        self.workshop.warm_moods[name] = mood

    def _do_unload_mood(self, name: str, mood: str) -> None:
        self.workshop.unload_moods[name] = mood

    def _do_grow(self, name: str, extra_bytes: int) -> None:
        self.workshop.extra_bytes[name] = extra_bytes

    def _do_crash(self, number: int) -> None:
        processes = [*self.workshop.processes.values()]
        if processes:
            process = processes[number % len(processes)]
            self.note(f"  {process.copy} crashes")
            process.crash()

    def _do_pin(self, name: str) -> None:
        self.pool.pin(name)

    def _do_unpin(self, name: str) -> None:
        self.pool.unpin(name)
        self.workshop.restart_idle_time()  # it may have been pinned a moment ago, while nobody looked

    def _do_promise(self, name: str, seconds: float) -> None:
        self.pool.promise(name, self.loop.time() + seconds)

    def _do_release(self, name: str) -> None:
        self.pool.release(name)

    def _do_limit(self, limit_bytes: int | None) -> None:
        self.pool.configure(memory_limit_bytes=limit_bytes)

    def _do_slots(self, demand: int, background: int) -> None:
        if self.pool._run is not None:
            self._audit.slots(self.pool._run)  # those under way go on, however many will be allowed
        self.pool.configure(max_demand_loads=demand, max_background_loads=background)

    def _do_lazy(self, is_on: bool, expected: Iterable[str]) -> None:
        self.pool.set_expected(list(expected))
        self.pool.configure(is_lazy_loading_enabled=is_on)

    def _do_retry(self, number: int) -> None:
        self.pool.configure(retry=RETRIES[number])

    def _do_idle(self, ttl_s: float | None) -> None:
        self.pool.configure(idle_ttl_s=ttl_s)
        self.workshop.restart_idle_time()

    def _do_patience(self, lease_timeout_s: float, load_timeout_s: float | None) -> None:
        self.pool.configure(lease_timeout_s=lease_timeout_s, load_timeout_s=load_timeout_s)

    def _do_disk(self, is_broken: bool) -> None:
        self._disk.is_broken = is_broken

    def _do_probe(self, is_broken: bool) -> None:
        self._is_probe_broken = is_broken

    def _do_calm(self) -> None:
        """Make everything as it was in the beginning, or random histories end among models that all fail."""
        self.workshop.restart_idle_time()
        self.workshop.calm()
        self._disk.is_broken = self._is_probe_broken = False
        self._do_lazy(is_on=True, expected=())
        self._do_patience(LEASE_TIMEOUT_S, None)
        self.pool.configure(retry=RETRIES[0], idle_ttl_s=None, memory_limit_bytes=LIMIT, max_demand_loads=4)
        for name in self.pool.names():
            self.pool.unpin(name)
            self.pool.release(name)

    def _do_start(self) -> None:
        self._callers.call("start", self.pool.start())

    def _do_stop(self, grace_s: float | None, restarts: bool) -> None:
        self._callers.call(f"stop within {grace_s}", self._stop(grace_s, restarts=restarts))

    def _do_wait(self, seconds: float) -> None:
        self._callers.call(f"wait {seconds}", asyncio.sleep(seconds))

    def _change_loop(self, is_stopped: bool) -> None:
        """End the loop as ``asyncio.run`` does, with the pool stopped or forgotten; go on in another loop."""
        if is_stopped:
            self._run(self.pool.stop(grace_s=1000.0))
        self._close_loop()
        self._threads.finish_all()
        self.workshop.forget_lost_loop()
        now_s = self.loop.time()
        self.loop = self._make_loop()
        VirtualTimeLoop.jump(self.loop, now_s)
        self._run(self.pool.start())

    def _close_loop(self) -> None:
        """Cancel everything, as the end of ``asyncio.run`` does."""
        self.workshop.excuse_all()
        self._callers.cancel_all()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.workshop.excuse_all()
        self._callers.waiting.clear()
        self._grace_ends_s = None
        self.loop.set_exception_handler(lambda _loop, _context: None)  # tasks begun meanwhile are lost, and said to be
        self.loop.close()

    async def _stop(self, grace_s: float | None, *, restarts: bool) -> None:
        await self.pool.stop(grace_s=grace_s)
        if restarts:
            await self.pool.start()

    async def _watched_close(self, run: PoolRun, grace_s: float) -> None:
        """Stand before the pool's own ``_close``: note when its grace ends, and that it ends within it."""
        began_s = self.loop.time()
        self._grace_ends_s = began_s + grace_s
        self._excuse(0.0)
        try:
            await self._close_pool(run, grace_s)
        finally:
            self._grace_ends_s = None
            self._remember_run(run)
        took_s = self.loop.time() - began_s
        if took_s > grace_s + _LAST_CALL_S + 1.0:
            self.fault(f"the stop took {took_s} s, its grace was {grace_s} s")
        self._audit.stopped(run)

    def _remember_run(self, run: PoolRun | None) -> None:
        if run is not None and (run._loads.jobs or run._residents.drains):
            self.workshop.earlier_runs.append(run)
