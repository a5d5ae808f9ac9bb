"""decision: counts of neighbouring buckets, side by side in one long integer, and their short form in bytes.

A lane of 64 bits a bucket: adding two sets of counts is one addition, moving them one shift, whatever their number.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EMPTY_LANES", "Lanes", "counts_of", "lanes_of", "pack_counts", "together", "unpack_counts"]

LANE_BITS: Final = 64
LANE_BYTES: Final = 8
_MASKED_LANES: Final = 2048
_BEYOND: Final = tuple(
    (width, int.from_bytes((bytes(width) + b"\xff" * (LANE_BYTES - width)) * _MASKED_LANES, "little"))
    for width in (1, 2, 4)
)
"""By width: the bits of counts that need more bytes; a loop over the counts would cost ten times as much."""

_IS_LITTLE: Final = sys.byteorder == "little"


class Lanes(NamedTuple):
    """Counts from the bucket ``low`` on; no counts at all are 0 ``bits``."""

    low: int
    bits: int

    @property
    def span(self) -> int:
        """How many lanes there are."""
        return -(-self.bits.bit_length() // LANE_BITS)


EMPTY_LANES: Final = Lanes(0, 0)


def lanes_of(low: int, counts: array[int]) -> Lanes:
    """Return lanes with the 64-bit ``counts`` of the buckets from ``low`` on; the last is not 0."""
    return Lanes(low, int.from_bytes(_little(counts).tobytes(), "little"))


def counts_of(lanes: Lanes) -> array[int]:
    """Return the counts from the bucket ``lanes.low`` on."""
    counts = array("Q")
    counts.frombytes(lanes.bits.to_bytes(lanes.span * LANE_BYTES, "little"))
    return _little(counts)


def together(several: Iterable[Lanes], most: int) -> Lanes:
    """Return the sums, in at most ``most`` lanes: counts below the lowest of these are added to it."""
    present = [lanes for lanes in several if lanes.bits]
    if not present:
        return EMPTY_LANES
    lowest = min(lanes.low for lanes in present)
    floor = max(lanes.low + lanes.span for lanes in present) - most
    if lowest < floor:
        present = [_raised(lanes, floor) for lanes in present]
        lowest = floor
    return Lanes(lowest, sum(lanes.bits << (LANE_BITS * (lanes.low - lowest)) for lanes in present))


def _raised(lanes: Lanes, floor: int) -> Lanes:
    """Return the counts with those below ``floor`` added to it."""
    surplus = floor - lanes.low
    if surplus <= 0:
        return lanes
    below = lanes.bits & ((1 << (LANE_BITS * surplus)) - 1)
    return Lanes(floor, (lanes.bits >> (LANE_BITS * surplus)) + sum(counts_of(Lanes(0, below))))


def pack_counts(lanes: Lanes) -> tuple[int, bytes]:
    """Return how many bytes a count takes, and the counts in that width, place by place."""
    span = lanes.span
    raw = lanes.bits.to_bytes(span * LANE_BYTES, "little")
    width = next((width for width, beyond in _BEYOND if span <= _MASKED_LANES and not lanes.bits & beyond), LANE_BYTES)
    if width == LANE_BYTES:
        return width, raw
    # Place by place: the higher bytes are alike and compress to little.
    return width, b"".join(raw[place::LANE_BYTES] for place in range(width))


def unpack_counts(low: int, width: int, packed: bytes) -> Lanes:
    """Return the lanes that ``pack_counts`` packed."""
    if width == LANE_BYTES:
        return Lanes(low, int.from_bytes(packed, "little"))
    span = len(packed) // width
    raw = bytearray(span * LANE_BYTES)
    for place in range(width):
        raw[place::LANE_BYTES] = packed[place * span : (place + 1) * span]
    return Lanes(low, int.from_bytes(raw, "little"))


def _little(counts: array[int]) -> array[int]:
    if not _IS_LITTLE:
        counts = counts[:]
        counts.byteswap()
    return counts
