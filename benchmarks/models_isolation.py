"""The part of benchmarks/models.py about models in processes of their own, beside what `multiprocessing` gives.

The model maps 64 MB of weights from a file and touches all of them while it loads. The peer spawns a process with
`multiprocessing`, loads the same model the same way and says over a pipe that it is ready; it is spared the import of
the script, which spawn would repeat. Calls are compared with the peer's pipe (which pickles, and blocks the caller).
Both take turns on one core. Times are wall-clock, page cache warm.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Figure
from isolation_weights import load, serve_peer
from models_conditions import MB, one_core

from ondol.models import ModelPool, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness import Figures

__all__ = ["isolated_models"]

WEIGHTS_BYTES = 64 * 1024 * 1024
CALLS = {"384 floats": (384, 400), "a 4 MB array": (1 << 20, 40)}
"""Items of an array, and calls with it in a round."""
PEER = f"multiprocessing spawn, Python {sys.version_info.major}.{sys.version_info.minor}"
PIPE = "multiprocessing Pipe (pickle)"


class Peer:
    """A process from `multiprocessing` spawn, ready when made."""

    def __init__(self, path: str) -> None:
        """Start it and wait until the model is loaded."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve_peer, args=(path, theirs))
        main = sys.modules.pop("__main__")
        sys.modules["__main__"] = ModuleType("__main__")  # one without a file: nothing to import again
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()
        if self.connection.recv() != "ready":
            raise RuntimeError("the peer's process did not load the model")

    def call(self, array: np.ndarray[Any, Any]) -> None:
        """Send the array there and back."""
        self.connection.send(array)
        self.connection.recv()

    def close(self) -> None:
        """End it."""
        self.connection.send(None)
        self._process.join()
        self.connection.close()
        self._process.close()


async def timed(action: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Return the median seconds of ``action``."""
    taken_s = []
    for _ in range(repeats):
        begun_s = time.perf_counter()
        await action()
        taken_s.append(time.perf_counter() - begun_s)
    return median(taken_s)


async def one_round(pool: ModelPool, path: str, *, is_quick: bool) -> dict[str, float]:
    """Start, use and end one of each; return the seconds of everything."""
    found = {}
    begun_s = time.perf_counter()
    peer = Peer(path)
    found["ready: peer"] = time.perf_counter() - begun_s
    found["ready"] = await timed(lambda: pool.load("weights"), 1)
    async with pool.lease("weights") as model:
        for what, (items, repeats) in CALLS.items():
            sent, count = np.ones(items, np.float32), repeats // (4 if is_quick else 1)

            async def ask_peer(array: np.ndarray[Any, Any] = sent) -> None:
                peer.call(array)

            found[f"{what}: peer"] = await timed(ask_peer, count)
            found[what] = await timed(functools.partial(model.call, "echo", sent), count)
    peer.close()
    found["unload"] = await timed(lambda: pool.unload("weights"), 1)
    return found


async def measure(path: str, rounds: int, *, is_quick: bool) -> tuple[float, dict[str, float], list[int]]:
    """Return the seconds of the first load, the medians of everything after it, and the bytes of one and two copies."""
    pool = ModelPool()
    for name in ("weights", "copy"):
        pool.register(ModelSpec(name, load=functools.partial(load, path), isolation="process"))
    async with pool:
        first_s = await timed(lambda: pool.load("weights"), 1)
        await pool.unload("weights")
        found = [await one_round(pool, path, is_quick=is_quick) for _ in range(rounds)]
        async with AsyncExitStack() as leases:
            models = [await leases.enter_async_context(pool.lease("weights"))]
            sizes = [models[0].pss_bytes()]
            models.append(await leases.enter_async_context(pool.lease("copy")))
            sizes.append(sum(model.pss_bytes() for model in models))
            del models
    return first_s, {what: median(each[what] for each in found) for what in found[0]}, sizes


def isolated_models(figures: Figures, *, is_quick: bool) -> None:
    """Compare the time until an isolated model is ready, and what it costs to use one."""
    rounds = 3 if is_quick else 9
    with tempfile.TemporaryDirectory() as folder, one_core():
        path = Path(folder) / "weights"
        path.write_bytes(np.ones(WEIGHTS_BYTES // 4, np.float32).tobytes())
        first_s, times_s, sizes = asyncio.run(measure(str(path), rounds, is_quick=is_quick))
    conditions = f"64 MB mapped, median of {rounds} interleaved rounds, one core"
    add_times(figures, times_s, conditions)
    figures.add(
        Figure(
            "isolated model, ready: ondol's first one",
            first_s * 1e3,
            "ms",
            conditions="with the fork server's start, one run",
        )
    )
    add_memory(figures, sizes)


def add_times(figures: Figures, times_s: dict[str, float], conditions: str) -> None:
    """Add the medians, and the ratio that has a target."""

    def add(what: str, key: str, unit: str, factor: float, peer: str | None = None) -> None:
        figures.add(Figure(f"isolated model, {what}", times_s[key] * factor, unit, peer=peer, conditions=conditions))

    add("ready: through the pool", "ready", "ms", 1e3)
    add("ready: peer", "ready: peer", "ms", 1e3, PEER)
    ratio = times_s["ready"] / times_s["ready: peer"]
    figures.add(Figure("isolated model, ready: ratio", ratio, "x", 0.25, peer=PEER, conditions=conditions))
    for what in CALLS:
        add(f"call with {what}, there and back", what, "us", 1e6)
        add(f"call with {what}, there and back: peer", f"{what}: peer", "us", 1e6, PIPE)
    add("unload", "unload", "ms", 1e3)


def add_memory(figures: Figures, sizes: list[int]) -> None:
    """Add what one and two copies of the same mapped weights add to the machine's memory."""
    one_mb, two_mb = (size / MB for size in sizes)
    conditions = "PSS; 67 MB mapped by each, all of it touched"
    figures.add(Figure("isolated model, memory of one copy", one_mb, "MB", conditions=conditions))
    target_mb = 1.5 * WEIGHTS_BYTES / MB
    figures.add(Figure("isolated model, memory of two copies", two_mb, "MB", target_mb, conditions=conditions))
