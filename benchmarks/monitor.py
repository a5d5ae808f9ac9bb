"""What does monitoring cost, how true are its numbers, and how many notices does it send?

    python benchmarks/monitor.py [--json] [--quick] [--only NAME,...]

The parts (--only) are: recording, timing, percentiles, memory, health, notices, server, logs. A part that cannot run is
an error, never left out. All of it takes about six minutes, most of it counting the server's instructions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from importlib import import_module

from harness import Figures, chosen_of, package

PARTS = ("recording", "timing", "percentiles", "memory", "health", "notices", "server", "logs")


def run_part(name: str, figures: Figures, *, is_quick: bool) -> bool:
    """Take the rows of one part; return whether it went through. If it pins the process, the next one is free again."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    begun_s = time.perf_counter()
    try:
        for row in import_module(f"monitor_{name}").rows(is_quick=is_quick):
            figures.add(row)
    except Exception:  # noqa: BLE001  # whatever ends one part must not hide the others
        print(
            f"the part {name!r} did not go through, its figures are missing:\n{traceback.format_exc()}", file=sys.stderr
        )
        return False
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        print(f"{name}: {time.perf_counter() - begun_s:.0f} s", file=sys.stderr)
    return True


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works, not to quote")
    parser.add_argument(
        "--only", type=chosen_of(PARTS), default=list(PARTS), metavar="NAME,...", help="take only these parts"
    )
    arguments = parser.parse_args()
    figures = Figures(f"monitoring ({package('ondol')})", arguments.json)
    went_through = [run_part(name, figures, is_quick=arguments.quick) for name in arguments.only]
    status = figures.finish() if figures.rows else 1
    return status if all(went_through) else 1


if __name__ == "__main__":
    sys.exit(main())
