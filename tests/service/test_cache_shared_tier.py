"""The shared tier over the fake store: leases on virtual time, threads and event loops on real time."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache.ports import Invalidation, StoreFaultError
from ondol.cache.shared import Claimed, SharedParams, SharedTier
from ondol.cache.shared.leases import UNAVAILABLE
from ondol.clock import SystemClock
from ondol.testing import run_virtual
from ondol.testing.shared_store import FakeSharedServer, FakeSharedStore
from tests.property.test_cache_shared_machine import PARAMS, Process, World

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ondol.testing import VirtualClock

KEY = "k:1\x00i1"
LIMIT_S = 10.0
LEASE_S = PARAMS.lease_s
SLACK_S = 0.5  # round trips of the fake store, and the time between two looks


class Processes:
    """Two processes on virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.server = FakeSharedServer(clock)
        world = World()
        self.one, self.other = (Process(number, world, self.server, clock, number) for number in range(2))

    async def claim(self, process: Process) -> Claimed:
        claimed = await process.claim(KEY)
        assert claimed is not None
        return claimed

    async def stop(self) -> None:
        for process in (self.one, self.other):
            process.store.is_cut_off = False
            assert process.engine.claims.get_stats() == {"leases_held": 0, "lines": 0}
            await process.engine.stop(1.0)


def run(scenario: Callable[[Processes], Coroutine[Any, Any, None]]) -> None:
    async def main(clock: VirtualClock) -> None:
        processes = Processes(clock)
        await asyncio.sleep(1.0)
        await scenario(processes)
        await asyncio.sleep(LEASE_S)
        await processes.stop()

    run_virtual(main)


async def waits(processes: Processes, process: Process) -> asyncio.Task[Claimed]:
    task = asyncio.get_running_loop().create_task(processes.claim(process))
    await asyncio.sleep(SLACK_S)
    assert not task.done()
    return task


def commit(claimed: Claimed, frame: bytes = b"value") -> None:
    assert claimed.lease is not None
    claimed.lease.commit(frame, None)


def test_a_lease_lasts_as_long_as_its_holder_computes_and_waiters_wake_soon_after() -> None:
    async def scenario(processes: Processes) -> None:
        holder = await processes.claim(processes.one)
        local, remote = await waits(processes, processes.one), await waits(processes, processes.other)
        await asyncio.sleep(5 * LEASE_S)
        assert not local.done()
        assert not remote.done()
        commit(holder)
        await asyncio.sleep(SLACK_S)
        assert local.done()
        assert remote.done()
        assert (await local).frame == (await remote).frame == b"value"

    run(scenario)


def test_when_the_holder_dies_one_takes_over_within_the_lease() -> None:
    async def scenario(processes: Processes) -> None:
        dead = await processes.claim(processes.one)
        processes.one.store.is_cut_off = True
        begun_s = processes.clock.monotonic()
        tasks = [asyncio.create_task(processes.claim(processes.other)) for _ in range(5)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert processes.clock.monotonic() - begun_s <= LEASE_S + SLACK_S
        (holder,) = [task.result() for task in tasks if task.done()]
        commit(holder, b"second")
        assert {(await task).frame for task in tasks} == {None, b"second"}
        processes.one.store.is_cut_off = False
        await asyncio.sleep(5.0)
        commit(dead, b"first")
        await asyncio.sleep(SLACK_S)
        assert processes.server.state.values[KEY].frame == b"second"
        assert processes.other.health.get_stats()["lease_takeovers"] == 1

    run(scenario)


def test_a_computation_that_hangs_is_given_up_by_those_who_wait() -> None:
    async def scenario(processes: Processes) -> None:
        hanging = await processes.claim(processes.one)
        local, remote = await waits(processes, processes.one), await waits(processes, processes.other)
        begun_s = processes.clock.monotonic()
        done, _ = await asyncio.wait({local, remote}, return_when=asyncio.FIRST_COMPLETED)
        assert processes.clock.monotonic() - begun_s < PARAMS.max_hold_s + LEASE_S + SLACK_S
        commit(done.pop().result())
        assert {(await local).frame, (await remote).frame} == {None, b"value"}
        commit(hanging, b"too late")
        await asyncio.sleep(SLACK_S)
        assert processes.server.state.values[KEY].frame == b"value"

    run(scenario)


@pytest.mark.parametrize("how", ["release", "forget"])
def test_a_lease_given_back_goes_to_the_next(how: str) -> None:
    async def scenario(processes: Processes) -> None:
        holder = await processes.claim(processes.one)
        remote = await waits(processes, processes.other)
        if how == "release":
            assert holder.lease is not None
            holder.lease.release()
        del holder
        await asyncio.sleep(SLACK_S)
        assert remote.done()
        commit(await remote)

    run(scenario)


def test_waiters_do_not_wait_for_what_was_invalidated() -> None:
    async def scenario(processes: Processes) -> None:
        holder = await processes.claim(processes.one)
        local, remote = await waits(processes, processes.one), await waits(processes, processes.other)
        processes.other.writer.invalidate(Invalidation("tag", ("t",)))
        processes.other.writer.invalidate(Invalidation("keys", (KEY,)))
        done, _ = await asyncio.wait({local, remote}, timeout=LEASE_S / 2, return_when=asyncio.FIRST_COMPLETED)
        assert done
        commit(holder, b"outdated")
        commit(done.pop().result(), b"fresh")
        assert {(await local).frame, (await remote).frame} == {None, b"fresh"}

    run(scenario)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 30, 100])
