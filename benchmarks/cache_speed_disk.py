"""The part of benchmarks/cache_speed.py about the disk tier: is 2 KB read five times faster than from diskcache?

    python benchmarks/cache_speed_disk.py [--json] [--quick]

Both hold the same 10,000 values of 2 KB in a folder on the same disk, everything in the page cache. Ours is the way
from the key to the value: ``DiskTier.fetch`` and ``decode_frame``, checksum and key check included. Keys are asked in
a random order, the same for both, in turns on one core; a figure is the median over the rounds of the fastest run of
each, in CPU time. Writing is wall-clock until all is committed: ours in batches behind the caller, which reach the disk
(fsync) before ``flush`` returns; diskcache one by one, with its default ``synchronous=NORMAL``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness import Figure, package, pin_to_one_core, run_alone

from ondol.cache.disk import DiskTier
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame
from ondol.cache.keys import make_key
from ondol.clock import SystemClock
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["rows"]

ENTRIES, VALUE_BYTES = 10_000, 2048
ROUNDS, RUNS, CALLS = 9, 8, 300
"""Rounds, runs of each in a round, and calls in a run."""
MAX_BYTES = 256 * MIB
PEER = package("diskcache")
diskcache: Any = import_module("diskcache")  # ships no types


def timed(call: Callable[[str], object], keys: list[str]) -> float:
    """Return the CPU microseconds of one call."""
    begun_s = time.process_time()
    for key in keys:
        call(key)
    return (time.process_time() - begun_s) / len(keys) * 1e6


def reading(calls: dict[str, Callable[[str], object]], keys: list[str], rounds: int) -> dict[str, float]:
    """Return the microseconds of each way to read, all taking turns."""
    chance = random.Random(1)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(RUNS):
            asked = chance.choices(keys, k=CALLS)
            for name, call in calls.items():
                best[name] = min(best[name], timed(call, asked))
        for name, value in best.items():
            found[name].append(value)
    return {name: median(taken) for name, taken in found.items()}


def written(tier: DiskTier, keys: list[str], value: Callable[[str], bytes]) -> tuple[float, float]:
    """Put everything; return the microseconds of one ``put`` with its frame, and entries per second until committed."""
    begun_s, waited_s = time.perf_counter(), 0.0
    for place, key in enumerate(keys, start=1):
        tier.put(key, encode_frame(key, StoredEntry(value(key), 0.02, 1_750_000_000.0)), cost_s=0.02)
        if place % 2000 == 0:  # so that the queue never drops
            paused_s = time.perf_counter()
            tier.flush()
            waited_s += time.perf_counter() - paused_s
    put_s = time.perf_counter() - begun_s - waited_s
    tier.flush()
    return put_s / len(keys) * 1e6, len(keys) / (time.perf_counter() - begun_s)


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def rows(*, is_quick: bool = False) -> list[Figure]:
    """Return the figures of the disk tier."""
    pin_to_one_core()
    count = ENTRIES // 10 if is_quick else ENTRIES
    conditions = f"{package('lmdb')}; {count} × {VALUE_BYTES} bytes, page cache warm, one core, CPU time, random keys"
    keys = [make_key("document", (number,)) for number in range(count)]
    values = {key: random.Random(key).randbytes(VALUE_BYTES) for key in keys}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tier, peer = DiskTier(home / "ours", MAX_BYTES, SystemClock()), diskcache.Cache(str(home / "peer"))
        tier.open()
        put_us, per_s = written(tier, keys, values.__getitem__)
        begun_s = time.perf_counter()
        for key, value in values.items():
            peer[key] = value
        peer_per_s = count / (time.perf_counter() - begun_s)
        taken = compared(tier, peer, keys, values, rounds=3 if is_quick else ROUNDS)
        tier.close()
        peer.close()
        sizes = size_bytes(home / "ours") / count, size_bytes(home / "peer") / count
    ratio = taken["diskcache"] / taken["ours"]
    return [
        Figure("2 KB: key to value", taken["ours"], "µs", conditions=conditions),
        Figure("2 KB: of that, DiskTier.fetch", taken["fetch"], "µs", conditions=conditions),
        Figure("2 KB: diskcache get", taken["diskcache"], "µs", peer=PEER, conditions=conditions),
        Figure("2 KB: key to value beside diskcache", ratio, "× faster", 5.0, "higher", PEER, conditions),
        Figure("2 KB: encode_frame and put", put_us, "µs", conditions="wall-clock; the caller's part"),
        Figure("2 KB: written", per_s, "a second", None, "higher", conditions="wall-clock, committed with fsync"),
        Figure("2 KB: diskcache written", peer_per_s, "a second", None, "higher", PEER, "wall-clock, one by one"),
        Figure("2 KB: bytes on disk an entry", sizes[0], "bytes", conditions=conditions),
        Figure("2 KB: diskcache bytes on disk an entry", sizes[1], "bytes", peer=PEER, conditions=conditions),
    ]


def compared(tier: DiskTier, peer: Any, keys: list[str], values: dict[str, bytes], *, rounds: int) -> dict[str, float]:
    """Return the microseconds of reading from both."""

    def ours(key: str) -> bytes:
        frame = tier.fetch(key)
        if frame is None:
            raise LookupError(key)
        value: bytes = decode_frame(key, frame).value
        return value

    if any(ours(key) != value or peer[key] != value for key, value in values.items()):
        raise RuntimeError("what was read is not what was written")
    return reading({"ours": ours, "fetch": tier.fetch, "diskcache": peer.get}, keys, rounds)


if __name__ == "__main__":
    sys.exit(run_alone("the disk tier beside diskcache", rows))
