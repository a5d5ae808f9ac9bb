"""The part of benchmarks/cache_speed.py about the memory tier: hits, sets with eviction, accounted bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_speed_hits import hit_rows
from cache_speed_sets import set_rows
from harness import Figure, machine, package
from models_conditions import in_new_process

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["rows"]

TARGETS = {"strings": ("1 KB strings", 0.10), "arrays": ("384-float arrays", 0.05), "documents": ("nested dicts", 0.25)}


def rows() -> Iterator[Figure]:
    """Measure all of it."""
    yield from hit_rows()
    yield from set_rows()
    yield from accounting_rows()


def accounting_rows() -> Iterator[Figure]:
    """Accounted bytes against the growth of a new process."""
    for kind, (name, target) in TARGETS.items():
        found = in_new_process("cache_speed_accounting.py", kind)
        how = (
            f"{found['entries']:,} entries, {found['used_bytes']:,} bytes accounted for with keys and overhead, "
            f"resident set grown by {found['grown_bytes']:,}; new process, collected and trimmed before and after; "
            f"{package('numpy')}; {machine()}"
        )
        off = abs(found["used_bytes"] / found["grown_bytes"] - 1.0)
        yield Figure(f"accounted bytes off the growth of RSS, 100 MB of {name}", off, "ratio", target, conditions=how)
        off = found["later_used_bytes"] / found["later_grown_bytes"] - 1.0
        how = (
            f"as above, then every entry replaced twice by others: {found['later_grown_bytes']:,} bytes; with its sign"
        )
        yield Figure(f"the same after replacing all of them twice, {name}", off, "ratio", conditions=how)
