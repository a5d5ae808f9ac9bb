"""The traffic of a cache as benchmarks/cache_replay.py reads it: keys in order, bytes and seconds of each."""

from __future__ import annotations

import io
import lzma
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

__all__ = ["Recording"]


class _Computed(NamedTuple):
    size_bytes: int
    cost_s: float


class Recording:
    """What was asked for, and what computing it took."""

    def __init__(self) -> None:
        """Begin empty."""
        self._numbers: dict[Hashable, int] = {}
        self._asked = array("i")
        self._computed: dict[int, _Computed] = {}

    def asked(self, key: Hashable) -> None:
        """Note a lookup."""
        self._asked.append(self._numbers.setdefault(key, len(self._numbers)))

    def computed(self, key: Hashable, size_bytes: int, cost_s: float) -> None:
        """Note what an entry takes, and what computing it took: the first time counts."""
        self._computed.setdefault(self._numbers[key], _Computed(size_bytes, cost_s))

    def write(self, path: Path) -> None:
        """Write ``keys``, ``sizes`` and ``cost``, an item for each lookup of what was kept."""
        import numpy as np

        keys = [number for number in self._asked if number in self._computed]
        entries = [self._computed[number] for number in keys]
        arrays = {
            "keys": np.array(keys, dtype=np.int32),
            "sizes": np.array([entry.size_bytes for entry in entries], dtype=np.int32),
            "cost": np.array([entry.cost_s for entry in entries], dtype=np.float32),
        }
        plain = io.BytesIO()
        np.savez(plain, **arrays)  # type: ignore[arg-type]  # the stubs take the names for its flag
        path.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
