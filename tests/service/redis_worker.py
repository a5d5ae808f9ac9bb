"""A process of the tests and benchmarks about several processes: claims keys and computes what is missing.

    python -m tests.service.redis_worker URL NAMESPACE CALLERS COMPUTE_S LEASE_S

Waits for a line on standard input, then lets CALLERS coroutines claim the key that the line names, and prints one JSON
object: how many computed, how long the longest claim took, which values came. ``die`` as a second word: it is killed
by its own hand while it computes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

from ondol.cache.adapters.redis_store import RedisStore
from ondol.cache.shared import SharedParams, SharedTier
from ondol.clock import SystemClock


def tell(answer: dict[str, Any]) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def get(tier: SharedTier, key: str, compute_s: float, *, dies: bool) -> tuple[int, float, str]:
    """Return how often this computed, how long it waited to know, and the value."""
    begun_s = time.perf_counter()
    claimed = await tier.claim(key)
    waited_s = time.perf_counter() - begun_s
    if claimed.frame is not None:
        return 0, waited_s, claimed.frame.decode()
    if dies:
        tell({"computing": os.getpid()})
        await asyncio.sleep(compute_s)
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(compute_s)
    value = f"value of {os.getpid()}"
    if claimed.lease is not None:
        claimed.lease.commit(value.encode(), 60.0)
    return 1, waited_s, value


async def round_of(tier: SharedTier, key: str, callers: int, compute_s: float, *, dies: bool) -> dict[str, Any]:
    """Let all callers ask at once."""
    found = await asyncio.gather(*(get(tier, key, compute_s, dies=dies) for _ in range(callers)))
    return {
        "computed": sum(computed for computed, _waited_s, _value in found),
        "longest_wait_s": max(waited_s for _computed, waited_s, _value in found),
        "values": sorted({value for _computed, _waited_s, value in found}),
        "errors": sum(tier.get_stats()["failures"].values()),
    }


def main() -> None:
    """Serve rounds until standard input ends."""
    url, namespace, callers, compute_s, lease_s = sys.argv[1:]
    tier = SharedTier(
        RedisStore(url, namespace=namespace, timeout_s=5.0),
        SystemClock(),
        namespace=namespace,
        on_invalidated=lambda _invalidation: None,
        on_gap=lambda: None,
        params=SharedParams(lease_s=float(lease_s)),
    )
    tier.start(10.0)
    tell({"is_up": tier.get_stats()["is_up"]})
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            key, *words = line.split()
            tell(runner.run(round_of(tier, key, int(callers), float(compute_s), dies="die" in words)))
    tier.stop()


if __name__ == "__main__":
    main()
