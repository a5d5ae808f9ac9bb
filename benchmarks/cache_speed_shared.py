"""What does the shared tier keep of its promises on a real Redis, and what does a read through it cost?

    python benchmarks/cache_speed_shared.py [--json] [--quick]

One computation for a thousand misses over four processes, one more when its process is killed, no errors while Redis
is stopped, nothing outdated when it is back. Reads are compared with aiocache and cashews on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness import Figure, Figures, package, pin_to_one_core

from ondol.cache.adapters.redis_store import RedisStore
from ondol.cache.ports import Invalidation
from ondol.cache.shared import SharedParams, SharedTier
from ondol.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PROCESSES = 4
CALLERS = 250
COMPUTE_S = 0.5
LEASE_S = 5.0
KEYS = 256
VALUE = b"x" * 2048  # an embedding of 512 float32


# What the workers do: the only functions that know the object under test.


def opened(url: str, namespace: str, timeout_s: float = 0.2) -> SharedTier:
    """Return the started object under test."""
    tier = SharedTier(
        RedisStore(url, namespace=namespace, timeout_s=timeout_s),
        SystemClock(),
        namespace=namespace,
        on_invalidated=lambda _invalidation: None,
        on_gap=lambda: None,
        params=SharedParams(lease_s=LEASE_S),
    )
    tier.start(10.0)
    return tier


async def compute_once(tier: SharedTier, key: str, compute: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return the value under ``key``, computed by one of all who ask."""
    claimed = await tier.claim(key)
    if claimed.frame is not None:
        return claimed.frame
    frame = await compute()
    if claimed.lease is not None:
        claimed.lease.commit(frame, 60.0)
    return frame


# Processes.


