"""adapter: the C library's allocator, told to give the memory of a model that left back to the system.

glibc keeps what was freed for the next allocation, and the more so the larger the blocks are that it has seen
freed: without these calls a process stays as large as the largest set of models it ever held.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Final, NamedTuple

from ondol.units import MIB, format_bytes

__all__ = ["MMAP_THRESHOLD_BYTES", "TRIM_THRESHOLD_BYTES", "AllocatorReport", "give_back", "prepare_allocator"]

# Blocks from here on get a mapping of their own, which goes back the moment it is freed. Setting it also stops
# glibc from raising it (up to 32 MiB, as soon as one such block was freed). Lower would make every array of a
# few hundred KiB a mapping, whose pages cost more to fault in than most arithmetic on them.
MMAP_THRESHOLD_BYTES: Final = 1 * MIB
# The free end of the heap is kept up to this size. It would be 128 KiB once the other threshold is set: then the
# heap shrinks and grows again with each temporary array.
TRIM_THRESHOLD_BYTES: Final = 16 * MIB

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_TUNABLES: Final = ("glibc.malloc.mmap_threshold", "glibc.malloc.trim_threshold")


class AllocatorReport(NamedTuple):
    """What :func:`prepare_allocator` did, for a log line and the statistics."""

    is_applied: bool
    """Whether the allocator was set."""
    reason: str
    """One sentence: what was set, or why nothing was."""


def prepare_allocator() -> AllocatorReport:
    """Let large blocks go back to the system when they are freed; return what was done.

    Call it once, early: blocks that exist already stay where they are. Calling it again changes nothing. What
    an operator set in the environment (``MALLOC_*_THRESHOLD_``, those of ``GLIBC_TUNABLES``) is left alone.

    Thread-safety: safe, glibc locks.
    """
    version = _glibc_version()
    if version is None:
        return AllocatorReport(is_applied=False, reason="the C library is not glibc; its allocator is left as it is")
    if chosen := _chosen_by_operator():
        return AllocatorReport(is_applied=False, reason=f"{chosen} is set; the allocator is left as it is")
    library = _library()
    is_set = library.mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) == 1
    is_set = library.mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES) == 1 and is_set
    if not is_set:
        return AllocatorReport(is_applied=False, reason=f"{version} refused the thresholds")
    return AllocatorReport(
        is_applied=True,
        reason=f"{version}: blocks from {format_bytes(MMAP_THRESHOLD_BYTES)} on are mapped, "
        f"a free end of the heap from {format_bytes(TRIM_THRESHOLD_BYTES)} on is given back",
    )


def give_back() -> bool:
    """Give the free pages of the heap back to the system; return whether there were any.

    Objects that only the garbage collector can free are not free yet. Does nothing where the C library is not
    glibc.

    Cost: a walk over the free blocks, about 20 ms for 256 MiB in small pieces, 1 ms when there is little to
    give; the interpreter runs on meanwhile, allocations of other threads may wait.
    """
    return _glibc_version() is not None and _library().malloc_trim(0) == 1


def _glibc_version() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or None
    except (AttributeError, OSError, ValueError):
        return None  # musl and macOS know no such name, Windows not even the function


def _chosen_by_operator() -> str | None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        if os.environ.get(name):
            return name
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "GLIBC_TUNABLES" if any(name in tunables for name in _TUNABLES) else None


@functools.cache
def _library() -> Any:
    import ctypes  # noqa: PLC0415  # costs milliseconds that a process without models need not pay

    library = ctypes.CDLL(None)
    library.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    library.malloc_trim.argtypes = (ctypes.c_size_t,)
    return library
