"""How fast is the cache, beside the others, and does it keep its word on bytes, processes, Redis and disk?

    python benchmarks/cache_speed.py [--json] [--only NAME,...]

The parts (--only) are: memory, codec, shared, disk. A part that cannot run is an error, never left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness import Figure, Figures, chosen_of, package

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTS = ("memory", "codec", "shared", "disk")

_FIELDS = {field.name for field in fields(Figure)}


def as_figure(row: Figure | Mapping[str, Any]) -> Figure:
    """Return one row of a part, which may be plain; what it says of itself must be true.

    Raises:
        ValueError: it says that it holds and does not, or the reverse.
    """
    if isinstance(row, Figure):
        return row
    figure = Figure(**{name: value for name, value in row.items() if name in _FIELDS})
    if row.get("holds", figure.holds) is not figure.holds:
        message = (
            f"{figure.what!r} is {figure.value!r}, with a target of {figure.target!r}: holds is not {row['holds']!r}"
        )
        raise ValueError(message)
    return figure


def run_part(name: str, figures: Figures) -> bool:
    """Take the rows of one part; return whether it went through. If it pins the process, the next one is free again."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        for row in import_module(f"cache_speed_{name}").rows():
            figures.add(as_figure(row))
    except Exception:  # noqa: BLE001  # whatever ends one part must not hide the others
        print(f"the part {name!r} did not go through:\n{traceback.format_exc()}", file=sys.stderr)
        return False
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
    return True


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    parser.add_argument(
        "--only", type=chosen_of(PARTS), default=list(PARTS), metavar="NAME,...", help="take only these parts"
    )
    arguments = parser.parse_args()
    figures = Figures(f"the cache ({package('ondol')})", arguments.json)
    went_through = [run_part(name, figures) for name in arguments.only]
    status = figures.finish() if figures.rows else 1
    return status if all(went_through) else 1


if __name__ == "__main__":
    sys.exit(main())