class Worker:
    """One process of this file that waits for keys on standard input."""

    def __init__(self, url: str, namespace: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", url, namespace], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, key: str) -> None:
        """Let all callers of the process ask for ``key``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{key}\n".encode())
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def serve_worker(url: str, namespace: str) -> None:
    """Be a worker."""
    tier = opened(url, namespace, timeout_s=5.0)

    async def one(key: str, begun_at_s: list[float]) -> tuple[bytes, float]:
        async def compute() -> bytes:
            begun_at_s.append(time.monotonic())
            print(json.dumps({"begun_at_s": begun_at_s[-1]}), flush=True)
            await asyncio.sleep(COMPUTE_S)
            return f"{os.getpid()}".encode()

        begun_s = time.monotonic()
        return await compute_once(tier, key, compute), time.monotonic() - begun_s

    async def everybody(key: str) -> dict[str, Any]:
        begun_at_s: list[float] = []
        found = await asyncio.gather(*(one(key, begun_at_s) for _ in range(CALLERS)))
        return {"computed": len(begun_at_s), "waits_s": max(wait_s for _frame, wait_s in found)}

    print(json.dumps({"ready": True}), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(everybody(line.strip()))), flush=True)
    tier.stop()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server in memory; yield its address and process."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        message = "this benchmark needs redis-server or valkey-server: scripts/install-test-services.sh"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory() as folder:
        path, port = Path(folder) / "redis.sock", free_port()
        command = [binary, "--port", str(port), "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0", process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


# The figures.


def rounds_of(workers: list[Worker], key: str) -> tuple[int, list[dict[str, Any]]]:
    """Let all workers ask; return the number of computations and their last answers."""
    for worker in workers:
        worker.ask(key)
    computed, answers = 0, []
    for worker in workers:
        while "computed" not in (answer := worker.answer()):
            computed += 1
        answers.append(answer)
    return computed, answers


def misses(figures: Figures, url: str) -> None:
    """A thousand misses at once, then the same with a holder that is killed."""
    with ExitStack() as stack:
        workers = [Worker(url, "misses") for _ in range(PROCESSES)]
        for worker in workers:
            stack.callback(worker.close)
            worker.answer()
        computed, answers = rounds_of(workers, "one")
        conditions = f"{PROCESSES} processes, {CALLERS} callers each, a computation of {COMPUTE_S:g} s"
        what = f"{PROCESSES * CALLERS} concurrent misses: computations"
        figures.add(Figure(what, computed, "", target=1, conditions=conditions))
        longest_s = max(answer["waits_s"] for answer in answers)
        figures.add(Figure("the same: longest wait", longest_s, "s", conditions=conditions))
        victim, *others = workers
        victim.ask("two")
        victim.answer()
        for worker in others:
            worker.ask("two")
        time.sleep(COMPUTE_S / 2)
        killed_at_s = time.monotonic()
        victim.process.kill()
        begun_at_s: list[float] = []
        for worker in others:
            while "computed" not in (answer := worker.answer()):
                begun_at_s.append(answer["begun_at_s"])
        conditions = f"killed {COMPUTE_S / 2:g} s into its computation; a lease of {LEASE_S:g} s"
        figures.add(Figure("holder killed: further computations", len(begun_at_s), "", target=1, conditions=conditions))
        longest_s = max(begun_at_s) - killed_at_s
        what = "holder killed: until another computes"
        figures.add(Figure(what, longest_s, "s", target=LEASE_S, conditions=conditions))


class Outage:
    """Callers that ask all the time while Redis is stopped and comes back."""

    def __init__(self, tier: SharedTier) -> None:
        self.tier = tier
        self.errors = 0
        self.times_s: list[float] = []
        self.is_over = False

    async def ask(self) -> None:
        """Ask until it is over, every millisecond."""
        number = 0
        while not self.is_over:
            number += 1
            begun_s = time.perf_counter()
            try:
                await self.tier.fetch(f"k:{number % KEYS}\x00")
            except Exception:  # noqa: BLE001  # counted
                self.errors += 1
            self.times_s.append(time.perf_counter() - begun_s)
            await asyncio.sleep(0.001)

    async def phase(self, seconds: float) -> float:
        """Return the p99 of the next seconds."""
        self.times_s.clear()
        await asyncio.sleep(seconds)
        return sorted(self.times_s)[int(len(self.times_s) * 0.99)]


async def until(is_true: Callable[[], bool]) -> None:
    """Look every 5 ms."""
    while not is_true():  # noqa: ASYNC110  # the tier tells nobody else
        await asyncio.sleep(0.005)


async def outage(figures: Figures, url: str, server: subprocess.Popen[bytes], seconds: float) -> None:
    """Stop Redis under load and let it go on."""
    tier, other = opened(url, "outage"), opened(url, "outage")
    for number in range(KEYS):
        tier.put(f"k:{number}\x00", VALUE, ttl_s=None)
    await until(lambda: not tier.get_stats()["queued"])
    run = Outage(other)
    callers = [asyncio.create_task(run.ask()) for _ in range(8)]
    up_s = await run.phase(seconds)
    server.send_signal(signal.SIGSTOP)
    await until(lambda: not (tier.get_stats()["is_up"] or other.get_stats()["is_up"]))
    worst_s = max(run.times_s)
    down_s = await run.phase(seconds)
    for number in range(0, KEYS, 2):
        tier.invalidate(Invalidation("keys", (f"k:{number}\x00",)))
    server.send_signal(signal.SIGCONT)
    back_s = time.perf_counter()
    await until(lambda: bool(tier.get_stats()["is_up"] and other.get_stats()["is_up"]))
    back_s = time.perf_counter() - back_s
    outdated = [await other.fetch(f"k:{number}\x00") for number in range(0, KEYS, 2)]
    kept = [await other.fetch(f"k:{number}\x00") for number in range(1, KEYS, 2)]
    run.is_over = True
    await asyncio.gather(*callers)
    tier.stop()
    other.stop()
    add = figures.add
    add(Figure("Redis stopped under load: errors seen by callers", run.errors, "", target=0))
    add(Figure("Redis stopped: p99 of a read once the breaker is open", down_s * 1e3, "ms", target=1.0))
    add(Figure("Redis stopped: p99 of a read while it is up", up_s * 1e3, "ms"))
    add(Figure("Redis stopped: longest read until the breaker opens", worst_s * 1e3, "ms"))
    add(Figure("Redis back: outdated values found", sum(frame is not None for frame in outdated), "", target=0))
    add(Figure("Redis back: other values found", 100 * sum(map(bool, kept)) / len(kept), "%", better="higher"))
    add(Figure("Redis back: until it is used again", back_s, "s"))


def peers(url: str) -> dict[str, tuple[Callable[[str], Awaitable[Any]], Callable[[], Awaitable[None]]]]:
    """Return how each of the caches reads a key, and how it is filled."""
    aiocache, cashews = import_module("aiocache"), import_module("cashews")

    tier = opened(url, "reads")
    parts = urlsplit(url)
    # Both without their serializers: the frames of ours are bytes, too.
    serializer = import_module("aiocache.serializers").NullSerializer(encoding=None)
    other = aiocache.RedisCache(
        endpoint=parts.hostname, port=parts.port, namespace="aiocache:", serializer=serializer, pool_max_size=512
    )
    third = cashews.Cache()
    third.setup(f"{url}?socket_timeout=5", client_side=False)

    async def fill_ours() -> None:
        for number in range(KEYS):
            tier.put(f"k:{number}", VALUE, ttl_s=None)
        await until(lambda: not tier.get_stats()["queued"])

    async def fill(write: Callable[[str, bytes], Awaitable[Any]]) -> None:
        for number in range(KEYS):
            await write(f"k:{number}", VALUE)

    return {
        "ondol": (tier.fetch, fill_ours),
        package("aiocache"): (other.get, lambda: fill(other.set)),
        package("cashews"): (third.get_raw, lambda: fill(third.set_raw)),
    }


async def reads(figures: Figures, url: str, rounds: int) -> None:
    """Read one after the other, and all at once, in turn with the peers."""
    caches = peers(url)
    alone_s: dict[str, list[float]] = {name: [] for name in caches}
    together_s: dict[str, list[float]] = {name: [] for name in caches}
    keys = [f"k:{number}" for number in range(KEYS)]
    for _get, fill in caches.values():
        await fill()
    for _round in range(rounds + 1):
        for name, (get, _fill) in caches.items():
            begun_s = time.perf_counter()
            for key in keys:
                assert await get(key)
            alone_s[name].append((time.perf_counter() - begun_s) / KEYS)
            begun_s = time.perf_counter()
            assert all(await asyncio.gather(*map(get, keys)))
            together_s[name].append((time.perf_counter() - begun_s) / KEYS)
    for name in caches:
        peer = None if name == "ondol" else name
        conditions = f"{KEYS} values of {len(VALUE)} bytes, TCP, median of {rounds} rounds, client on one core"
        value = median(alone_s[name][1:]) * 1e6
        figures.add(Figure(f"{name}: one read at a time", value, "µs", peer=peer, conditions=conditions))
        value = 1 / median(together_s[name][1:])
        what = f"{name}: {KEYS} reads at once"
        figures.add(Figure(what, value, "reads/s", better="higher", peer=peer, conditions=conditions))


def rows(figures: Figures, *, is_quick: bool) -> None:
    """Take all figures."""
    with redis_server() as (url, server):
        misses(figures, url)
        asyncio.run(outage(figures, url, server, 0.5 if is_quick else 3.0))
        pin_to_one_core()
        asyncio.run(reads(figures, url, 3 if is_quick else 15))


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve_worker(*arguments.worker)
        return 0
    figures = Figures(f"the shared tier ({package('redis')})", arguments.json)
    rows(figures, is_quick=arguments.quick)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
