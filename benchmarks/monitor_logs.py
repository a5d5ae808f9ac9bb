"""What a log line costs the request that writes it, and what several processes lose when their files are rotated.

Beside the standard library's handlers, which write the same JSON: ``RotatingFileHandler`` in the thread that logs, and
``QueueHandler`` with ``QueueListener`` before it.
"""

from __future__ import annotations

import gc
import json
import logging
import logging.handlers
import multiprocessing
import platform
import queue
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import Figure, machine, run_alone
from models_conditions import one_core

from ondol.monitor.logs import LogPipeline
from ondol.request_context import RequestContext, enter_request, leave_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["rows"]

OURS = "ondol"
BESIDE = "ondol and a root handler"
ROTATING = "logging.handlers.RotatingFileHandler"
QUEUED = "logging.handlers.QueueHandler, QueueListener"
PEER = f"Python {platform.python_version()}"
PROCESSES = 4
MAX_BYTES = 20_000
OLD_FILES = 2_000
"""Enough for all that is written: what is missing then was lost by the processes' getting in each other's way."""
_PAUSE_S = 0.002


class Cost(NamedTuple):
    """Microseconds of CPU for one line."""

    caller_us: float
    total_us: float


class JsonFormatter(logging.Formatter):
    """What one would write by hand: the same keys as our lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content = {
            "ts": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **record.__dict__.get("fields", {}),
        }
        return json.dumps(content, ensure_ascii=False)


def log_line(logger: logging.Logger, number: int) -> None:
    """Log as the server logs a request it has answered."""
    fields = {"request_id": f"{number:016x}", "route": "/v1/embeddings", "seconds": 0.012346, "model": "usem3"}
    logger.log(
        logging.INFO,
        "%s %s %d %.1f ms",
        *("POST", "/v1/embeddings", 200, 12.3456),
        extra={"fields": fields},
    )


@contextmanager
def of_ours(folder: Path) -> Iterator[logging.Logger]:
    """Give a logger of ours; at the end everything is written."""
    pipeline = LogPipeline(max_bytes=MAX_BYTES, old_files=OLD_FILES) if folder.name == "shared" else LogPipeline()
    pipeline.start(folder, console=False)
    try:
        yield logging.getLogger("ondol.server.access")
    finally:
        pipeline.stop()


@contextmanager
def of_ours_beside(folder: Path) -> Iterator[logging.Logger]:
    """Give a logger of ours in a program that has a handler of its own."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    try:
        with of_ours(folder) as logger:
            yield logger
    finally:
        logging.getLogger().removeHandler(other)


def rotating_handler(folder: Path) -> logging.Handler:
    """Return the standard library's handler for the same file and sizes."""
    folder.mkdir(exist_ok=True)
    max_bytes, old_files = (MAX_BYTES, OLD_FILES) if folder.name == "shared" else (10_485_760, 5)
    handler = logging.handlers.RotatingFileHandler(
        folder / "application.log", maxBytes=max_bytes, backupCount=old_files, encoding="utf-8"
    )
    handler.setFormatter(JsonFormatter())
    return handler


@contextmanager
def of_rotating(folder: Path) -> Iterator[logging.Logger]:
    """Give a logger that writes in the thread that logs."""
    handler = rotating_handler(folder)
    with alone(handler) as logger:
        yield logger
    handler.close()


@contextmanager
def of_queued(folder: Path) -> Iterator[logging.Logger]:
    """Give a logger that queues records for a thread."""
    handler = rotating_handler(folder)
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    with alone(logging.handlers.QueueHandler(records)) as logger:
        yield logger
        listener.stop()
    handler.close()


@contextmanager
def alone(handler: logging.Handler) -> Iterator[logging.Logger]:
    """Give a logger that has only ``handler``, and as many parents as ours."""
    top, logger = logging.getLogger("peer"), logging.getLogger("peer.server.access")
    top.addHandler(handler)
    top.setLevel(logging.INFO)
    top.propagate = False
    try:
        yield logger
    finally:
        top.removeHandler(handler)


CONTENDERS = {OURS: of_ours, BESIDE: of_ours_beside, ROTATING: of_rotating, QUEUED: of_queued}


def in_a_row(logger: logging.Logger, count: int) -> float:
    """Log as fast as can be; return the seconds of CPU that the thread took."""
    began_s = time.thread_time()
    for number in range(count):
        log_line(logger, number)
    return time.thread_time() - began_s


def one_by_one(logger: logging.Logger, count: int) -> float:
    """Log with pauses, as requests come; return the seconds of CPU that the thread took for it, without the pauses."""
    took_s = 0.0
    for number in range(count):
        time.sleep(_PAUSE_S)  # the pause is what is measured: a line that comes after silence
        began_s = time.thread_time()
        log_line(logger, number)
        took_s += time.thread_time() - began_s
    return took_s