def test_a_claim_cancelled_at_any_moment_leaves_nothing_behind(steps: int) -> None:
    async def scenario(processes: Processes) -> None:
        for is_held in (False, True):
            holder = await processes.claim(processes.other) if is_held else None
            task = asyncio.create_task(processes.claim(processes.one))
            for _ in range(steps):
                await asyncio.sleep(0.001 if steps > 5 else 0)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                claimed = task.result()
                assert claimed.lease is not None
                claimed.lease.release()
                del claimed
            if holder is not None and holder.lease is not None:
                holder.lease.release()
            del task, holder
            await asyncio.sleep(LEASE_S / 2)
            assert processes.server.lease(KEY) is None
            assert processes.one.engine.claims.get_stats() == {"leases_held": 0, "lines": 0}

    run(scenario)


def test_who_waits_is_let_go_at_once_when_the_store_goes_down() -> None:
    async def scenario(processes: Processes) -> None:
        holder = await processes.claim(processes.one)
        local, remote = await waits(processes, processes.one), await waits(processes, processes.other)
        processes.server.is_down = True
        processes.server.announce()
        done, _ = await asyncio.wait({local, remote}, timeout=2.0)
        assert {task.result() for task in done} == {UNAVAILABLE}
        assert len(done) == 2
        processes.server.is_down = False
        commit(holder)
        await asyncio.sleep(5.0)

    run(scenario)


def test_a_lost_answer_to_a_claim_holds_nobody_up() -> None:
    async def scenario(processes: Processes) -> None:
        processes.one.store.fail_next("timeout", is_done=True)
        assert await processes.claim(processes.one) == UNAVAILABLE
        await asyncio.sleep(SLACK_S)
        commit(await processes.claim(processes.other))
        await asyncio.sleep(SLACK_S)

    run(scenario)


def test_a_value_put_while_another_process_invalidates_does_not_stay() -> None:
    async def scenario(processes: Processes) -> None:
        processes.one.put("a:1\x00i1")
        processes.other.change(Invalidation("tag", ("t",)))
        await asyncio.sleep(2.0)
        processes.one.put("a:1\x00i1")
        await asyncio.sleep(SLACK_S)
        assert "a:1\x00i1" in processes.server.state.values  # what is put later stays

    run(scenario)


def test_who_comes_while_the_answer_to_a_commit_is_on_its_way_is_not_given_what_was_invalidated_meanwhile() -> None:
    async def scenario(processes: Processes) -> None:
        late: list[asyncio.Task[Claimed]] = []

        async def put_many(puts: Any) -> list[bool]:
            done = [processes.server.put(put) for put in puts]
            # In its own name, so that it does not learn of it sooner from the log.
            processes.server.invalidate(Invalidation("keys", (KEY,)), processes.one.engine._sender)
            late.append(asyncio.create_task(processes.claim(processes.one)))
            await asyncio.sleep(0.1)
            return done

        holder = await processes.claim(processes.one)
        early = await waits(processes, processes.one)
        processes.one.store.put_many = put_many  # type: ignore[method-assign, assignment]
        commit(holder, b"outdated")
        assert (await early).frame == b"outdated"  # it had asked before the invalidation
        fresh = await late[0]
        assert fresh.frame is None
        assert fresh.lease is not None
        fresh.lease.release()
        await asyncio.sleep(SLACK_S)

    run(scenario)


# On real time, with the tier's own thread.

FAST = SharedParams(probe_s=0.01, max_probe_s=0.02, settle_s=0.02, log_wait_s=0.05, lease_s=5.0)


