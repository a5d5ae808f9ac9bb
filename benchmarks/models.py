"""Does hybrid loading keep what it promises: memory, first answers, shared loads, and a server that always answers?

    python benchmarks/models.py [--json] [--only NAME,...] [--quick]

The parts (--only) are: answer, memory, isolated, callers, parallel, livez, lease. All of them take about five minutes,
with --quick about one (only the large tensors in one file then).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from harness import Figures, chosen_of, package
from models_isolation import isolated_models
from models_livez import livez_under_load
from models_onnx import onnx_answers, onnx_memory
from models_pool import cold_callers, lease_cost, parallel_loads

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, Callable[..., None]] = {
    "answer": onnx_answers,
    "memory": onnx_memory,
    "isolated": isolated_models,
    "callers": cold_callers,
    "parallel": parallel_loads,
    "livez": livez_under_load,
    "lease": lease_cost,
}


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    parser.add_argument(
        "--only", type=chosen_of(PARTS), default=list(PARTS), metavar="NAME,...", help="take only these parts"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    arguments = parser.parse_args()
    figures = Figures(f"hybrid loading ({package('onnxruntime')}, {package('numpy')})", arguments.json)
    for name in arguments.only:
        PARTS[name](figures, is_quick=arguments.quick)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
