from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from ondol.errors import LifecycleError
from ondol.preload.history import FLUSH_S, RETRY_S, SNAPSHOT_S, History
from ondol.preload.history_file import HistoryFile
from ondol.preload.history_sharing import EXCHANGE_S
from ondol.preload.ports import Foreign
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.history_fakes import CountingKnowledge, FakeExchange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ondol.clock import Clock


class Node:
    """A process as far as the history is concerned: knowledge, a lock around it, a history in a folder."""

    def __init__(self, clock: Clock, folder: Path | None, shared: FakeExchange | None = None) -> None:
        self.clock = clock
        self.knowledge = CountingKnowledge()
        self.lock = threading.Lock()
        self.file = None if folder is None else HistoryFile(folder / "history.json")
        self.history = History(self.knowledge, self.file, clock=clock, shared=shared, lock=self.lock)

    def use(self, *names: str) -> None:
        for name in names:
            with self.lock:
                at_s = self.clock.monotonic()
                self.knowledge.use(name, at_s)
                self.history.used(name, at_s)

    def die(self) -> None:
        """Be killed: what is not in the file is lost, and the system lets go of the lock."""
        for task in self.history._tasks:
            task.cancel()
        if self.file is not None:
            self.file.close()

    def stats(self) -> dict[str, Any]:
        return self.history.get_stats()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(number: int) -> Any:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_what_was_learnt_outlives_a_stop_and_the_time_between_is_no_gap(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        first.use("a", "b")
        await asyncio.sleep(100.0)
        first.use("a")
        await asyncio.sleep(50.0)
        await first.history.stop()
        await first.history.stop()
        await asyncio.sleep(86_400.0)
        second = Node(clock, tmp_path)
        await second.history.start()
        assert second.knowledge.counts == {"a": 2, "b": 1}
        assert second.knowledge.ages(clock.monotonic()) == {"a": 50.0, "b": 150.0}
        assert (second.stats()["models_read"], second.stats()["uses_read"]) == (2, 0)
        await second.history.stop()

    run_virtual(scenario)


def test_a_kill_loses_the_last_flush_at_most_and_the_time_between_is_no_gap(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        await asyncio.sleep(10.5)
        first.use("a")
        await asyncio.sleep(FLUSH_S)  # a snapshot
        first.use("b", "a")
        await asyncio.sleep(1.0)
        first.use("b")
        await asyncio.sleep(FLUSH_S)  # the tail
        first.use("lost")
        assert first.stats()["uses_waiting"] == 1
        first.die()
        await asyncio.sleep(86_400.0)
        second = Node(clock, tmp_path)
        await second.history.start()
        assert second.knowledge.counts == {"a": 2, "b": 2}
        # The last flush was at 14 s, the second use of "a" at 12.5 s, the last of "b" at 13.5 s.
        assert second.knowledge.ages(clock.monotonic()) == pytest.approx({"a": 1.5, "b": 0.5}, abs=0.01)
        assert [name for name, _at_s in second.knowledge.replayed] == ["b", "a", "b"]
        assert all(at_s <= clock.monotonic() for _name, at_s in second.knowledge.replayed)
        assert second.stats()["uses_read"] == 3
        await second.history.stop()

    run_virtual(scenario)


def test_a_process_that_was_killed_after_hours_without_use_counts_those(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        first.use("a")
        await asyncio.sleep(4 * 3600.0)
        assert first.stats()["snapshots"] == 1
        first.die()
        second = Node(clock, tmp_path)
        await second.history.start()
        assert second.knowledge.ages(clock.monotonic())["a"] == pytest.approx(4 * 3600.0, abs=SNAPSHOT_S + FLUSH_S)
        await second.history.stop()

    run_virtual(scenario)


def test_a_snapshot_every_five_minutes_when_anything_was_learnt_and_never_a_use_twice(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        total, chance = 0, random.Random(5)
        for life in range(12):
            node = Node(clock, tmp_path)
            await node.history.start()
            assert sum(node.knowledge.counts.values()) == total
            for _ in range(chance.randrange(40)):
                node.use(f"m{chance.randrange(5)}")
                total += 1
                await asyncio.sleep(chance.uniform(0.0, 60.0))
            await asyncio.sleep(2 * FLUSH_S)
            if life % 3:
                node.die()
            else:
                await node.history.stop()
            assert node.stats()["failures"] == 0
        node = Node(clock, tmp_path)
        await node.history.start()
        node.use("m0")
        await asyncio.sleep(SNAPSHOT_S * 3)
        assert node.stats()["snapshots"] == 1
        node.use("m0")
        await asyncio.sleep(2 * FLUSH_S)
        assert node.stats()["snapshots"] == 2
        assert len(HistoryFile(tmp_path / "history.json").read().uses) == 0
        await node.history.stop()

    run_virtual(scenario)


def test_uses_from_before_the_start_come_after_what_was_kept(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        first.use("a")
        await asyncio.sleep(FLUSH_S + 0.1)
        first.use("a")
        await asyncio.sleep(FLUSH_S)
        first.die()
        second = Node(clock, tmp_path)
        early_s = clock.monotonic()
        second.use("b")
        await asyncio.sleep(100.0)
        await second.history.start()
        assert all(at_s <= early_s for _name, at_s in second.knowledge.replayed)
        await asyncio.sleep(FLUSH_S + 0.1)
        second.die()
        third = Node(clock, tmp_path)
        await third.history.start()
        assert third.knowledge.counts == {"a": 2, "b": 1}
        await third.history.stop()

    run_virtual(scenario)


def test_an_unused_history_leaves_no_snapshot(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        await node.history.start()
        await asyncio.sleep(1000.0)
        await node.history.stop()
        assert names_in(tmp_path) == ["history.lock"]
        nowhere = Node(clock, None)
        await nowhere.history.start()
        nowhere.use("a")
        await asyncio.sleep(1000.0)
        assert nowhere.stats()["uses_waiting"] == 0
        await nowhere.history.stop()

    run_virtual(scenario)


def test_the_second_process_keeps_nothing_says_so_once_and_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first, second = Node(clock, tmp_path), Node(clock, tmp_path)
        await first.history.start()
        first.use("a", "a")
        await asyncio.sleep(FLUSH_S + 0.1)
        await second.history.start()
        assert second.knowledge.counts == {"a": 2}
        for _ in range(5):
            second.use("b")
            await asyncio.sleep(FLUSH_S)
        assert not second.stats()["is_kept"]
        assert sum("another process" in record.message for record in caplog.records) == 1
        first.use("a", "c")
        await first.history.stop()
        second.use("b")
        await asyncio.sleep(FLUSH_S + 0.1)
        assert second.stats()["is_kept"]
        assert second.knowledge.counts == {"a": 3, "b": 6, "c": 1}
        second.die()
        third = Node(clock, tmp_path)
        await third.history.start()
        assert third.knowledge.counts == {"a": 3, "b": 6, "c": 1}
        await third.history.stop()

    with caplog.at_level(logging.INFO, "ondol.preload"):
        run_virtual(scenario)


def test_a_reader_of_an_unchanged_file_takes_over_without_counting_anything_again(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first, second = Node(clock, tmp_path), Node(clock, tmp_path)
        await first.history.start()
        first.use("a")
        await asyncio.sleep(FLUSH_S + 0.1)
        first.use("a")
        await asyncio.sleep(FLUSH_S)
        await second.history.start()
        first.die()
        second.use("a")
        await asyncio.sleep(FLUSH_S + 0.1)
        assert second.stats()["is_kept"]
        assert second.knowledge.counts == {"a": 3}
        await second.history.stop()

    run_virtual(scenario)


@pytest.mark.parametrize("name", ["history.json", "history.tail"])
def test_damage_is_set_aside_logged_and_counted_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        for _ in range(3):
            first.use("a")
            await asyncio.sleep(FLUSH_S + 0.1)
        first.die()
        path = tmp_path / name
        data = bytearray(path.read_bytes())
        data[-3] ^= 0xFF
        path.write_bytes(data)
        second = Node(clock, tmp_path)
        await second.history.start()
        assert second.knowledge.counts == {"a": 2}
        assert (second.stats()["damaged"], second.stats()["failures"]) == (1, 0)
        assert (tmp_path / f"{name}.damaged").read_bytes() == data
        assert any(record.exc_info for record in caplog.records)
        second.use("a")
        await second.history.stop()
        third = Node(clock, tmp_path)
        await third.history.start()
        assert third.knowledge.counts == {"a": 3}
        assert third.stats()["damaged"] == 0
        await third.history.stop()

    run_virtual(scenario)


def test_a_snapshot_that_the_knowledge_refuses_is_set_aside(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        for plain in ({"format": 2}, {"format": 1}, {"format": 1, "models": {"a": "x"}}):
            file = HistoryFile(tmp_path / "history.json")
            assert file.open()
            file.write(plain)
            file.append([("a", 1.0)], 1.0)
            file.close()
            node = Node(clock, tmp_path)
            await node.history.start()
            assert node.knowledge.counts == {"a": 1}
            assert node.stats()["damaged"] == 1
            assert (tmp_path / "history.json.damaged").exists()
            assert not (tmp_path / "history.json").exists()
            await node.history.stop()

    run_virtual(scenario)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_is_full_is_logged_once_counted_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        await node.history.start()
        node.use("a")
        await asyncio.sleep(FLUSH_S + 0.1)
        with monkeypatch.context() as patch:
            patch.setattr("ondol.preload.history_file._write_all", fails(number))
            for _ in range(100):
                node.use("a")
                await asyncio.sleep(1.0)
        stats = node.stats()
        assert 3 <= stats["failures"] <= 5
        assert stats["is_failing"]
        assert [bool(record.exc_info) for record in caplog.records if record.levelno == logging.ERROR] == [True]
        await asyncio.sleep(RETRY_S + FLUSH_S)
        assert not node.stats()["is_failing"]
        node.die()
        again = Node(clock, tmp_path)
        await again.history.start()
        assert again.knowledge.counts == {"a": 101}
        with monkeypatch.context() as patch:
            patch.setattr("ondol.preload.history_file._write_all", fails(number))
            await again.history.stop()
        assert again.stats()["failures"] == 1
        third = Node(clock, tmp_path)
        await third.history.start()  # the lock was given back
        assert third.knowledge.counts == {"a": 101}
        assert third.stats()["is_kept"]
        await third.history.stop()

    run_virtual(scenario)


def test_what_cannot_be_read_is_not_written_over_and_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        first = Node(clock, tmp_path)
        await first.history.start()
        first.use("a", "a")
        await first.history.stop()
        second = Node(clock, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr("ondol.preload.history_file._content", fails(errno.EACCES))
            await second.history.start()
            second.use("b")
            await asyncio.sleep(RETRY_S + 10.0)
            assert second.stats()["failures"] == 2
        second.use("b")
        await asyncio.sleep(RETRY_S + FLUSH_S)
        assert second.knowledge.counts == {"a": 2, "b": 2}
        await second.history.stop()
        third = Node(clock, tmp_path)
        await third.history.start()
        assert third.knowledge.counts == {"a": 2, "b": 2}
        await third.history.stop()

    run_virtual(scenario)


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        (tmp_path / "file").write_bytes(b"")
        node = Node(clock, tmp_path / "file")
        await node.history.start()
        node.use("a")
        await asyncio.sleep(100.0)
        assert node.stats()["failures"] >= 2
        await node.history.stop()

    run_virtual(scenario)


def test_knowledge_that_fails_is_a_failure_and_the_lock_is_given_back(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        await node.history.start()
        node.use("a")
        node.knowledge.failure = ArithmeticError("broken")
        await asyncio.sleep(FLUSH_S + 0.1)
        await node.history.stop()
        assert node.stats()["failures"] == 2
        other = Node(clock, tmp_path)
        await other.history.start()
        assert other.stats()["is_kept"]
        await other.history.stop()

    run_virtual(scenario)


def test_more_uses_than_wait_go_into_a_snapshot(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        await node.history.start()
        node.use("a")
        await asyncio.sleep(FLUSH_S + 0.1)
        node.use(*["a"] * 120_000)
        await asyncio.sleep(FLUSH_S)
        assert node.stats()["snapshots"] == 2
        node.use(*["a"] * 60_000)
        await asyncio.sleep(FLUSH_S)
        assert node.stats()["snapshots"] == 2
        node.use(*["a"] * 60_000)  # the tail is full then
        await asyncio.sleep(FLUSH_S)
        assert node.stats()["snapshots"] == 3
        node.die()
        again = Node(clock, tmp_path)
        await again.history.start()
        assert again.knowledge.counts == {"a": 240_001}
        await again.history.stop()

    run_virtual(scenario)


# Loops, threads, cancellation


def test_it_runs_in_one_loop_after_another(tmp_path: Path) -> None:
    clock = FakeClock()
    node = Node(clock, tmp_path)

    async def use_and_stop() -> None:
        await node.history.start()
        await node.history.start()
        node.use("a")
        await node.history.stop()

    async def use_and_leave() -> None:
        await node.history.start()
        node.use("a")

    for scenario in (use_and_stop, use_and_leave, use_and_leave, use_and_stop):
        asyncio.run(scenario())
    other = Node(clock, tmp_path)
    asyncio.run(other.history.start())
    assert other.knowledge.counts == {"a": 4}
    asyncio.run(other.history.stop())


def test_two_loops_at_once_are_refused(tmp_path: Path) -> None:
    node = Node(FakeClock(), tmp_path)

    async def scenario() -> None:
        await node.history.start()
        with pytest.raises(LifecycleError):
            await asyncio.to_thread(asyncio.run, node.history.start())
        await asyncio.to_thread(asyncio.run, node.history.stop())
        assert node.stats()["is_kept"]
        await node.history.stop()

    asyncio.run(scenario())


def test_a_start_or_stop_that_is_cancelled_can_be_repeated(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        for _ in range(3):
            starting = asyncio.ensure_future(node.history.start())
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait({starting})
            assert starting.cancelled()
        await node.history.start()
        node.use("a")
        stopping = asyncio.ensure_future(node.history.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait({stopping})
        await node.history.stop()
        again = Node(clock, tmp_path)
        await again.history.start()
        assert again.knowledge.counts == {"a": 1}
        assert again.stats()["is_kept"]
        await again.history.stop()

    run_virtual(scenario)


def test_a_record_left_behind_by_a_cancelled_flush_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush hangs in the disk when the process stops: the last snapshot has its uses already."""
    gate, entered = threading.Event(), threading.Event()
    real = HistoryFile.append

    def slow(self: HistoryFile, *args: Any) -> bool:
        entered.set()
        assert gate.wait(30)
        return real(self, *args)

    monkeypatch.setattr(HistoryFile, "append", slow)

    async def scenario() -> None:
        clock = FakeClock()
        node = Node(clock, tmp_path)
        await node.history.start()
        node.use("a")
        await node.history._flush()
        node.use("a")
        flush = asyncio.ensure_future(node.history._flush())
        await asyncio.to_thread(entered.wait, 30)
        flush.cancel()
        await asyncio.wait({flush})
        stopping = asyncio.ensure_future(node.history.stop())
        await asyncio.sleep(0)
        gate.set()
        await stopping
        again = Node(clock, tmp_path)
        await again.history.start()
        assert again.knowledge.counts == {"a": 2}
        await again.history.stop()

    asyncio.run(scenario())


def test_an_older_snapshot_never_replaces_a_newer_one(tmp_path: Path) -> None:
    node = Node(FakeClock(), tmp_path)
    assert node.file is not None
    assert node.file.open()
    node.use("a")
    older = node.history._captured()
    node.use("a")
    newer = node.history._captured()
    node.history._put_snapshot(newer)
    node.history._put_snapshot(older)
    assert node.history._put_uses(older.number, 0.0, [("a", 1.0)], 1.0) is False
    kept = node.file.read()
    assert kept.knowledge is not None
    assert kept.knowledge["models"]["a"][0] == 2
    node.file.close()


def test_uses_come_from_many_threads_and_each_is_kept_once(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        node = Node(clock, tmp_path)
        await node.history.start()

        def use(name: str) -> None:
            for _ in range(2000):
                node.use(name)

        for _ in range(3):
            work = [asyncio.to_thread(use, f"m{index}") for index in range(4)]
            await asyncio.gather(*work, node.history._flush())
        await asyncio.sleep(FLUSH_S + 0.1)
        node.die()
        again = Node(clock, tmp_path)
        await again.history.start()
        assert again.knowledge.counts == {f"m{index}": 6000 for index in range(4)}
        await again.history.stop()

    run_virtual(scenario)


def test_a_use_costs_less_than_a_microsecond(tmp_path: Path) -> None:
    history = Node(FakeClock(), tmp_path).history
    used, best_s = history.used, 1.0
    gc.collect()
    for _ in range(200):
        begun_s = time.perf_counter()
        for _ in range(200):
            used("a", 1.0)
        best_s = min(best_s, (time.perf_counter() - begun_s) / 200)
    assert best_s < 1e-6


# Other nodes


def test_nodes_learn_from_each_other_at_start_and_every_five_minutes(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        left: dict[str, Foreign] = {}
        one = Node(clock, tmp_path / "one", FakeExchange("one", left))
        await one.history.start()
        one.use("a", "a")
        assert not left
        await asyncio.sleep(EXCHANGE_S + 1.0)
        assert left["one"].knowledge["models"]["a"][0] == 2
        await asyncio.sleep(100.0)
        two = Node(clock, tmp_path / "two", FakeExchange("two", left))
        await two.history.start()
        assert two.knowledge.counts == {"a": 2}
        assert two.knowledge.ages(clock.monotonic()) == {
            "a": 300.0
        }  # as of when it was left: what passed since is no gap
        two.use("b")
        await asyncio.sleep(2 * EXCHANGE_S)
        assert one.knowledge.counts == {"a": 2, "b": 1}
        two.die()
        kept = HistoryFile(tmp_path / "two" / "history.json").read().knowledge
        assert kept is not None
        assert set(kept["models"]) == {"a", "b"}  # what others know is news, too
        one.use("c")
        await one.history.stop()
        assert "c" in left["one"].knowledge["models"]
        shared = one.stats()["shared"]
        assert (shared["failures"], shared["models_taken"]) == (0, 1)

    run_virtual(scenario)


def test_what_was_taken_in_is_not_asked_for_again_and_what_cannot_be_used_is_counted_once() -> None:
    async def scenario(clock: VirtualClock) -> None:
        left = {
            "old": Foreign("old", 1.0, {"format": 1, "models": {"a": [1, 1.0]}}),
            "bad": Foreign("bad", 1.0, {"format": 7}),
            "worse": Foreign("worse", 1.0, {"format": 1}),
        }
        node = Node(clock, None, FakeExchange("me", left))
        await node.history.start()
        await asyncio.sleep(3 * EXCHANGE_S)
        shared = node.stats()["shared"]
        assert (shared["nodes_read"], shared["models_taken"], shared["damaged"]) == (1, 1, 2)
        await node.history.stop()

    run_virtual(scenario)


def test_an_exchange_that_is_down_is_logged_once_an_episode_and_affects_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        exchange = FakeExchange("me", {})
        node = Node(clock, None, exchange)
        exchange.is_down = True
        await node.history.start()
        await asyncio.sleep(3 * EXCHANGE_S + 1.0)
        assert node.stats()["shared"]["failures"] == 4
        exchange.is_down = False
        await asyncio.sleep(EXCHANGE_S)
        assert not node.stats()["shared"]["is_failing"]
        exchange.is_down = True
        await node.history.stop()
        assert node.stats()["shared"]["failures"] == 5

    run_virtual(scenario)
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 2


def test_an_exchange_that_hangs_holds_up_a_start_for_a_second_and_a_stop_for_three() -> None:
    gate = threading.Event()

    class Hanging(FakeExchange):
        def _reach(self) -> None:
            gate.wait(30)

    async def scenario() -> None:
        node = Node(FakeClock(), None, Hanging("me", {}))
        begun_s = time.monotonic()
        await node.history.start()
        assert 0.9 < time.monotonic() - begun_s < 3.0
        await node.history.stop()
        assert time.monotonic() - begun_s < 8.0
        gate.set()

    asyncio.run(scenario())


# Processes

VICTIM = """
import sys, asyncio
from ondol.preload.history_file import HistoryFile
from tests.service.history_fakes import CountingKnowledge
file, number = HistoryFile(sys.argv[1]), 0
assert file.open()
knowledge, kept = CountingKnowledge(), file.read()
assert not kept.damage, kept.damage
if kept.knowledge: knowledge.take_in(kept.knowledge, 0.0)
for name, at_s in kept.uses: knowledge.replay(name, at_s)
print("read", sum(knowledge.counts.values()), flush=True)
while True:
    number += 1
    names = [f"m{(number * 7 + index) % 23}" for index in range(20)]
    for name in names: knowledge.use(name, 0.0)
    print("begin", flush=True)
    if number % 9 == 1 or not file.append([(name, number / 10) for name in names], number / 10):
        file.write(knowledge.to_plain(0.0))
    print("done", flush=True)
"""
HOLDER = """
import os, sys
from ondol.preload.history_file import HistoryFile
file = HistoryFile(sys.argv[1])
assert file.open()
reader, writer = os.pipe()
if sys.argv[2:] and not os.fork():
    assert not file.append([("a", 1.0)], 1.0)
    assert not file.open()
    print("child", flush=True)
    os.write(writer, b"x")
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
if sys.argv[2:]:
    os.read(reader, 1)
    os._exit(0)
sys.stdin.read()
"""


class Stage:
    """Starts processes, and ends them after the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-c", script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
        return self.processes[-1]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def test_killed_while_writing_it_has_what_was_written_and_nothing_twice(tmp_path: Path, stage: Stage) -> None:
    chance, least, most = random.Random(11), 0, 0
    for _ in range(10):
        victim = stage.start(VICTIM, str(tmp_path / "history.json"))
        word, count = output(victim).readline().split()
        assert word == "read"
        assert least <= int(count) <= most
        lines = [output(victim).readline() for _ in range(chance.randrange(1, 120))]
        for _ in range(chance.randrange(20_000)):
            pass  # anywhere within a write
        victim.send_signal(signal.SIGKILL)
        lines += output(victim).readlines()
        victim.wait()
        least = int(count) + 20 * lines.count("done\n")
        most = int(count) + 20 * lines.count("begin\n")
    assert most > 1000


def test_of_two_processes_only_one_writes(tmp_path: Path, stage: Stage) -> None:
    holder = stage.start(HOLDER, str(tmp_path / "history.json"))
    assert output(holder).readline() == "held\n"
    file = HistoryFile(tmp_path / "history.json")
    assert not file.open()
    holder.kill()
    holder.wait()
    assert file.open()
    file.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_writes_nor_holds_the_lock_when_its_parent_is_gone(tmp_path: Path, stage: Stage) -> None:
    holder = stage.start(HOLDER, str(tmp_path / "history.json"), "fork")
    assert {output(holder).readline(), output(holder).readline()} == {"held\n", "child\n"}
    holder.wait()
    file = HistoryFile(tmp_path / "history.json")
    assert file.open()
    file.close()
