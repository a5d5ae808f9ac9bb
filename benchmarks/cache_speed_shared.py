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

from ondol.cache import Cache, TierOptions
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PROCESSES = 4
CALLERS = 250
COMPUTE_S = 0.5
LEASE_S = 5.0
KEYS = 256
KEY_NAMES = tuple(f"k:{number}" for number in range(KEYS))
VALUE = b"x" * 2048  # an embedding of 512 float32


# What the workers do: the only functions that know the object under test.


def opened(url: str, namespace: str, *, max_bytes: int = 64 * MIB, timeout_s: float = 0.2) -> Cache:
    """Return the opened cache under test; with ``max_bytes=1`` everything it is asked for comes from the tier."""
    tiers = TierOptions(redis_url=url, namespace=namespace, lease_s=LEASE_S, timeout_s=timeout_s)
    cache = Cache(max_bytes=max_bytes, tiers=tiers)
    cache.open()
    return cache


def figures_of(cache: Cache) -> dict[str, Any]:
    """Return what the cache says of its shared tier."""
    figures: dict[str, Any] = cache.get_stats()["tiers"]["shared"]
    return figures


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
    cache = opened(url, namespace, timeout_s=5.0)

    async def one(key: str, begun_at_s: list[float]) -> tuple[bytes, float]:
        async def compute() -> bytes:
            begun_at_s.append(time.monotonic())
            print(json.dumps({"begun_at_s": begun_at_s[-1]}), flush=True)
            await asyncio.sleep(COMPUTE_S)
            return f"{os.getpid()}".encode()

        begun_s = time.monotonic()
        value = await cache.get_or_compute("slow", key, compute=compute, ttl_s=60)
        return value, time.monotonic() - begun_s

    async def everybody(key: str) -> dict[str, Any]:
        begun_at_s: list[float] = []
        found = await asyncio.gather(*(one(key, begun_at_s) for _ in range(CALLERS)))
        return {"computed": len(begun_at_s), "waits_s": max(wait_s for _frame, wait_s in found)}

    print(json.dumps({"ready": True}), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(everybody(line.strip()))), flush=True)
    cache.close()


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
                time.sleep(0.01)  # the server tells nobody that it listens but by this file
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
        time.sleep(COMPUTE_S / 2)  # into the middle of the computation, which only the clock tells
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

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
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
                await self.cache.get("k", number % KEYS)
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
    writer, reader, bare = (opened(url, "outage", max_bytes=size) for size in (64 * MIB, 64 * MIB, 1))
    caches = (writer, reader, bare)
    for number in range(KEYS):
        await writer.set("k", VALUE, number)
    await until(lambda: not figures_of(writer)["queued"])
    assert len(await reader.get_many("k", range(KEYS))) == KEYS
    run = Outage(bare)  # without a memory of its own: each read concerns the tier
    callers = [asyncio.create_task(run.ask()) for _ in range(8)]
    up_s = await run.phase(seconds)
    server.send_signal(signal.SIGSTOP)
    await until(lambda: not any(figures_of(cache)["is_up"] for cache in caches))
    worst_s = max(run.times_s)
    down_s = await run.phase(seconds)
    for number in range(0, KEYS, 2):
        await writer.delete("k", number)
    server.send_signal(signal.SIGCONT)
    back_s = time.perf_counter()
    await until(lambda: all(figures_of(cache)["is_up"] for cache in caches))
    back_s = time.perf_counter() - back_s
    outdated = [value for cache in caches for value in (await cache.get_many("k", range(0, KEYS, 2))).values()]
    kept = await bare.get_many("k", range(1, KEYS, 2))
    run.is_over = True
    await asyncio.gather(*callers)
    for cache in caches:
        await cache.stop()
    add = figures.add
    add(Figure("Redis stopped under load: errors seen by callers", run.errors, "", target=0))
    add(Figure("Redis stopped: added at p99 once the breaker is open", max(0.0, down_s - up_s) * 1e3, "ms", target=1.0))
    add(Figure("Redis stopped: p99 of a read once the breaker is open", down_s * 1e3, "ms"))
    add(Figure("Redis stopped: p99 of a read while it is up", up_s * 1e3, "ms"))
    add(Figure("Redis stopped: longest read until the breaker opens", worst_s * 1e3, "ms"))
    add(Figure("Redis back: outdated values found", len(outdated), "", target=0))
    add(Figure("Redis back: other values found", 200 * len(kept) / KEYS, "%", better="higher"))
    add(Figure("Redis back: until it is used again", back_s, "s"))


def peers(url: str) -> dict[str, tuple[Callable[[str], Awaitable[Any]], Callable[[], Awaitable[None]]]]:
    """Return how each of the caches reads a key, and how it is filled."""
    aiocache, cashews = import_module("aiocache"), import_module("cashews")

    cache = opened(url, "reads", max_bytes=1)
    parts = urlsplit(url)
    # Both without their serializers, which would be pickle; ours checks and decodes each value.
    serializer = import_module("aiocache.serializers").NullSerializer(encoding=None)
    other = aiocache.RedisCache(
        endpoint=parts.hostname, port=parts.port, namespace="aiocache:", serializer=serializer, pool_max_size=512
    )
    third = cashews.Cache()
    third.setup(f"{url}?socket_timeout=5", client_side=False)

    async def fill_ours() -> None:
        await cache.set_many("k", dict.fromkeys(KEY_NAMES, VALUE))
        await until(lambda: not figures_of(cache)["queued"])

    async def ours(key: str) -> Any:
        return await cache.get("k", key)

    async def fill(write: Callable[[str, bytes], Awaitable[Any]]) -> None:
        for key in KEY_NAMES:
            await write(key, VALUE)

    return {
        "ondol": (ours, fill_ours),
        package("aiocache"): (other.get, lambda: fill(other.set)),
        package("cashews"): (third.get_raw, lambda: fill(third.set_raw)),
    }


async def reads(figures: Figures, url: str, rounds: int) -> None:
    """Read one after the other, and all at once, in turn with the peers."""
    caches = peers(url)
    alone_s: dict[str, list[float]] = {name: [] for name in caches}
    together_s: dict[str, list[float]] = {name: [] for name in caches}
    keys = KEY_NAMES
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


def rows(*, is_quick: bool = False) -> list[Figure]:
    """Return all figures."""
    figures = Figures("the shared tier", is_json=False)
    with redis_server() as (url, server):
        misses(figures, url)
        asyncio.run(outage(figures, url, server, 0.5 if is_quick else 3.0))
        pin_to_one_core()
        asyncio.run(reads(figures, url, 3 if is_quick else 15))
    return figures.rows


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
    for figure in rows(is_quick=arguments.quick):
        figures.add(figure)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
