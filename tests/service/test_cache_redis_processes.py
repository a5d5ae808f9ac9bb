"""Real processes over a real server: one computes for all, a killed one is replaced, a stopped server harms nobody."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest

from ondol.cache.adapters.redis_store import RedisStore
from ondol.cache.ports import Invalidation
from ondol.cache.shared import SharedParams
from tests.service.redis_server import RedisServer
from tests.service.test_cache_redis_faults import FAST, LIMIT_S, started, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ondol.cache.shared import SharedTier

PROCESSES = 4
CALLERS = 250
LEASE_S = 1.0


class Worker:
    def __init__(self, url: str, namespace: str, compute_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.redis_worker", url, namespace]
            + [str(number) for number in (CALLERS, compute_s, LEASE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_a_thousand_misses_over_four_processes_are_one_computation_and_a_killed_holder_costs_one_more(
    server: RedisServer,
) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(server.url, "many", 0.3)) for _ in range(PROCESSES)]
        assert all(worker.answer()["is_up"] for worker in workers)
        for worker in workers:
            worker.ask("k:1")
        answers = [worker.answer() for worker in workers]
        assert sum(answer["computed"] for answer in answers) == 1
        assert len({tuple(answer["values"]) for answer in answers}) == 1
        assert sum(answer["errors"] for answer in answers) == 0

        victim, *others = workers
        victim.ask("k:2 die")
        assert "computing" in victim.answer()
        for worker in others:
            worker.ask("k:2")
        answers = [worker.answer() for worker in others]
        assert sum(answer["computed"] for answer in answers) == 1
        assert len({tuple(answer["values"]) for answer in answers}) == 1
        # The holder died 0.3 s after its lease began or was extended; who takes over computes for 0.3 s.
        assert all(answer["longest_wait_s"] < LEASE_S + 0.3 + 0.3 + 0.5 for answer in answers)


class Load:
    """Threads that fetch and claim without a pause, and note what they saw."""

    def __init__(self, tier: SharedTier, is_invalidated: threading.Event) -> None:
        self._tier = tier
        self._is_invalidated = is_invalidated
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self.stale: list[bytes] = []
        self.rounds = 0
        self.longest_s = 0.0
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                begun_s, is_late = time.perf_counter(), self._is_invalidated.is_set()
                frames = [self._tier.fetch_blocking("k:1\x00"), asyncio.run(self._tier.fetch("k:1\x00"))]
                self.longest_s = max(self.longest_s, time.perf_counter() - begun_s)
                self.stale += [frame for frame in frames if is_late and frame == b"old"]
                self.rounds += 1
        except BaseException as exc:  # noqa: BLE001  # the test looks at all of them
            self.errors.append(exc)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_server_that_goes_and_returns_under_load_causes_no_errors_and_nothing_stale(
    own_server: RedisServer, how: str
) -> None:
    name = "outage"
    params = SharedParams(probe_s=0.01, max_probe_s=0.05, settle_s=0.3, log_wait_s=0.1)
    tier = started(RedisStore(own_server.url, namespace=name), params)
    other = started(RedisStore(own_server.url, namespace=name), params)
    is_invalidated = threading.Event()
    try:
        tier.put("k:1\x00", b"old", ttl_s=None, tags=("t",))
        until(lambda: other.fetch_blocking("k:1\x00") == b"old")
        with Load(other, is_invalidated) as load:
            own_server.pause() if how == "stopped" else own_server.kill()
            until(lambda: not tier.get_stats()["is_up"] and not other.get_stats()["is_up"])
            future = tier.invalidate(Invalidation("tag", ("t",)))
            is_invalidated.set()
            rounds = load.rounds
            until(lambda: load.rounds > rounds + 100)  # everything returns at once while the server is away
            own_server.resume() if how == "stopped" else own_server.start_again()
            assert future.result(LIMIT_S) == (how == "stopped")
            until(lambda: tier.get_stats()["is_up"] and other.get_stats()["is_up"])
            tier.put("k:1\x00", b"new", ttl_s=None)
            until(lambda: other.fetch_blocking("k:1\x00") == b"new")
        assert load.errors == []
        assert load.stale == []
        assert other.get_stats()["opened"] == 1
    finally:
        tier.stop()
        other.stop()


def test_a_server_that_went_back_to_what_it_had_saved_is_emptied(own_server: RedisServer) -> None:
    gaps: list[str] = []
    tier = started(RedisStore(own_server.url, namespace="back"), FAST)
    tier._engine.follower._events = tier._events._replace(gap=lambda: gaps.append("gap"))  # type: ignore[union-attr]
    try:
        tier.put("k:1\x00", b"old", ttl_s=None)
        until(lambda: tier.fetch_blocking("k:1\x00") == b"old")
        own_server.command("SAVE")
        assert tier.invalidate(Invalidation("keys", ("k:1\x00",))).result(LIMIT_S) == 1
        until(lambda: not tier._writer._unconfirmed)
        own_server.kill()
        until(lambda: not tier.get_stats()["is_up"])
        own_server.start_again()
        until(lambda: tier.get_stats()["is_up"])
        assert tier.fetch_blocking("k:1\x00") is None
        assert gaps == ["gap"]
        assert tier.get_stats()["gaps"] == 1
    finally:
        tier.stop()


@pytest.mark.parametrize("kind", ["tls", "cluster"])
def test_the_tier_works_over_tls_and_on_a_cluster(kind: str) -> None:
    with RedisServer(kind) as running:
        one, other = (started(RedisStore(running.url, namespace="n", timeout_s=LIMIT_S), FAST) for _ in range(2))
        try:
            claimed = one.claim_blocking("k:1\x00")
            assert claimed.lease is not None
            claimed.lease.commit(b"value", 60.0, ["t"])
            assert other.claim_blocking("k:1\x00").frame == b"value"
            assert one.invalidate(Invalidation("tag", ("t",))).result(LIMIT_S) == 1
            assert other.fetch_blocking("k:1\x00") is None
            assert one.get_stats()["failures"] == other.get_stats()["failures"] == {}
            running.kill()
            until(lambda: not one.get_stats()["is_up"])
            assert one.fetch_blocking("k:1\x00") is None
        finally:
            one.stop()
            other.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_starts_a_tier_of_its_own_and_leaves_the_parents_alone(server: RedisServer) -> None:
    code = """
import os, sys, time
from ondol.cache.ports import Invalidation
from ondol.cache.adapters.redis_store import RedisStore
from tests.service.test_cache_redis_faults import started, until
tier = started(RedisStore(sys.argv[1], namespace="fork"))
tier.put("k", b"parent", ttl_s=None)
until(lambda: tier.fetch_blocking("k") == b"parent")
child = os.fork()
if child == 0:
    tier.fetch_blocking("k")
    until(lambda: tier.fetch_blocking("k") == b"parent")
    tier.put("child", b"child", ttl_s=None)
    until(lambda: tier.fetch_blocking("child") == b"child")
    tier.stop()
    sys.exit(7)
status = os.waitpid(child, 0)[1]
assert os.waitstatus_to_exitcode(status) == 7, status
for _ in range(50):
    assert tier.fetch_blocking("child") == b"child"
    assert tier.claim_blocking("k").frame == b"parent"
assert tier.get_stats()["failures"] == {}, tier.get_stats()
tier.stop()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, server.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
