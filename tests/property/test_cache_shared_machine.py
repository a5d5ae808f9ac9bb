"""Several processes over one shared store that fails in every way, on virtual time: nothing stale after an answer.

The value of a key is the version of its source when the computation began. Whoever asks after an invalidation was
acknowledged must not get an older version from the store; once everything is well again, nor from memory.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ondol.cache.glob import Glob
from ondol.cache.keys import key_text
from ondol.cache.ports import Invalidation, Put
from ondol.cache.shared.engine import Engine
from ondol.cache.shared.follower import Events
from ondol.cache.shared.health import Health
from ondol.cache.shared.leases import Sender
from ondol.cache.shared.params import SharedParams
from ondol.cache.shared.ticket import Ticket
from ondol.cache.shared.writer import Writer
from ondol.recorder import discard
from ondol.testing import VirtualClock, VirtualTimeLoop
from ondol.testing.shared_store import FakeSharedServer, FakeSharedStore

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ondol.cache.ports import FaultKind
    from ondol.cache.shared.leases import Claimed

KEYS = ("a:1\x00i1", "a:2\x00i1", "b:1\x00i1")
TAGS = {KEYS[0]: ("t",), KEYS[1]: ("t", "u"), KEYS[2]: ()}
PROCESSES = 3
LEASE_S = 2.0
# Many kinds of trouble in little time: small bounds, so that they are reached.
PARAMS = SharedParams(lease_s=LEASE_S, queue_values=4, queue_puts=6, max_hold_s=20.0, log_wait_s=1.0)

INVALIDATIONS = [
    *(Invalidation("keys", (key,)) for key in KEYS),
    Invalidation("keys", KEYS[:2]),
    Invalidation("tag", ("t",)),
    Invalidation("tag", ("u",)),
    Invalidation("pattern", ("a:*",)),
    Invalidation("all"),
]
FAULTS: list[FaultKind] = ["connection", "timeout", "protocol", "memory", "reply", "readonly"]


def meant(invalidation: Invalidation) -> list[str]:
    if invalidation.kind == "keys":
        return list(invalidation.values)
    if invalidation.kind == "tag":
        return [key for key in KEYS if set(TAGS[key]) & set(invalidation.values)]
    if invalidation.kind == "pattern":
        return [key for key in KEYS if any(Glob(glob).matches(key_text(key)) for glob in invalidation.values)]
    return list(KEYS)


class World:
    """What is true: the sources' versions, and those that every later answer has to have at least."""

    def __init__(self) -> None:
        self.versions = dict.fromkeys(KEYS, 0)
        self.floors = dict.fromkeys(KEYS, 0)
        self.faults: list[str] = []
        self.were_put: set[str] = set()

    def acknowledged(self, versions: dict[str, int]) -> None:
        for key, version in versions.items():
            self.floors[key] = max(self.floors[key], version)