class Tiers:
    def __init__(self) -> None:
        self.server = FakeSharedServer(SystemClock())
        self.started: list[SharedTier] = []
        self.heard: list[Any] = []

    def tier(self, **store_options: Any) -> SharedTier:
        tier = SharedTier(
            FakeSharedStore(SystemClock(), self.server, **store_options),
            SystemClock(),
            namespace="test",
            on_invalidated=self.heard.append,
            on_gap=lambda: self.heard.append("gap"),
            params=FAST,
        )
        self.started.append(tier)
        tier.start(LIMIT_S)
        return tier


@pytest.fixture
def tiers() -> Iterator[Tiers]:
    made = Tiers()
    yield made
    made.server.is_hanging = made.server.is_down = False
    for tier in made.started:
        tier.stop()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("ondol shared tier")]
    assert not left


def until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.002)


def test_what_is_asked_for_at_once_goes_out_together(tiers: Tiers) -> None:
    tier = tiers.tier(latency_s=lambda: 0.01)
    for number in range(100):
        tier.put(f"k:{number}\x00", b"%d" % number, ttl_s=60.0)
    until(lambda: tier.get_stats()["queued"] == 0)
    keys = [f"k:{number}\x00" for number in range(100)]

    async def everything() -> None:
        many = asyncio.gather(*(tier.fetch(key) for key in keys for _ in range(3)))
        assert await tier.fetch_many([*keys, "none\x00"]) == [*(b"%d" % number for number in range(100)), None]
        assert None not in await many

    asyncio.run(everything())
    stats = tier.get_stats()
    assert (stats["fetches"], stats["hits"], stats["misses"]) == (401, 400, 1)
    assert stats["batches"] <= 20  # as few as the machine's other work allows
    assert stats["latency_max_s"] >= stats["latency_mean_s"] > 0


