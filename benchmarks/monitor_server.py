"""The part of benchmarks/monitor.py about the server: how many instructions does monitoring add to a request?

    python benchmarks/monitor_server.py [--json] [--quick]

Instructions are counted, not seconds: with ``perf stat`` where the machine counts them, else under valgrind's
cachegrind. The real app is called directly as ASGI, ``POST /v1/embeddings`` of texts that the cache holds (embedded
by the default model in a process before, kept by the disk tier). It runs on virtual time at ``PER_S`` requests a
second: so the monitor's ticks, and all else that has its times, come at their true share, however slow the counting
makes the process. Two counts of requests are subtracted, which takes the start out (not with --quick, which therefore
has no target).
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Figure, run_alone
from models_conditions import environ

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import ASGIApp, Message

__all__ = ["cachegrind_count", "perf_count", "rows"]

PER_S = 500
FIRST_COUNT, COUNT, QUICK_COUNT = 250, 5000, 2500
"""Requests of the shorter run, and how many more the longer one has: whole ticks of five seconds."""
BURST = 50
TEXTS = 100
TARGET = 1.01
MODES = {"on": "true", "off": "false"}


class NoCounterError(RuntimeError):
    """This machine has nothing that counts instructions."""


def perf_count(told: str) -> int | None:
    """Return the instructions in the lines of ``perf stat -x,``; ``None`` where the machine counts none."""
    for line in told.splitlines():
        count, _unit, event, *_rest = [*line.split(","), "", "", ""]
        if event.startswith("instructions") and count.isdecimal():
            return int(count)
    return None


def cachegrind_count(told: str) -> int | None:
    """Return the instructions that cachegrind tells of."""
    found = re.search(r"I\s+refs:\s+([\d,]+)", told)
    return int(found.group(1).replace(",", "")) if found else None


def counter() -> tuple[str, list[str]]:
    """Return the name of what counts instructions here, and the command to put before another.

    Raises:
        NoCounterError: there is none.
    """
    perf = ["perf", "stat", "-x,", "-e", "instructions:u"]
    if shutil.which("perf"):
        told = subprocess.run([*perf, "true"], capture_output=True, text=True, check=False).stderr
        if perf_count(told) is not None:
            return "perf stat, instructions:u", perf
    if shutil.which("valgrind"):
        version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        return f"{version} cachegrind", command
    message = (
        "NOT MEASURED: the server's instructions with monitoring on and off. `perf stat -e instructions:u` counts "
        "nothing here (no hardware counters, or not allowed), and valgrind is not installed"
    )
    raise NoCounterError(message)


def child_environ(folder: Path, mode: str) -> dict[str, str]:
    """Return the environment of a server; each has a folder of its own, with the cache's disk tier in it."""
    return environ(
        ENVIRONMENT="development",
        ENABLE_PERFORMANCE_MONITORING=MODES[mode],
        # What would happen in one run and not in the other, as real time has its way with it, is off in both:
        ENABLE_BACKGROUND_PRELOADING="false",
        PRELOAD_MODELS="false",
        CACHE_DISK_LIMIT_MB="50",
        ONDOL_DATA_DIR=str(folder / mode),
        ONDOL_LOG_DIR=str(folder / mode / "logs"),
        ONDOL_MODEL_THREADS="1",
        PYTHONHASHSEED="0",
    )


def run_child(folder: Path, mode: str, count: int, before: Sequence[str] = ()) -> str:
    """Let a server answer ``count`` requests; return what was said on standard error."""
    command = [*before, sys.executable, str(Path(__file__).resolve()), "--child", str(count)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=child_environ(folder, mode), cwd=folder
    )
    if result.returncode:
        raise RuntimeError(
            f"the server with monitoring {mode} ended with {result.returncode}:\n{result.stderr[-2000:]}"
        )
    return result.stderr


