"""Accounted bytes of ``ondol.Cache`` against the growth of the process: ``python cache_speed_accounting.py KIND``.

Prints one JSON object. To be run in a process of its own: what another part had allocated and freed would be reused.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

from models_conditions import MB, memory_bytes

from ondol import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FILLED_BYTES"]

FILLED_BYTES = 100 * MB
_NEARLY = 0.99
_WARM_UP_BYTES = MB // 2
_REPLACED_TIMES = 2


def strings() -> Callable[[int], str]:
    """Return a maker of texts of 1 KB."""
    return lambda number: f"{number:08d}" * 128


def arrays() -> Callable[[int], Any]:
    """Return a maker of arrays of 384 floats, as an embedder gives them for one text."""
    import numpy as np

    chance = np.random.default_rng(7)
    return lambda _number: chance.standard_normal(384, dtype=np.float32)


def documents() -> Callable[[int], Any]:
    """Return a maker of nested dicts as ``json.loads`` gives them: texts, numbers, lists, records; 1 to 9 KB."""
    chance = random.Random(7)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(2000)]

    def text(low: int, high: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(low, high)))

    def comment() -> dict[str, Any]:
        return {"user": text(2, 2), "text": text(4, 30), "likes": chance.randint(0, 5000), "at": chance.random() * 1e9}

    def document(number: int) -> Any:
        made = {
            "id": number,
            "title": text(3, 9),
            "author": {"name": text(2, 3), "address": {"city": text(1, 2), "zip": f"{number:05d}"}, "active": True},
            "tags": [text(1, 1) for _ in range(chance.randint(0, 6))],
            "scores": [chance.random() for _ in range(chance.randint(3, 20))],
            "body": text(20, 120),
            "parent": None,
            "comments": [comment() for _ in range(chance.randint(0, 8))],
        }
        return json.loads(json.dumps(made))

    return document


KINDS: dict[str, Callable[[], Callable[[int], Any]]] = {"strings": strings, "arrays": arrays, "documents": documents}


def resident_bytes() -> int:
    """Return the resident set of this process once what was freed is given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return memory_bytes(os.getpid(), "smaps_rollup", "Rss")


def fill(cache: Cache, make: Callable[[int], Any], first: int, limit_bytes: int) -> int:
    """Set new entries until they are said to take ``limit_bytes``; return the number of the next one."""
    number = first
    while cache.used_bytes < limit_bytes:
        cache.set_nowait("item", make(number), f"item-{number:09d}")
        number += 1
    return number


def measured(kind: str) -> dict[str, int]:
    """Return what was accounted for and what the process grew by: when filled, and after all entries were replaced."""
    make = KINDS[kind]()
    first = fill(Cache(), make, 0, _WARM_UP_BYTES)
    before = resident_bytes()
    cache = Cache(max_bytes=FILLED_BYTES)
    after = fill(cache, make, first, int(FILLED_BYTES * _NEARLY))
    found = {"entries": after - first, "used_bytes": cache.used_bytes, "grown_bytes": resident_bytes() - before}
    for number in range(after, after + _REPLACED_TIMES * (after - first)):
        cache.set_nowait("item", make(number), f"item-{number:09d}")
    return found | {"later_used_bytes": cache.used_bytes, "later_grown_bytes": resident_bytes() - before}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
