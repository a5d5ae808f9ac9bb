"""decision: how many bytes an entry takes, by type: exact for flat values and arrays, sampled for large containers.

Nothing here walks a large value to its end: of each container only some items are looked at, the fewer the deeper it
lies, and the rest is extrapolated. How close that comes to the memory that a process really takes is told in
docs/en/decisions/009-counting-bytes.md.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from enum import Enum
from itertools import islice
from math import isqrt
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.tags import TAG_OVERHEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["DEADLINE_OVERHEAD_BYTES", "ENTRY_OVERHEAD_BYTES", "FLAT_TYPES", "entry_size", "size_of"]

ENTRY_OVERHEAD_BYTES: Final = 384
"""What the cache itself keeps for an entry: its record and its places in the tables of entries and of the policy."""

DEADLINE_OVERHEAD_BYTES: Final = 240
"""What the timer wheel keeps for an entry that expires, and its times."""

FLAT_TYPES: Final = frozenset({str, bytes, bytearray, int, float, complex})
"""Values whose own size is all there is."""

_LOOKS: Final = 1024
"""How many items are looked at, about: twice the root of it in the outermost container, the rest within its items."""

_REACH: Final = 1024
"""How far from both ends a container without positions is looked into."""

_ARRAY_HEADER_BYTES: Final = 128
_DIMENSION_BYTES: Final = 16
_COLLECTOR_BYTES: Final = 16
_ATTRIBUTES_BYTES: Final = 16
_POINTER_BYTES: Final = 8
_UNKNOWN_BYTES: Final = 1024
_SHARED_REFERENCES: Final = 10
_MAX_SHARED_CHARS: Final = 64
_SHARED_INTS: Final = range(-5, 257)
_SHARED: Final = frozenset({bool, type(None), type(Ellipsis), FunctionType, BuiltinFunctionType, ModuleType})
_SCATTER: Final = 2654435761
"""Its multiples are spread evenly over the remainders of nearly anything."""


def entry_size(key: Any, value: Any, *, has_timing: bool = False, tag_count: int = 0) -> int:
    """Return the bytes that an entry takes: value, key, and what the cache keeps for it."""
    size_bytes: int = ENTRY_OVERHEAD_BYTES + ((key.__sizeof__() + 15) & -16)
    if type(key) is tuple:
        size_bytes += _COLLECTOR_BYTES + _held_bytes(key, len(key), 0, set())
    if type(value) in FLAT_TYPES:
        size_bytes += (value.__sizeof__() + 15) & -16
    else:
        size_bytes += size_of(value)
    if has_timing:
        size_bytes += DEADLINE_OVERHEAD_BYTES
    return size_bytes + tag_count * TAG_OVERHEAD_BYTES


def size_of(value: Any) -> int:
    """Return the bytes that ``value`` takes, never less than 0.

    Text, bytes, numbers and numpy arrays are exact; a view counts its own bytes, not those of the array it looks
    into: copy before caching a small part of something large. Containers and objects are sampled. An object that is
    met twice counts once; within containers, constants, classes, members of enums, small integers, and short strings
    that are referred to from many places count nothing. A value whose size cannot be read counts as 1 KiB.

    Cost: O(1): half a microsecond for flat values and arrays, tens of microseconds for a document of fifty fields, a
    few milliseconds at most.
    """
    kind = type(value)
    if kind in FLAT_TYPES:
        return _aligned(value)
    if kind in _SHARED:
        return 0
    try:
        return _walk(value, kind, _LOOKS, set())
    except Exception:  # noqa: BLE001  # foreign __sizeof__, properties and iterators may raise anything; a size is never worth a crash
        return _UNKNOWN_BYTES


def _walk(value: Any, kind: type, looks: int, seen: set[int]) -> int:
    """Return the bytes of a container, an array or an object that was not met before."""
    if kind.__name__ == "ndarray" and not value.dtype.hasobject:
        return int(value.nbytes) + _ARRAY_HEADER_BYTES + _DIMENSION_BYTES * int(value.ndim)
    if isinstance(value, (type, Enum)):
        return 0
    own_bytes = _aligned(value)
    if isinstance(value, dict):
        values = value.values()
        return own_bytes + _held_bytes(value, len(value), looks, seen) + _held_bytes(values, len(value), looks, seen)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return own_bytes + _held_bytes(value, len(value), looks, seen)
    if hasattr(kind, "nbytes") and hasattr(kind, "__len__"):  # arrays of any library; not single numbers of numpy
        return max(own_bytes, int(value.nbytes) + _ARRAY_HEADER_BYTES) + _objects_bytes(value, looks, seen)
    attributes, attributes_bytes = _attributes(value, kind)
    return own_bytes + attributes_bytes + _held_bytes(attributes, len(attributes), looks, seen)


def _held_bytes(items: Collection[Any], count: int, looks: int, seen: set[int]) -> int:
    """Return the bytes of ``count`` items, extrapolated from some of them."""
    if count == 0:
        return 0
    chosen = _chosen(items, count, max(2, 2 * isqrt(looks)))
    looks //= max(2, len(chosen))
    total_bytes = 0
    for item in chosen:
        kind = type(item)
        if kind in _SHARED or id(item) in seen:
            continue
        seen.add(id(item))
        if kind in FLAT_TYPES:
            if kind is float or not _is_shared(item, kind):
                total_bytes += (item.__sizeof__() + 15) & -16
        elif looks:
            total_bytes += _walk(item, kind, looks, seen)
        else:
            total_bytes += _aligned(item)
    return total_bytes * count // len(chosen)


def _is_shared(item: Any, kind: type) -> bool:
    """Return whether the interpreter or many others keep a flat item too, such as the names of fields."""
    if kind is str:
        return len(item) <= _MAX_SHARED_CHARS and sys.getrefcount(item) > _SHARED_REFERENCES
    return kind is int and item in _SHARED_INTS


def _chosen(items: Collection[Any], count: int, wanted: int) -> Sequence[Any]:
    """Return all items, or about ``wanted`` of them, spaced evenly and yet not in step with anything that repeats."""
    if count <= wanted:
        return list(items)
    if isinstance(items, (list, tuple)):
        pool: Sequence[Any] = items
    else:
        pool = list(islice(items, _REACH))
        if count > _REACH and hasattr(items, "__reversed__"):
            pool += islice(reversed(items), min(_REACH, count - _REACH))  # type: ignore[call-overload]  # it has the method
    stride = len(pool) // wanted
    return [pool[place * len(pool) // wanted + (place * _SCATTER >> 8) % stride] for place in range(wanted)]


def _objects_bytes(array: Any, looks: int, seen: set[int]) -> int:
    if getattr(getattr(array, "dtype", None), "hasobject", False):
        return _held_bytes(list(islice(array.flat, _REACH)), int(array.size), looks, seen)
    return 0


def _attributes(value: Any, kind: Any) -> tuple[list[Any], int]:
    """Return what an object holds, without giving it a ``__dict__`` that it did not have, and what holding it takes."""
    held = [item for item in gc.get_referents(value) if item is not kind]
    if kind.__dictoffset__ and not any(type(item) is dict for item in held):
        return held, _ATTRIBUTES_BYTES + _POINTER_BYTES * len(held)
    if not held:  # such as objects that the collector does not know
        names = [name for base in kind.__mro__ for name in _slots(base)]
        held = [getattr(value, name) for name in names if hasattr(value, name)]
    return held, 0


def _slots(kind: type) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _aligned(value: object) -> int:
    """Return the object's own bytes, rounded up as the allocator does."""
    return (sys.getsizeof(value, _UNKNOWN_BYTES) + 15) & -16
