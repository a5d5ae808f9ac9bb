"""decision: what the disk tier keeps about each entry, in bytes, and what an entry is worth.

Worth is Greedy-Dual-Size (Cao and Irani, USENIX 1997): an entry is ranked by the store's level when it was last used
plus its cost per byte. The lowest rank leaves and becomes the level, so that what nobody reads is overtaken, however
dear it was. Ours counts in nanoseconds per KiB, and takes hits into account in batches.
"""

from __future__ import annotations

import math
from struct import Struct, error
from typing import Final, NamedTuple

from ondol.errors import CorruptEntryError

__all__ = ["NO_EXPIRY", "Record", "expiry_key", "order_key", "pack_record", "unpack_record", "weight_of"]

NO_EXPIRY: Final = math.inf

_HEAD: Final = Struct("<QQQdQH")
_LENGTH: Final = Struct("<H")
_ORDER: Final = Struct(">QQ")
_MAX_RANK: Final = (1 << 63) - 1
_MAX_WEIGHT: Final = 1 << 40
_MIN_COST_S: Final = 0.001
"""An entry whose cost is not known is worth a millisecond, not nothing."""
_OVERHEAD_BYTES: Final = 256
_NS_PER_S: Final = 1e9
_KIB: Final = 1024
_MS_PER_S: Final = 1000


class Record(NamedTuple):
    """What is known of one entry."""

    rank: int
    """The lowest leaves first."""
    turn: int
    """Tells entries of one rank apart: the one used longer ago has the lower."""
    birth: int
    """The number of the write that made it."""
    expires_at_s: float
    weight: int
    tags: tuple[bytes, ...] = ()
    key: bytes = b""
    """The whole canonical key when the store's key is cut."""

    def used(self, level: int, turn: int) -> Record:
        """Return it as it is after a hit."""
        return self._replace(rank=min(level + self.weight, _MAX_RANK), turn=turn)


def weight_of(cost_s: float, size_bytes: int) -> int:
    """Return what an entry is worth: nanoseconds of computing per KiB, at least 1."""
    worth = max(_MIN_COST_S, cost_s) * _NS_PER_S * _KIB / (size_bytes + _OVERHEAD_BYTES)
    return max(1, int(min(worth, _MAX_WEIGHT)))


def order_key(rank: int, turn: int) -> bytes:
    """Return a key that sorts by rank, then by turn."""
    return _ORDER.pack(rank, turn)


def expiry_key(expires_at_s: float, birth: int) -> bytes:
    """Return a key that sorts by time of expiry, in milliseconds rounded up."""
    milliseconds = min(max(0.0, expires_at_s * _MS_PER_S), float(1 << 62))  # in this order, which makes NaN 0
    return _ORDER.pack(math.ceil(milliseconds), birth)


def pack_record(record: Record) -> bytes:
    """Return a record as bytes."""
    head = _HEAD.pack(*record[:5], len(record.tags))
    tags = [_LENGTH.pack(len(tag)) + tag for tag in record.tags]
    return b"".join((head, *tags, record.key))


def unpack_record(raw: bytes) -> Record:
    """Return the record of these bytes.

    Raises:
        CorruptEntryError: they are none.
    """
    try:
        rank, turn, birth, expires_at_s, weight, count = _HEAD.unpack_from(raw)
        place, tags = _HEAD.size, []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(raw, place)
            place += _LENGTH.size
            tags.append(raw[place : place + length])
            place += length
    except error as exc:
        raise CorruptEntryError(f"not the record of an entry: {exc}") from exc
    return Record(rank, turn, birth, expires_at_s, weight, tuple(tags), raw[place:])
