"""The part of benchmarks/cache_speed.py about bytes: are arrays encoded and decoded five times faster than by pickle?

    python benchmarks/cache_speed_codec.py [--json] [--quick]

Ours and pickle (protocol 5) take turns on one core, a short run each; a figure is the median over the rounds of the
fastest run of each, in CPU time. Frames are compared with the bare pickle, which has no checksum, key, times or tags.
"""

from __future__ import annotations

import pickle
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import Figure, package, pin_to_one_core, run_alone

from ondol.cache.codec import decode, encode
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame
from ondol.cache.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["rows"]

KEY = make_key("embedding", ("usem3", "The ondol warms the floor."))
ROUNDS, RUNS, CALLS = 9, 12, 400
"""Rounds, runs of each in a round, and calls in a run."""
PEER = "pickle protocol 5"
PLAIN = {"name": "Mina", "scores": [1, 2, 3.5], "ok": True, "tags": ("a", "b"), "text": "온돌은 바닥을 데운다. " * 4}


def timed(call: Callable[[], object], calls: int) -> float:
    """Return the CPU microseconds of one call."""
    begun_s = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun_s) / calls * 1e6


def measured(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the microseconds of each call, all taking turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(RUNS):
            for name, call in calls.items():
                best[name] = min(best[name], timed(call, CALLS))
        for name, value in best.items():
            found[name].append(value)
    return {name: median(taken) for name, taken in found.items()}


def round_trips(value: Any) -> dict[str, Callable[[], object]]:
    """Return what is measured for one value."""
    stored = StoredEntry(value, 0.02, 1_750_000_000.0)
    pickled, encoded, frame = pickle.dumps(value, 5), encode(value), encode_frame(KEY, stored)
    return {
        "pickle.dumps": lambda: pickle.dumps(value, 5),
        "pickle.loads": lambda: pickle.loads(pickled),
        "encode": lambda: encode(value),
        "decode": lambda: decode(encoded),
        "encode_frame": lambda: encode_frame(KEY, stored),
        "decode_frame": lambda: decode_frame(KEY, frame),
    }


def rows(*, is_quick: bool = False) -> list[Figure]:
    """Return the figures of the codec."""
    pin_to_one_core()
    conditions = f"{package('numpy')}, {package('msgpack')}; one core, CPU time, median of {3 if is_quick else ROUNDS}"
    array = np.random.default_rng(1).random(384, dtype=np.float32)
    figures = []
    for what, value, has_target in (("384 float32", array, True), ("a small dict", PLAIN, False)):
        taken = measured(round_trips(value), 3 if is_quick else ROUNDS)
        pickled = taken["pickle.dumps"] + taken["pickle.loads"]
        for name, us in taken.items():
            figures.append(Figure(f"{what}: {name}", us, "µs", conditions=conditions))
        for form, parts in (("codec", ("encode", "decode")), ("frame with CRC-32", ("encode_frame", "decode_frame"))):
            ratio = pickled / sum(taken[part] for part in parts)
            target = 5.0 if has_target and form == "codec" else None  # what the frame adds is told beside it
            figures.append(Figure(f"{what}: {form}, both ways", ratio, "× faster", target, "higher", PEER, conditions))
    return figures


if __name__ == "__main__":
    sys.exit(run_alone("the cache's codec beside pickle", rows))
