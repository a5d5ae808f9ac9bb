"""The part of benchmarks/monitor.py about recording: how much cheaper is an observation than with the peers?

    python benchmarks/monitor_recording.py [--json] [--quick]

All take the same latencies in turn on one core, in CPU time of the whole process, loop included. Ours is folded every
``FOLD_EVERY`` values within the time measured, as the half-second tick does at some 16,000 values a second: nothing
that an observation costs is left for later. It is measured once more in a process that cannot import numpy.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_speed_timing import ROUNDS, Contender, Times, taken_in_turn
from harness import Figure, package, run_alone
from models_conditions import environ

from ondol.monitor import PerformanceMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Work = Callable[[], object]

__all__ = ["FOLD_EVERY", "always", "latencies", "opentelemetry_histogram", "rows"]

FOLD_EVERY = 8192
OURS_COUNT, PEER_COUNT = 10 * FOLD_EVERY, 2 * FOLD_EVERY
OURS, VALIDATED = "ours: bound", "ours: add_metric"
PROMETHEUS, PROMETHEUS_LABELLED = "prometheus_client: observe", "prometheus_client: observe, labelled child"
OTEL, OTEL_LABELLED = "OpenTelemetry: record", "OpenTelemetry: record, one attribute"
NAME = "bench.latency"


def latencies(count: int) -> list[float]:
    """Return log-normal latencies in seconds, the same in every run."""
    chance = random.Random(6)
    return [chance.lognormvariate(-4.0, 1.0) for _ in range(count)]


def opentelemetry_histogram(name: str) -> Any:
    """Return a histogram of the SDK as it is by default, read from memory instead of sent."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return provider.get_meter("bench").create_histogram(name, unit="s")


def each(take: Callable[[float], object], values: list[float]) -> Work:
    """Return work that hands on every value."""

    def work() -> None:
        for value in values:
            take(value)

    return work


def each_and_fold(monitor: PerformanceMonitor, take: Callable[[float], object], values: list[float]) -> Work:
    """Return work that hands on every value and folds them all."""
    chunks = [values[start : start + FOLD_EVERY] for start in range(0, len(values), FOLD_EVERY)]

    def work() -> None:
        for chunk in chunks:
            for value in chunk:
                take(value)
            monitor.fold()

    return work


def always(label: str, count: int, work: Work) -> Contender:
    """Return a contender whose work is the same in each round."""
    return Contender(label, count, lambda _number: work)


def ours() -> Iterator[Contender]:
    """Yield our two ways to record."""
    values = latencies(OURS_COUNT)
    monitor = PerformanceMonitor(rules=())
    yield always(OURS, OURS_COUNT, each_and_fold(monitor, monitor.bind(NAME, "seconds", route="/x"), values))
    add = monitor.add_metric
    yield always(
        VALIDATED,
        OURS_COUNT,
        each_and_fold(monitor, lambda value: add(NAME, value, "seconds", route="/x"), values),
    )


def prometheus() -> Iterator[Contender]:
    """Yield prometheus_client's ways to record."""
    from prometheus_client import CollectorRegistry, Histogram

    values, registry = latencies(PEER_COUNT), CollectorRegistry()
    plain = Histogram("bench_plain_seconds", "latency", registry=registry)
    yield always(PROMETHEUS, PEER_COUNT, each(plain.observe, values))
    child = Histogram("bench_labelled_seconds", "latency", ["route"], registry=registry).labels("/x")
    yield always(PROMETHEUS_LABELLED, PEER_COUNT, each(child.observe, values))


def opentelemetry() -> Iterator[Contender]:
    """Yield OpenTelemetry's ways to record."""
    values = latencies(PEER_COUNT)
    record = opentelemetry_histogram("bench.plain").record
    yield always(OTEL, PEER_COUNT, each(record, values))
    attributes = {"route": "/x"}
    labelled = opentelemetry_histogram("bench.labelled").record
    yield always(OTEL_LABELLED, PEER_COUNT, each(lambda value: labelled(value, attributes), values))


def times_of(contenders: list[Contender]) -> Times:
    """Return the times of all, after a look that ours has really counted them."""
    monitor = PerformanceMonitor(rules=())
    each_and_fold(monitor, monitor.bind(NAME, "seconds"), [0.001] * (FOLD_EVERY + 1))()
    if monitor.get_stats()["metrics"][NAME]["count"] != FOLD_EVERY + 1:
        raise RuntimeError("values were lost: what was measured is not recording")
    return taken_in_turn(contenders)


def without_numpy() -> dict[str, Any]:
    """Return what a process that cannot import numpy measures."""
    command = [sys.executable, str(Path(__file__).resolve()), "--without-numpy"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ())
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def measured_without_numpy() -> dict[str, float]:
    """Measure ours and prometheus_client where ``import numpy`` fails."""
    sys.modules["numpy"] = None  # type: ignore[assignment]  # the import system's way to say that there is none
    times = times_of([*ours(), *prometheus()])
    return {label: times.of(label) for label in times.by_label} | {"ratio": times.ratio(PROMETHEUS, OURS)}


def rows(*, is_quick: bool = False) -> Iterator[Figure]:
    """Yield the figures of recording."""
    import numpy as np

    rounds = f"median of {ROUNDS} rounds in turn, one core, CPU time, loop included"
    conditions = f"{rounds}; ours folded every {FOLD_EVERY} values; numpy {np.__version__} loaded"
    times = times_of([*ours(), *prometheus(), *opentelemetry()])
    peers = {"prometheus": package("prometheus_client"), "OpenTelemetry": package("opentelemetry-sdk")}
    targets = ((PROMETHEUS, 15.0), (PROMETHEUS_LABELLED, 15.0), (OTEL, 70.0), (OTEL_LABELLED, 70.0))
    for label in times.by_label:
        peer = next((version for start, version in peers.items() if label.startswith(start)), None)
        yield Figure(f"one observation, {label}", times.of(label), "ns", peer=peer, conditions=conditions)
    for label, target in targets:
        peer = next(version for start, version in peers.items() if label.startswith(start))
        ratio = times.ratio(label, OURS)
        yield Figure(f"one observation, {label} / ours", ratio, "x", target, "higher", peer, conditions)
    if not is_quick:
        found = without_numpy()
        bare = f"{rounds}; ours folded every {FOLD_EVERY} values; a process that cannot import numpy"
        yield Figure("one observation, ours: bound, without numpy", found[OURS], "ns", conditions=bare)
        yield Figure("one observation, ours: add_metric, without numpy", found[VALIDATED], "ns", conditions=bare)
        yield Figure(
            f"one observation, {PROMETHEUS} / ours, without numpy",
            found["ratio"],
            "x",
            better="higher",
            peer=peers["prometheus"],
            conditions=bare,
        )


if __name__ == "__main__":
    if "--without-numpy" in sys.argv:
        print(json.dumps(measured_without_numpy()))
    else:
        sys.exit(run_alone("recording beside prometheus_client and OpenTelemetry", rows))