class Process:
    """One process: a memory and an engine, as the cache has them."""

    def __init__(self, number: int, world: World, server: FakeSharedServer, clock: VirtualClock, seed: int) -> None:
        self.number = number
        self.world = world
        self.random = random.Random(seed)
        self.memory: dict[str, int] = {}
        self.generation = 0
        self.store = FakeSharedStore(clock, server, latency_s=lambda: self.random.choice((0.0, 0.001, 0.03)))
        self.health = Health(PARAMS, clock, self.random.random, discard)
        self.writer = Writer(PARAMS, self.health)
        events = Events(self.drop, self.drop_all)
        sender = Sender(f"{self.random.getrandbits(64):016x}")
        self.engine = Engine(self.store, PARAMS, self.health, self.writer, events=events, sender=sender)
        self.engine.start(None)
        self.callers: set[asyncio.Task[None]] = set()

    def drop(self, invalidation: Invalidation) -> None:
        self.generation += 1  # as a cache detaches what is being fetched or computed
        for key in meant(invalidation):
            self.memory.pop(key, None)

    def drop_all(self) -> None:
        self.generation += 1
        self.memory.clear()

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.callers.add(task)
        task.add_done_callback(self.callers.discard)

    def check(self, what: str, key: str, frame: bytes | None, floor: int) -> None:
        # A value that was put is written some time later: one that was overtaken is found for a moment.
        if frame is not None and not frame.startswith(b"put") and int(frame) < floor:
            self.world.faults.append(
                f"process {self.number}: {what} {key!r} gave {int(frame)}, at least {floor} is due"
            )

    async def fetch(self, key: str) -> None:
        floor = self.world.floors[key]
        if not self.health.is_up or self.writer.blocks(key):
            return
        ticket: Ticket[bytes | None] = Ticket(asyncio.get_running_loop())
        self.engine.reads.ask((key, ticket))
        self.check("fetch", key, await ticket.arrival(), floor)

    async def get(self, key: str, compute_s: float, *, fails: bool) -> None:
        if key in self.memory:
            return
        floor, generation = self.world.floors[key], self.generation
        claimed = await self.claim(key)
        if claimed is None:
            return
        frame = claimed.frame
        if frame is None:
            version = self.world.versions[key]
            await asyncio.sleep(compute_s)
            frame = b"%d" % version
            if claimed.lease is not None and fails:
                claimed.lease.release()
                return
            if claimed.lease is not None:
                claimed.lease.commit(frame, 50.0, TAGS[key])
        self.check("claim", key, frame, floor)
        if generation == self.generation:
            self.memory[key] = int(frame.removeprefix(b"put "))

    async def claim(self, key: str) -> Claimed | None:
        if not self.health.is_up:
            return None
        ticket: Ticket[Claimed] = Ticket(asyncio.get_running_loop())
        self.engine.claims.ask(key, ticket)
        try:
            return await ticket.arrival()
        except asyncio.CancelledError:
            answer = ticket.leave()
            if answer is not None and answer.lease is not None:
                answer.lease.release()
            self.engine.claims.left(key)
            raise

    def change(self, invalidation: Invalidation) -> None:
        """Change the sources, then invalidate."""
        keys = meant(invalidation)
        for key in keys:
            self.world.versions[key] += 1
        versions = {key: self.world.versions[key] for key in keys}
        self.drop(invalidation)
        self.writer.invalidate(
            invalidation, lambda count: self.world.acknowledged(versions) if count is not None else None
        )

    def put(self, key: str) -> None:
        """Set a value by hand: it is the newest there is."""
        version = self.world.versions[key]
        self.world.were_put.add(key)
        self.generation += 1
        self.memory[key] = version
        self.writer.put(Put(key, b"put %d" % version, 50.0, TAGS[key]))


class SharedTierMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.world = World()
        self.server = FakeSharedServer(self.clock)
        self.processes: list[Process] = []
        self.seed = 0

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(work)

    def settle(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    async def new_process(self, number: int) -> Process:
        self.seed += 1
        return Process(number, self.world, self.server, self.clock, self.seed)

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.seed = seed
        for number in range(PROCESSES):
            self.processes.append(self.run(self.new_process(number)))
        self.settle(0.2)

    numbers = st.integers(0, PROCESSES - 1)
    keys = st.sampled_from(KEYS)

    async def _do(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        process.call(work)

    @rule(number=numbers, key=keys, compute_s=st.sampled_from([0.0, 0.01, 0.1, 1.0, 3.0, 30.0]), fails=st.booleans())
    def ask(self, number: int, key: str, compute_s: float, fails: bool) -> None:
        process = self.processes[number]
        self.run(self._do(process, process.get(key, compute_s, fails=fails)))

    @rule(key=keys, compute_s=st.sampled_from([0.01, 1.0]), invalidation=st.sampled_from(INVALIDATIONS), number=numbers)
    def compute_while_it_changes(self, key: str, compute_s: float, invalidation: Invalidation, number: int) -> None:
        self.ask(number, key, compute_s, False)
        self.settle(compute_s / 2)
        self.change((number + 1) % PROCESSES, invalidation)

    @rule(key=keys, compute_s=st.sampled_from([0.01, 1.0]))
    def all_ask(self, key: str, compute_s: float) -> None:
        for process in self.processes:
            self.run(self._do(process, process.get(key, compute_s, fails=False)))

    @rule(number=numbers, key=keys)
    def fetch(self, number: int, key: str) -> None:
        self.run(self._do(self.processes[number], self.processes[number].fetch(key)))

    @rule(number=numbers, invalidation=st.sampled_from(INVALIDATIONS))
    def change(self, number: int, invalidation: Invalidation) -> None:
        self.processes[number].change(invalidation)

    @rule(key=keys)
    def all_fetch(self, key: str) -> None:
        for process in self.processes:
            process.memory.clear()
            self.run(self._do(process, process.fetch(key)))
            self.run(self._do(process, process.get(key, 0.01, fails=False)))

    @rule(number=numbers, key=keys)
    def put(self, number: int, key: str) -> None:
        self.processes[number].put(key)

    @rule(number=numbers)
    def forget_memory(self, number: int) -> None:
        self.processes[number].memory.clear()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3, 1.0, 2.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.settle(seconds)

    # One rule for all trouble, which ends by itself: most steps are to find the world working.
    @rule(
        trouble=st.sampled_from(["fault", "hang", "down", "cut off", "empty", "crash", "kill", "trim", "cancel"]),
        number=numbers,
        seconds=st.sampled_from([0.02, 0.3, 2.0, 6.0]),
        kind=st.sampled_from(FAULTS),
        times=st.integers(1, 4),
        is_done=st.booleans(),
    )
    def trouble(  # noqa: C901  # a table of troubles
        self, trouble: str, number: int, seconds: float, kind: FaultKind, times: int, is_done: bool
    ) -> None:
        process, server = self.processes[number], self.server
        if trouble == "fault":
            for _ in range(times):
                process.store.fail_next(kind, is_done=is_done)
        elif trouble == "hang":
            server.is_hanging = True
            self.loop.call_later(seconds, setattr, server, "is_hanging", False)
        elif trouble == "down":
            server.is_down = True
            self.loop.call_later(seconds, setattr, server, "is_down", False)
        elif trouble == "cut off":
            process.store.is_cut_off = True
            self.loop.call_later(seconds, setattr, process.store, "is_cut_off", False)
        elif trouble == "empty":
            server.restart()
        elif trouble == "crash":  # what comes within the next seconds will be lost, but not on those who saw it
            self.loop.call_later(seconds, server.restart, server.snapshot())
        elif trouble == "trim":
            server.trim_log(times - 1)
        elif trouble == "kill":
            self.run(self._kill(process))
            self.processes[number] = self.run(self.new_process(number))
        elif process.callers:
            min(process.callers, key=lambda task: task.get_name()).cancel()

    async def _kill(self, process: Process) -> None:
        process.store.is_cut_off = True
        callers = set(process.callers)
        for caller in callers:
            caller.cancel()
        if callers:
            await asyncio.wait(callers)
        await process.engine.stop(0.0)

    @invariant()
    def nobody_got_anything_stale(self) -> None:
        assert not self.world.faults, self.world.faults

    def teardown(self) -> None:
        try:
            if self.processes:
                self._heal()
        finally:
            for task in (tasks := asyncio.all_tasks(self.loop)):
                task.cancel()
            if tasks:
                self.run(asyncio.wait(tasks))
            self.loop.close()
            asyncio.set_event_loop(None)

    def _heal(self) -> None:
        self.server.is_down = self.server.is_hanging = False
        for process in self.processes:
            process.store.is_cut_off = False
        self.settle(100.0)
        assert not self.world.faults, self.world.faults
        for process in self.processes:
            assert process.health.is_up
            assert process.writer.is_idle()
            assert not process.callers
            assert process.engine.claims.get_stats() == {"leases_held": 0, "lines": 0}
            for key, version in process.memory.items():
                if key in self.world.were_put:
                    continue
                assert version >= self.world.floors[key], (process.number, key, version, self.world.floors)
        for key in KEYS:
            value = self.server.value(key)
            assert value is None or value.frame.startswith(b"put") or int(value.frame) >= self.world.floors[key]
        for process in self.processes:
            self.run(process.engine.stop(1.0))
        left = asyncio.all_tasks(self.loop)
        assert not left, left


SharedTierMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSharedTierMachine = SharedTierMachine.TestCase
