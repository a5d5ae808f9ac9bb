"""decision: which bucket a number falls into: 45 an octave, each less than 2 % wide, so no value is 1 % off.

The bits of a float are an exponent and a mantissa; the first seven bits of the mantissa cut an octave into 128 cells,
and neighbouring cells are put together as long as a bucket stays narrow. Nothing is computed with logarithms: the
bucket of a number is read off its bits, which the interpreter's own bulk operations do for thousands at once.

Source: the log-linear buckets of HdrHistogram (Tene, 2012); ours put cells together so that the relative width is
nearly even, and let bounds that people use (1, 2, 2.5, 5, 10 …) be the last value of a bucket.
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import Final

__all__ = [
    "CELLS",
    "GROUPS",
    "PER_OCTAVE",
    "RELATIVE_ERROR",
    "bounds_for",
    "bucket_of",
    "estimate",
]

RELATIVE_ERROR: Final = 0.0099
"""Most that the estimate of a value differs from it, relative to the value."""

CELLS: Final = 128
_EXPONENT_BIAS: Final = 1023

_EXACT_BOUNDS: Final = (
    1.0,
    1.024,
    1.25,
    1.28,
    1.5625,
    1.6,
    1.875,
    1.953125,
    1.220703125,
    1.52587890625,
    1.9073486328125,
)
"""Mantissas of the decimal bounds in use; a value that equals one ends its bucket."""


def _edges() -> list[int]:
    """Return the cells at which buckets begin, and the end of the octave."""
    forced = {math.floor((mantissa - 1) * CELLS) + 1 for mantissa in _EXACT_BOUNDS}
    edges = [0]
    for cell in range(1, CELLS + 1):
        is_too_wide = cell + 1 - edges[-1] > RELATIVE_ERROR * (2 * CELLS + edges[-1] + cell + 1)
        if cell == CELLS or cell in forced or is_too_wide:
            edges.append(cell)
    return edges


_EDGES: Final = _edges()

PER_OCTAVE: Final = len(_EDGES) - 1
"""Buckets from one power of two to the next."""

GROUPS: Final = bytes(next(group for group in range(PER_OCTAVE) if cell < _EDGES[group + 1]) for cell in range(CELLS))
"""By cell: the number of its bucket within the octave."""

_ESTIMATES: Final = [
    # The value that is as far from the lower end as from the upper, relative to each.
    2 * (CELLS + low) * (CELLS + high) / ((2 * CELLS + low + high) * CELLS)
    for low, high in pairwise(_EDGES)
]


def bucket_of(value: float) -> int:
    """Return the bucket of a positive, normal number; that of a larger number is never smaller.

    >>> bucket_of(1.0) == bucket_of(1.004), bucket_of(1.02) > bucket_of(1.0)
    (True, True)
    """
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    octave, cell = divmod(bits >> 45, CELLS)
    return int(octave * PER_OCTAVE + GROUPS[cell])


def estimate(bucket: int) -> float:
    """Return the value that stands for all of ``bucket``: at most ``RELATIVE_ERROR`` from each of them.

    >>> abs(estimate(bucket_of(0.3)) - 0.3) < 0.003
    True
    """
    octave, group = divmod(bucket, PER_OCTAVE)
    return math.ldexp(_ESTIMATES[group], octave - _EXPONENT_BIAS)


_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0),
)
_BYTES: Final = tuple(float(256 << (2 * step)) for step in range(15))
_OTHER: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6)


def bounds_for(unit: str) -> tuple[float, ...]:
    """Return the upper bounds of the buckets that exporters show for values in ``unit``."""
    if unit == "bytes":
        return _BYTES
    factor = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6}.get(unit)
    return _OTHER if factor is None else tuple(round(bound * factor, 9) for bound in _SECONDS)
