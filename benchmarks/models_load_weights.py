"""The models of benchmarks/models_load.py: numbers that follow a rule, so that client and server check each other.

Weight ``i`` of model ``k`` is ``(i + 1) * (2654435761 + 2 k) mod 2**32``, a 32-bit integer. A hit asks for the sum of a
stretch of the weights, mod 2**64: the server adds what it has in memory, the client what the rule says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["MODEL_BYTES", "STRETCH", "WEIGHTS", "Model", "expected", "name_of", "write"]

MODEL_BYTES = 200_000_000
WEIGHTS = MODEL_BYTES // 4
STRETCH = 65_536
"""Weights that one hit adds: 256 KB of memory."""
_FACTOR = 2_654_435_761


def name_of(number: int) -> str:
    """Return a model's name."""
    return f"model-{number}"


def by_rule(number: int, begin: int, end: int) -> npt.NDArray[np.uint32]:
    """Return weights ``begin`` to ``end`` of a model."""
    indexes = np.arange(begin + 1, end + 1, dtype=np.uint64)
    return (indexes * np.uint64(_FACTOR + 2 * number)).astype(np.uint32)


def expected(number: int, begin: int) -> int:
    """Return the right answer to a hit."""
    return int(by_rule(number, begin, begin + STRETCH).sum(dtype=np.uint64))


def write(path: Path, number: int) -> None:
    """Write a model's file."""
    with path.open("wb") as file:
        for begin in range(0, WEIGHTS, 1_000_000):
            file.write(by_rule(number, begin, min(begin + 1_000_000, WEIGHTS)).tobytes())


class Model:
    """Weights read into this process's own memory."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self.weights = np.fromfile(path, dtype=np.uint32)

    def add(self, begin: int) -> int:
        """Return the sum of a stretch."""
        return int(self.weights[begin : begin + STRETCH].sum(dtype=np.uint64))