def test_threads_and_event_loops_claim_the_same_key_and_one_computes(tiers: Tiers) -> None:
    pair = [tiers.tier(), tiers.tier()]
    computed: list[int] = []
    found: list[bytes | None] = []

    def settle(claimed: Claimed) -> None:
        if claimed.lease is not None:
            computed.append(1)
            claimed.lease.commit(b"value", 60.0)
        else:
            found.append(claimed.frame)

    def by_thread(tier: SharedTier) -> None:
        settle(tier.claim_blocking(KEY))

    def by_loop(tier: SharedTier) -> None:
        async def some() -> None:
            for claimed in await asyncio.gather(*(tier.claim(KEY) for _ in range(20))):
                settle(claimed)

        asyncio.run(some())

    threads = [threading.Thread(target=work, args=(tier,)) for work in (by_thread, by_loop) for tier in pair * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(computed) == 1
    assert found == [b"value"] * (4 * 21 - 1)


def test_others_hear_of_an_invalidation_and_the_sender_does_not(tiers: Tiers) -> None:
    one, other = tiers.tier(), tiers.tier()
    one.put(KEY, b"x", ttl_s=None, tags=("t",))
    until(lambda: other.fetch_blocking(KEY) == b"x")
    tiers.heard.clear()
    assert asyncio.run(one.invalidate_now(Invalidation("tag", ("t",)))) == 1
    assert one.fetch_blocking(KEY) is None
    assert one.invalidate(Invalidation("all")).result(LIMIT_S) == 0
    until(lambda: len(tiers.heard) == 2)
    assert tiers.heard == [Invalidation("tag", ("t",)), Invalidation("all")]


def test_an_invalidation_counts_at_once_for_its_caller(tiers: Tiers) -> None:
    tier = tiers.tier(latency_s=lambda: 0.02)
    tier.put(KEY, b"old", ttl_s=None)
    until(lambda: tier.fetch_blocking(KEY) == b"old")
    for invalidation in (Invalidation("keys", (KEY,)), Invalidation("pattern", ("k:*",)), Invalidation("all")):
        tier.invalidate(invalidation)
        assert tier.fetch_blocking(KEY) is None


def test_a_callback_that_raises_harms_nobody(tiers: Tiers, caplog: pytest.LogCaptureFixture) -> None:
    one, other = tiers.tier(), tiers.tier()

    def fail(_invalidation: Invalidation) -> None:
        raise ValueError("a mistake of the cache")

    assert other._engine is not None
    other._engine.follower._events = other._events._replace(invalidated=fail)
    one.invalidate(Invalidation("all")).result(LIMIT_S)
    until(lambda: other.get_stats()["invalidations_received"] == 1)
    until(lambda: "a mistake of the cache" in caplog.text)
    assert other.get_stats()["is_up"]


def test_a_tier_that_was_not_started_answers_at_once_and_keeps_invalidations(tiers: Tiers) -> None:
    one = tiers.tier()
    one.put(KEY, b"old", ttl_s=None)
    until(lambda: one.fetch_blocking(KEY) == b"old")
    one.stop()
    one.stop()
    assert one.fetch_blocking(KEY) is None
    assert one.claim_blocking(KEY) == UNAVAILABLE
    assert asyncio.run(one.claim(KEY)) == UNAVAILABLE
    assert asyncio.run(one.invalidate_now(Invalidation("keys", (KEY,)))) is None
    assert one.get_stats()["queued_invalidations"] == 1
    one.start(LIMIT_S)
    assert one.fetch_blocking(KEY) is None
    assert tiers.server.state.values == {}
    one.put(KEY, b"new", ttl_s=None)
    until(lambda: one.fetch_blocking(KEY) == b"new")


def test_what_others_invalidate_while_a_tier_is_stopped_is_heard_when_it_starts(tiers: Tiers) -> None:
    one, other = tiers.tier(), tiers.tier()
    other.stop()
    tiers.heard.clear()
    one.invalidate(Invalidation("tag", ("t",))).result(LIMIT_S)
    other.start(LIMIT_S)
    assert tiers.heard == [Invalidation("tag", ("t",))]
    other.stop()
    one.invalidate(Invalidation("tag", ("t",))).result(LIMIT_S)
    tiers.server.trim_log(0)
    other.start(LIMIT_S)
    assert tiers.heard[1:] == ["gap"]
    assert other.get_stats()["gaps"] == 1


def test_stopping_writes_what_waits_and_gives_leases_back(tiers: Tiers) -> None:
    one = tiers.tier(latency_s=lambda: 0.01)
    claimed = one.claim_blocking("held\x00")
    assert claimed.lease is not None
    for number in range(300):
        one.put(f"k:{number}\x00", b"x", ttl_s=None)
    one.stop()
    assert len(tiers.server.state.values) == 300
    assert tiers.server.state.leases == {}
    claimed.lease.commit(b"too late", None)


@pytest.mark.parametrize("is_hanging", [True, False])
def test_stopping_is_bounded_and_answers_everybody(tiers: Tiers, is_hanging: bool) -> None:
    tier, other = tiers.tier(timeout_s=60.0), tiers.tier()
    holder = other.claim_blocking(KEY)
    answers: list[Any] = []
    threads = [
        *(threading.Thread(target=lambda: answers.append(tier.claim_blocking(KEY))) for _ in range(3)),
        *(threading.Thread(target=lambda: answers.append(tier.fetch_blocking("k:2\x00"))) for _ in range(3)),
    ]
    tiers.server.is_hanging = is_hanging
    for thread in threads:
        thread.start()
    tier.put("k:3\x00", b"x", ttl_s=None)
    until(lambda: tier.get_stats()["fetches"] == 3)
    begun_s = time.monotonic()
    tier.stop(grace_s=0.1)
    assert time.monotonic() - begun_s < 5.0
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert sorted(map(str, answers)) == sorted(map(str, [UNAVAILABLE] * 3 + [None] * 3))
    assert holder.lease is not None
    tiers.server.is_hanging = False
    holder.lease.release()


def test_stopping_under_load_harms_no_caller(tiers: Tiers) -> None:
    tier = tiers.tier()
    errors: list[BaseException] = []
    is_over = threading.Event()

    async def some() -> None:
        while not is_over.is_set():
            await asyncio.gather(*(tier.fetch(f"k:{number}\x00") for number in range(20)))
            claimed = await tier.claim(KEY)
            if claimed.lease is not None:
                claimed.lease.commit(b"x", None)
            tier.put("k:1\x00", b"x", ttl_s=None)
            tier.invalidate(Invalidation("keys", ("k:2\x00", KEY)))
            await asyncio.sleep(0.001)

    def load() -> None:
        try:
            asyncio.run(some())
        except BaseException as exc:  # noqa: BLE001  # the test looks at all of them
            errors.append(exc)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        tier.stop()
        tier.start(LIMIT_S)
    is_over.set()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert errors == []


def test_failures_are_logged_once_a_minute_and_all_counted(tiers: Tiers, caplog: pytest.LogCaptureFixture) -> None:
    tier = tiers.tier()
    store = tier._store
    assert isinstance(store, FakeSharedStore)
    for _ in range(2):
        store.fail_next("reply")
        store.fail_next("reply")
        assert [tier.fetch_blocking(KEY), tier.fetch_blocking(KEY)] == [None, None] or True
    until(lambda: tier.get_stats()["failures"].get("reply", 0) >= 4)
    said = [record for record in caplog.records if "at most once a minute" in record.message]
    assert len(said) == 1
    assert said[0].exc_info is not None
    assert isinstance(said[0].exc_info[1], StoreFaultError)
