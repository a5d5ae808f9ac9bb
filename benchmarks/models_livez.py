"""The part of benchmarks/models.py about `/livez`: does a real server answer while five loads hold the GIL or the disk?

A probe goes out every 50 ms on a connection of its own, as an orchestrator's does, whether those before it have
been answered or not: what waits in a queue counts. Answered means 200 within ten seconds; an orchestrator that was
told nothing else waits for one, so what came within that is reported, too.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness import Figure
from models_conditions import percentile
from models_server import running

if TYPE_CHECKING:
    from harness import Figures

__all__ = ["livez_under_load"]

EVERY_S = 0.05
LIMIT_S = 10.0
ORCHESTRATOR_S = 1.0
LOADS_LIMIT_S = 300.0
IDLE_S = 2.0


class Case(NamedTuple):
    """Five loads of one kind; without ``is_judged`` it is only told how the server fares.

    ``switch_s`` is how long a thread may keep the GIL while others wait for it: 5 ms, unless somebody says otherwise.
    """

    what: str
    kind: str
    isolation: str
    seconds: float
    is_judged: bool = True
    switch_s: float = 0.005


CASES = (
    Case("five loads in pure Python", "python", "thread", 1.2),
    Case("the same, threads taking turns every 0.5 ms", "python", "thread", 1.2, switch_s=0.0005),
    Case("five loads at the disk", "disk", "thread", 6.0),
    Case("five loads that never let go of the GIL", "c", "thread", 1.0, is_judged=False),
    Case("loads that never let go, in processes of their own", "c", "process", 1.0),
)


async def get(port: int, path: str) -> int:
    """Return the status of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        return int(answer.split(b" ", 2)[1])
    finally:
        writer.close()


async def probe(port: int) -> float | None:
    """Return the seconds until `/livez` answered 200, or ``None``."""
    begun_s = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT_S):
            is_alive = await get(port, "/livez") == 200
    except (TimeoutError, OSError, IndexError, ValueError):
        return None
    return time.perf_counter() - begun_s if is_alive else None


async def probes_until(port: int, end: asyncio.Future[int]) -> list[float | None]:
    """Probe at a fixed pace until ``end``, and return what came of each."""
    loop = asyncio.get_running_loop()
    probes: list[asyncio.Task[float | None]] = []
    next_s = loop.time()
    while not end.done():
        probes.append(loop.create_task(probe(port)))
        next_s += EVERY_S
        await asyncio.sleep(max(0.0, next_s - loop.time()))
    return await asyncio.gather(*probes)


async def measure(port: int) -> tuple[list[float | None], list[float | None], float]:
    """Return the probes of an idle server, those during the loads, and how many seconds the loads took."""
    idle = await probes_until(port, asyncio.ensure_future(asyncio.sleep(IDLE_S, 0)))
    begun_s = time.perf_counter()
    async with asyncio.timeout(LOADS_LIMIT_S):
        loads = asyncio.ensure_future(get(port, "/load-all"))
        found = await probes_until(port, loads)
    if await loads != 200:
        raise RuntimeError("the five models were not loaded")
    return idle, found, time.perf_counter() - begun_s


def run_case(case: Case, *, is_quick: bool) -> tuple[list[float | None], list[float | None], float]:
    """Measure one case in a new server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = case.seconds / (6 if is_quick else 1)
        options = (case.kind, case.isolation, str(seconds), str(case.switch_s), name)
        with running("models_livez_app.py", folder, *options) as server:
            return asyncio.run(measure(server.port))


def livez_under_load(figures: Figures, *, is_quick: bool) -> None:
    """Probe the server during loads of each kind."""
    for case in CASES:
        idle, found, loads_s = run_case(case, is_quick=is_quick)
        add_case(figures, case, found, loads_s)
        if case is CASES[0]:
            calm = [taken_s for taken_s in idle if taken_s is not None]
            conditions = f"{len(idle)} probes"
            figures.add(Figure("/livez, idle server: p99", percentile(calm, 0.99) * 1e3, "ms", conditions=conditions))


def add_case(figures: Figures, case: Case, found: list[float | None], loads_s: float) -> None:
    """Add how many were answered, and how soon; those that were not count as if they had been at the limit."""
    conditions = f"{len(found)} probes, one every {EVERY_S * 1e3:.0f} ms, during {loads_s:.1f} s of loading"
    share = 100 * sum(taken_s is not None for taken_s in found) / len(found)
    target = 100.0 if case.is_judged else None
    figures.add(Figure(f"/livez, {case.what}: answered", share, "%", target, "higher", None, conditions))
    times_s = [LIMIT_S if taken_s is None else taken_s for taken_s in found]
    share = 100 * sum(taken_s <= ORCHESTRATOR_S for taken_s in times_s) / len(found)
    what = f"/livez, {case.what}: answered within {ORCHESTRATOR_S:.0f} s"
    figures.add(Figure(what, share, "%", better="higher", conditions=conditions))
    for name, ratio in (("median", 0.5), ("p99", 0.99), ("worst", 1.0)):
        what = f"/livez, {case.what}: {name}"
        figures.add(Figure(what, percentile(times_s, ratio) * 1e3, "ms", conditions=conditions))
