"""Drive the model pool through a million random steps on virtual time and check, all the way, what must hold.

The world, the actions and the invariants are those of the property test (``tests/property/pool_machine.py``). The steps
are drawn by a plain seeded generator instead of hypothesis: it is several times faster, and a history here is long
anyway. Every run has a seed of its own, which is printed when something does not hold, together with the history
that led there; ``--seed SEED --runs 1`` repeats it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.property.pool_machine import ACTIONS, PAUSES_S, World, WorldError, quiet_logs  # noqa: E402

_PROGRESS_S = 10.0
_KINDS = [*ACTIONS]
_WEIGHTS = [weight for weight, _ in ACTIONS.values()]


def run(seed: int, steps: int) -> World:
    """Make a world, do ``steps`` things in it, and see it end well.

    Raises:
        WorldError: something that must hold does not.
    """
    draw = Random(seed)
    weights = [weight * draw.choice((0, 1, 1, 2)) for weight in _WEIGHTS]  # each run has a character of its own
    weights[0] = max(weights[0], 1)
    with World(seed) as world:
        for _ in range(steps):
            kind = draw.choices(_KINDS, weights)[0]
            arguments = {name: draw.choice(values) for name, values in ACTIONS[kind][1].items()}
            world.step(kind, arguments, draw.choice(PAUSES_S))
        world.settle()
    return world


def main() -> int:
    """Run until the steps are done; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="how many in all (default: %(default)s)")
    parser.add_argument("--run-steps", type=int, default=500, help="how many in one world (default: %(default)s)")
    parser.add_argument("--runs", type=int, help="how many worlds; overrides --steps")
    parser.add_argument("--seed", type=int, default=1, help="of the first run (default: %(default)s)")
    options = parser.parse_args()
    runs = options.runs or -(-options.steps // options.run_steps)
    begun_s = told_s = time.monotonic()
    steps = events = 0
    virtual_s = 0.0
    print(f"soak: {runs} runs of {options.run_steps} steps, seeds {options.seed} to {options.seed + runs - 1}")
    with quiet_logs():
        for seed in range(options.seed, options.seed + runs):
            try:
                world = run(seed, options.run_steps)
            except WorldError as exc:
                print(f"soak: run {seed} failed: {exc}\nsoak: to repeat: {_repeat(seed, options.run_steps)}")
                return 1
            steps, events, virtual_s = steps + world.steps, events + world.events, virtual_s + world.monotonic()
            if time.monotonic() - told_s >= _PROGRESS_S:
                told_s = time.monotonic()
                print(f"soak: {_figures(steps, events, virtual_s, told_s - begun_s)}; last seed {seed}", flush=True)
    print(f"soak: all is well after {_figures(steps, events, virtual_s, time.monotonic() - begun_s)}")
    return 0


def _figures(steps: int, events: int, virtual_s: float, took_s: float) -> str:
    return (
        f"{steps:,} steps, {events:,} events, {virtual_s / 86_400:,.1f} virtual days in {took_s:,.0f} s "
        f"({steps / took_s:,.0f} steps/s)"
    )


def _repeat(seed: int, run_steps: int) -> str:
    return f"PYTHONHASHSEED=0 python scripts/soak.py --seed {seed} --runs 1 --run-steps {run_steps}"


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of names is part of a history
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
