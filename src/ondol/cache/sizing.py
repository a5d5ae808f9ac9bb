"""decision: how many bytes an entry takes, by type: exact for flat values, sampled for large containers.

Nothing here walks a large value to its end: of each container only some items are looked at, fewer the deeper it
lies, and the rest is extrapolated. A value therefore costs at most a few thousand steps, however large it is.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DEADLINE_OVERHEAD_BYTES", "ENTRY_OVERHEAD_BYTES", "entry_size", "size_of"]

ENTRY_OVERHEAD_BYTES: Final = 220
"""What the cache itself keeps for an entry: its record and its places in the tables of entries and of the policy."""

DEADLINE_OVERHEAD_BYTES: Final = 100
"""What the timer wheel keeps for an entry that expires."""

_SAMPLES: Final = (48, 12, 6, 3)
"""How many items of a container are looked at, by depth; below that only the container's own bytes count."""

_ARRAY_HEADER_BYTES: Final = 128
_UNKNOWN_BYTES: Final = 1024
_ALIGNMENT_BYTES: Final = 16
_FIELDS_OF_RECORD: Final = 64
_SHARED_REFERENCES: Final = 8
_FLAT: Final = frozenset({str, bytes, bytearray, int, float, complex})
_SHARED: Final = frozenset({bool, type(None), type(Ellipsis)})


def entry_size(key: str, value: object, *, has_deadline: bool) -> int:
    """Return the bytes that an entry takes: value, key, and what the cache keeps for it."""
    overhead = ENTRY_OVERHEAD_BYTES + DEADLINE_OVERHEAD_BYTES if has_deadline else ENTRY_OVERHEAD_BYTES
    return _aligned(key) + size_of(value) + overhead


def size_of(value: object) -> int:
    """Return the bytes that ``value`` takes, never less than 0.

    Text, bytes and numbers are exact; arrays count their ``nbytes`` (a view counts its own, not those of the
    array it looks into: copy before caching a small part of something large); containers and objects are sampled
    four levels deep. Objects that are met twice count once. A value whose size cannot be read counts as 1 KiB.

    Cost: O(1).
    """
    kind = type(value)
    if kind in _FLAT:
        return _aligned(value)
    if kind in _SHARED:
        return 0
    try:
        return _walk(value, 0, set())
    except Exception:  # noqa: BLE001  # foreign __sizeof__, properties and iterators may raise anything; a size is never worth a crash
        return _UNKNOWN_BYTES


def _walk(value: Any, depth: int, seen: set[int]) -> int:
    kind = type(value)
    if kind in _SHARED or id(value) in seen:
        return 0
    seen.add(id(value))
    if kind in _FLAT or isinstance(value, type):
        return _aligned(value)
    if hasattr(kind, "nbytes"):
        return _array_bytes(value, depth, seen)
    own = _aligned(value)
    if isinstance(value, dict):
        return own + _key_bytes(value, depth, seen) + _sampled(value.values(), len(value), depth, seen)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return own + _sampled(value, len(value), depth, seen)
    return own + _attribute_bytes(value, kind, depth, seen)


def _aligned(value: object) -> int:
    """Return the object's own bytes, rounded up as the allocator does."""
    size_bytes = sys.getsizeof(value, _UNKNOWN_BYTES)
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _key_bytes(mapping: dict[Any, Any], depth: int, seen: set[int]) -> int:
    if len(mapping) <= _FIELDS_OF_RECORD:
        # The field names of records are one object for all of them, such as a literal in somebody's code.
        seen.update(id(key) for key in mapping if type(key) is str and sys.getrefcount(key) > _SHARED_REFERENCES)
    return _sampled(mapping, len(mapping), depth, seen)


def _array_bytes(value: Any, depth: int, seen: set[int]) -> int:
    held = 0
    if getattr(getattr(value, "dtype", None), "hasobject", False):
        held = _sampled(value.flat, value.size, depth, seen)
    return int(value.nbytes) + _ARRAY_HEADER_BYTES + held


def _attribute_bytes(value: Any, kind: type, depth: int, seen: set[int]) -> int:
    attributes = getattr(value, "__dict__", None)
    total = _walk(attributes, depth, seen) if isinstance(attributes, dict) else 0
    names = [name for base in kind.__mro__ for name in _slots(base)]
    held = [getattr(value, name) for name in names if hasattr(value, name)]
    return total + _sampled(held, len(held), depth, seen)


def _slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _sampled(items: Iterable[object], count: int, depth: int, seen: set[int]) -> int:
    """Return the bytes of ``count`` items, extrapolated from evenly spaced ones."""
    if count == 0 or depth >= len(_SAMPLES):
        return 0
    step = -(-count // _SAMPLES[depth])
    sample = [_walk(item, depth + 1, seen) for item in islice(items, 0, None, step)]
    return sum(sample) * count // len(sample)
