"""decision: a batch of numbers as counts by bucket, counted in bulk: with numpy where the program has loaded it.

The core does without numpy. Its own way leaves the work to bulk operations of the interpreter: the three bytes of each
float that tell its bucket are cut out of the whole batch at once and counted as small integers.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.monitor.buckets import CELLS, GROUPS, PER_OCTAVE, bucket_of
from ondol.monitor.lanes import EMPTY_LANES, Lanes, lanes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Batch", "count_batch", "number_of"]

_MIN_FOR_NUMPY: Final = 128
"""From so many values on numpy's fixed cost is less than what it saves."""

_SIGN: Final = 1 << 18
_SMALLEST_NORMAL: Final = sys.float_info.min
_MOST_SPREAD: Final = 1e30
"""Values that lie further apart are spread too thinly to be counted in an array with all that is between them."""

_MAX_LANES: Final = 1 << 12
"""More than any sketch keeps: what is so far below the largest is put together here already."""

_TOP_THREE_BITS: Final = bytes(byte & 0xE0 for byte in range(256))
_IS_LITTLE: Final = sys.byteorder == "little"
_PLACES: Final = (0, 1, 2) if _IS_LITTLE else (3, 2, 1)


class Batch(NamedTuple):
    """What a batch of finite numbers comes to."""

    count: int  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here
    total: float
    minimum: float
    maximum: float
    zeros: int
    positive: Lanes
    negative: Lanes
    """The numbers below zero, by the bucket of their magnitude."""
    refused: int
    """Things in the batch that were no finite numbers; they are in none of the figures."""


def count_batch(values: Sequence[Any]) -> Batch:
    """Count ``values``; what is not a finite number is left out and counted as refused."""
    if not values:
        return Batch(0, 0.0, math.inf, -math.inf, 0, EMPTY_LANES, EMPTY_LANES, 0)
    numpy = sys.modules.get("numpy") if len(values) >= _MIN_FOR_NUMPY else None
    try:
        # A third of what array("d", values) takes.
        raw = struct.pack(f"{len(values)}d" if _IS_LITTLE or numpy is not None else f"<{len(values)}d", *values)
    except Exception:  # noqa: BLE001  # a value may raise anything when it is made a float; which one is found out below
        return _sifted(values)
    try:
        batch = _counted(raw) if numpy is None else _numpy_counted(numpy, raw)
    except (AttributeError, ImportError):  # another thread is importing numpy: not all of it is there
        batch = _counted(raw)
    return _sifted(values) if batch is None else batch


def _sifted(values: Sequence[Any]) -> Batch:
    """Count those of ``values`` that are finite numbers, looked at one by one."""
    numbers = [number for value in values if math.isfinite(number := number_of(value))]
    refused = len(values) - len(numbers)
    if refused:
        return count_batch(numbers)._replace(refused=refused)
    # Finite numbers whose sum is beyond all floats: it is kept as the largest.
    total = sum(number / len(numbers) for number in numbers) * len(numbers)
    total = max(-sys.float_info.max, min(sys.float_info.max, total))
    counted = _sides(_cells(struct.pack(f"<{len(numbers)}d", *numbers)).items())
    return Batch(len(numbers), total, min(numbers), max(numbers), *counted, 0)


def number_of(value: Any) -> float:
    """Return ``value`` as a float; what is none is not a number."""
    try:
        return math.nan if isinstance(value, (str, bytes, bytearray)) else float(value)
    except Exception:  # noqa: BLE001  # it is counted as refused, whatever it raised
        return math.nan


def _counted(raw: bytes) -> Batch | None:
    """Count without numpy; ``None`` when the sum is not finite. ``raw`` holds the values as little-endian doubles."""
    floats = struct.unpack(f"<{len(raw) // 8}d", raw)
    total = sum(floats)
    if not math.isfinite(total):
        return None
    counted = _sides(_cells(raw).items())
    return Batch(len(floats), total, min(floats), max(floats), *counted, 0)


def _cells(raw: bytes) -> Mapping[int, int]:
    """Return the counts by cell: sign, exponent, and seven bits of the mantissa; five bits of nothing behind."""
    words = bytearray(len(raw) // 2)
    words[_PLACES[0] :: 4] = raw[5::8].translate(_TOP_THREE_BITS)
    words[_PLACES[1] :: 4] = raw[6::8]
    words[_PLACES[2] :: 4] = raw[7::8]
    return {word >> 5: count for word, count in Counter(memoryview(words).cast("I").tolist()).items()}


def _sides(cells: Any) -> tuple[int, Lanes, Lanes]:
    """Return the count of zeros and the lanes of either side."""
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    zeros = 0
    for cell, count in cells:
        octave = (cell >> 7) & 2047
        if not octave:
            zeros += count  # and what is nearer to zero than any normal float
            continue
        side = sides[cell >= _SIGN]
        bucket = octave * PER_OCTAVE + GROUPS[cell & (CELLS - 1)]
        side[bucket] = side.get(bucket, 0) + count
    return zeros, _lanes(sides[0]), _lanes(sides[1])


def _lanes(counts: Mapping[int, int]) -> Lanes:
    if not counts:
        return EMPTY_LANES
    highest = max(counts)
    low = max(min(counts), highest - _MAX_LANES)
    row = array("Q", bytes(8 * (highest - low + 1)))
    for bucket, count in counts.items():
        row[max(0, bucket - low)] += count
    return lanes_of(low, row)


def _numpy_counted(numpy: Any, raw: bytes) -> Batch | None:
    """Count with numpy; ``None`` when a value or the sum is not finite. ``raw`` holds the values as doubles."""
    floats = numpy.frombuffer(raw, dtype=numpy.float64)
    with numpy.errstate(all="ignore"):
        total = float(floats.sum())
    if not math.isfinite(total):
        return None
    minimum, maximum = float(floats.min()), float(floats.max())
    cells = floats.view(numpy.int64) >> 45
    if minimum >= _SMALLEST_NORMAL and maximum < minimum * _MOST_SPREAD:
        counted = (0, _numpy_lanes(numpy, cells, bucket_of(minimum)), EMPTY_LANES)
    else:  # zeros, negative values, or hardly two alike
        found, counts = numpy.unique(cells & (2 * _SIGN - 1), return_counts=True)
        counted = _sides(zip(found.tolist(), counts.tolist(), strict=True))
    return Batch(len(floats), total, minimum, maximum, *counted, 0)


def _numpy_lanes(numpy: Any, cells: Any, low: int) -> Lanes:
    groups = numpy.frombuffer(GROUPS, dtype=numpy.uint8)
    buckets = (cells >> 7) * PER_OCTAVE + groups[cells & (CELLS - 1)]
    buckets -= low
    row = array("Q")
    row.frombytes(numpy.bincount(buckets).tobytes())  # of 64-bit integers, none of them negative
    return lanes_of(low, row)
