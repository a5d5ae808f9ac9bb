"""Traces of requests to a cache: the keys in their order, with the sizes and costs that are known."""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Trace", "load"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests, one item for each in every list."""

    name: str
    keys: list[int]
    sizes: list[int]
    """Bytes of the entry; the last known of each key, 1 where there are none."""
    costs_s: list[float]
    """Seconds that computing it takes; 0 where unknown."""
    has_costs: bool
    distinct_count: int
    distinct_bytes: int

    def capacity(self, fraction: float) -> int:
        """Return that fraction of the bytes of all distinct keys."""
        return max(1, int(self.distinct_bytes * fraction))

    def capacity_entries(self, fraction: float) -> int:
        """Return that fraction of the number of distinct keys."""
        return max(1, int(self.distinct_count * fraction))


def load(path: Path) -> Trace:
    """Read an ``.npz.xz`` file with ``keys`` and, where there are any, ``sizes`` (bytes) and ``cost`` (seconds)."""
    arrays = np.load(io.BytesIO(lzma.decompress(path.read_bytes())))
    _, first, places = np.unique(arrays["keys"], return_index=True, return_inverse=True)
    last_sizes = np.ones(len(first), dtype=np.int64)
    if "sizes" in arrays.files:
        last_sizes[places] = np.maximum(arrays["sizes"].astype(np.int64), 1)
    has_costs = "cost" in arrays.files
    costs_s = arrays["cost"].astype(float).tolist() if has_costs else [0.0] * len(places)
    return Trace(
        name=path.name.removesuffix(".npz.xz"),
        keys=arrays["keys"].tolist(),
        sizes=last_sizes[places].tolist(),
        costs_s=costs_s,
        has_costs=has_costs,
        distinct_count=len(first),
        distinct_bytes=int(last_sizes.sum()),
    )