def counted(folder: Path, before: Sequence[str], read: Any, run: tuple[str, int]) -> int:
    """Return the instructions of one run."""
    # Its own copy of the disk tier: what one run leaves there must not be another's.
    mode, count = run
    home = folder / f"{mode}-{count}"
    shutil.copytree(folder / "on", home / mode)
    found: int | None = read(run_child(home, mode, count, before))
    if found is None:
        raise RuntimeError(f"{before[0]} told no count of instructions")
    return found


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the instructions of a request with monitoring on and off."""
    name, before = counter()
    read = perf_count if before[0] == "perf" else cachegrind_count
    more = QUICK_COUNT if is_quick else COUNT
    runs = [(mode, count) for count in (FIRST_COUNT + more, FIRST_COUNT) for mode in MODES]
    if is_quick:
        del runs[len(MODES) :]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        run_child(folder, "on", 0)  # embeds the texts and leaves them on disk
        # Counts do not depend on who else has the core.
        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(runs, pool.map(partial(counted, folder, before, read), runs), strict=True))
    each = {mode: (found[mode, FIRST_COUNT + more] - found.get((mode, FIRST_COUNT), 0)) / more for mode in MODES}
    less = "with those of the start" if is_quick else f"less those of {FIRST_COUNT} requests"
    conditions = (
        f"{name}; user instructions of {FIRST_COUNT + more} requests, {less}; POST /v1/embeddings of one "
        f"cached text, ASGI called directly, {PER_S} requests a second of virtual time: a tick every 5 s, "
        "the loop's lag every 0.5 s; without the log line a minute; preloading off"
    )
    for mode, instructions in each.items():
        yield Figure(f"server, monitoring {mode}: a request", instructions, "instr.", conditions=conditions)
    yield Figure(
        "server, monitoring on / off",
        each["on"] / each["off"],
        "x",
        None if is_quick else TARGET,
        conditions=conditions,
    )


# --- the process that is counted ---


async def post(app: ASGIApp, body: bytes) -> int:
    """Send one request to ``app``; return the status."""
    sent: list[Message] = []
    came = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        for message in came:
            return message
        await asyncio.Event().wait()  # the client stays until it has its answer
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    headers.append((b"content-length", str(len(body)).encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def serve(count: int) -> None:
    """Run the app and answer ``count`` requests, after one for each text."""
    from ondol.server.app import create_app
    from ondol.server.late_engine import LateEngine
    from ondol.service import OptimizationService
    from ondol.settings_reader import load_settings
    from ondol.similarity.embedders.specs import embedder_specs
    from ondol.testing import VirtualClock, VirtualTimeLoop

    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    settings = load_settings().values
    service = OptimizationService(settings, clock=VirtualClock(loop))
    for spec in embedder_specs(settings):
        service.models.register(spec)
    app = create_app(service, LateEngine(service, settings))
    texts = [f"A sentence of number {number}, 문장 {number}." for number in range(TEXTS)]
    bodies = [json.dumps({"input": text, "encoding_format": "base64"}).encode() for text in texts]
    async with app.router.lifespan_context(app):
        statuses = {await post(app, body) for body in bodies}
        for number in range(count):
            statuses.add(await post(app, bodies[number % TEXTS]))
            if number % BURST == BURST - 1:
                await asyncio.sleep(BURST / PER_S)
        if statuses != {200}:
            raise RuntimeError(f"the server answered {sorted(statuses)}")
        is_on = service.monitor.is_enabled
        loaded = [status.name for status in service.models.statuses() if status.state.value == "ready"] if count else []
    if loaded:
        raise RuntimeError(f"{', '.join(loaded)} was loaded with monitoring {is_on}: the texts were not in the cache")


def run_server(count: int) -> None:
    """Run ``serve`` on virtual time."""
    from ondol.testing import VirtualTimeLoop

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(serve(count))


if __name__ == "__main__":
    if "--child" in sys.argv:
        run_server(int(sys.argv[-1]))
    else:
        sys.exit(run_alone("the server with monitoring on and off", rows))