def costs(work: Callable[[logging.Logger, int], float], count: int, rounds: int) -> dict[str, Cost]:
    """Return the medians of all contenders, which take turns; a first round is not counted."""
    taken: dict[str, list[Cost]] = {label: [] for label in CONTENDERS}
    labels = list(CONTENDERS)
    with one_core(), tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for label in labels[number % len(labels) :] + labels[: number % len(labels)]:
                cost = cost_of_round(label, work, count, Path(folder) / f"{labels.index(label)}-{number}")
                if number:
                    taken[label].append(cost)
    return {
        label: Cost(median(cost.caller_us for cost in each), median(cost.total_us for cost in each))
        for label, each in taken.items()
    }


def cost_of_round(label: str, work: Callable[[logging.Logger, int], float], count: int, folder: Path) -> Cost:
    """Measure one contender; the total includes all that is done until its last line is written."""
    token = enter_request(RequestContext("0123456789abcdef"))
    gc.collect()
    with CONTENDERS[label](folder) as logger:
        log_line(logger, 0)
        began_s = time.process_time()
        caller_s = work(logger, count)
    total_s = time.process_time() - began_s
    leave_request(token)
    return Cost(caller_s / count * 1e6, total_s / count * 1e6)


def cost_rows(*, is_quick: bool) -> Iterator[Figure]:
    """Give what a line costs."""
    count, rounds = (500, 3) if is_quick else (2_000, 11)
    found = costs(in_a_row, count, rounds)
    how = f"message, 4 arguments, 4 fields; {count} lines in a row, median of {rounds} rounds in turn; {machine()}"
    what = "one log call on the request path"
    yield Figure(what, found[OURS].caller_us, "µs", 15, "lower", conditions=f"CPU of the calling thread; {how}")
    yield from beside(f"{what}: CPU of the thread", {label: cost.caller_us for label, cost in found.items()}, how)
    yield from beside(f"{what}: CPU in all", {label: cost.total_us for label, cost in found.items()}, how)
    count = 100 if is_quick else 300
    found = costs(one_by_one, count, rounds)
    how = f"the same, {_PAUSE_S * 1e3:g} ms of sleep before each line: caches are cold; {machine()}"
    yield from beside(f"{what}, after a pause", {label: cost.caller_us for label, cost in found.items()}, how)


def beside(what: str, values: dict[str, float], how: str) -> Iterator[Figure]:
    """Give a row without a target for each contender."""
    for label, value in values.items():
        short = label.removeprefix("logging.handlers.")
        yield Figure(f"{what}, {short}", value, "µs", peer=None if label in (OURS, BESIDE) else PEER, conditions=how)


def write_lines(label: str, folder: str, name: int, count: int, start: Any) -> None:
    """Write lines in a process of its own, as soon as all are there."""
    logging.raiseExceptions = False  # a peer's tracebacks, one a line that is lost: those are counted
    with CONTENDERS[label](Path(folder)) as logger:
        start.wait()
        for number in range(count):
            log_line(logger, name * count + number)


def missing_lines(label: str, count: int) -> tuple[int, int, int]:
    """Have four processes write; return how many lines are missing, how many are torn, and the files there are."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as parent:
        folder, start = Path(parent) / "shared", context.Barrier(PROCESSES)
        writers = [
            context.Process(target=write_lines, args=(label, str(folder), name, count, start))
            for name in range(PROCESSES)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        files = list(folder.glob("application.log*"))
        found, torn = set(), 0
        for file in files:
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    found.add(json.loads(line)["request_id"])
                except ValueError:
                    torn += 1
    return PROCESSES * count - len(found), torn, len(files)


def loss_rows(*, is_quick: bool) -> Iterator[Figure]:
    """Give what is lost under rotation."""
    count = 1_000 if is_quick else 5_000
    what = f"{PROCESSES} processes under rotation: lines lost"
    for label in (OURS, ROTATING):
        missing, torn, files = missing_lines(label, count)
        how = f"{PROCESSES * count} lines, {files} files of {MAX_BYTES} bytes, all kept, {torn} lines torn; {machine()}"
        if label == OURS:
            yield Figure(what, missing, "lines", 0, "lower", conditions=how)
            yield Figure(f"{what.replace('lost', 'torn')}", torn, "lines", 0, "lower", conditions=how)
        else:
            yield Figure(f"{what}, RotatingFileHandler", missing, "lines", peer=PEER, conditions=how)


def rows(*, is_quick: bool) -> Iterable[Figure]:
    """Measure all of it."""
    yield from cost_rows(is_quick=is_quick)
    yield from loss_rows(is_quick=is_quick)


if __name__ == "__main__":
    raise SystemExit(run_alone("What a log line costs, and what rotation loses", rows))
