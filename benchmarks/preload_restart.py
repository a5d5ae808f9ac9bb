"""What a restart costs: the waiting in the hour after it, with what was learnt kept, beside never restarting.

The process ends in the middle of the trace: memory is empty afterwards, and what the policy has learnt went to a file
and came back (as JSON here). Three ways to go on: in production what the start-up plan chooses is loaded before the
first request; in development requests come at once; without the history nothing was learnt.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from harness import Figure, Figures
from preload_replay import TraceError, read_trace
from preload_replay_ondol import Ondol
from preload_replay_pool import Pool, Requests

from ondol.preload.knowledge import knowledge_of, take_in
from ondol.preload.plan import Prospect, Room, Wish, plan_loads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from preload_replay import Trace
    from preload_replay_pool import ModelFigures

HOUR_S: Final = 3600.0
TARGET: Final = 1.1
SEEDS: Final = (42, 43, 44, 45, 46)


class Restarted(Ondol):
    """The policy of a process that was started with what an earlier one has learnt."""

    def __init__(self, knowledge: Mapping[str, object], now_s: float) -> None:
        """Take ``knowledge`` in at ``now_s``."""
        self.knowledge = knowledge
        self.now_s = now_s

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Let the policy know all models, and what was learnt of them."""
        super().begin(models, budget_bytes, residents)
        take_in(self.policy, self.knowledge, self.now_s)

    def start_up(self) -> list[int]:
        """Return what is loaded before the first request, by the plan of the preloader."""
        known = {model.name: Prospect((), size_bytes=model.size_bytes) for model in self.models}
        worths = {name: self.policy.worth_of(name, self.now_s) for name in known}
        wishes = [Wish(name, 5, worth, place) for place, (name, worth) in enumerate(worths.items()) if worth > 0.0]
        plan = plan_loads(wishes, known, failed=(), loading=(), room=Room(self.budget_bytes, {}))
        return [self.places[name] for name in plan.loads]


def hour_after(trace: Trace, seed: int, budget: float, at_s: float) -> dict[str, float]:
    """Return the waiting of the requests in the hour from ``at_s`` on, for each way to go on."""
    models = trace.models(seed)
    sizes = [model.size_bytes for model in models]
    budget_bytes = max(int(budget * sum(sizes)), *sizes)
    before, after = _part(trace.requests, 0.0, at_s), _part(trace.requests, at_s, at_s + HOUR_S)
    through = Requests(before.times_s + after.times_s, before.models + after.models)
    found = {"never": Pool(models, budget_bytes, Ondol(), at_s).replay(through).wait_s}
    old = Ondol()
    Pool(models, budget_bytes, old).replay(before)
    knowledge = json.loads(json.dumps(knowledge_of(old.policy, at_s)))
    production = Restarted(knowledge, at_s)
    pool = Pool(models, budget_bytes, production, at_s)
    pool.put(production.start_up(), at_s)
    found["production"] = pool.replay(after).wait_s
    found["development"] = Pool(models, budget_bytes, Restarted(knowledge, at_s), at_s).replay(after).wait_s
    found["forgotten"] = Pool(models, budget_bytes, Ondol(), at_s).replay(after).wait_s
    return found


def _part(requests: Requests, from_s: float, to_s: float) -> Requests:
    pairs = zip(requests.times_s, requests.models, strict=True)
    chosen = [(at_s, model) for at_s, model in pairs if from_s <= at_s < to_s]
    return Requests([at_s for at_s, _ in chosen], [model for _, model in chosen])


def rows(trace: Trace, budget: float, at_s: float, seeds: Sequence[int]) -> Iterator[Figure]:
    """Yield the figures: medians over the seeds."""
    cells = [hour_after(trace, seed, budget, at_s) for seed in seeds]
    conditions = f"{trace.name}, {budget:.0%} of all bytes, restarted at {at_s:.0f} s, median of {len(seeds)} seeds"
    yield Figure(
        "waiting in the hour, never restarted", median([c["never"] for c in cells]), "s", conditions=conditions
    )
    ways = {
        "production": "restarted, preloaded before the first request: ratio",
        "development": "restarted, serving at once: ratio",
        "forgotten": "restarted without the history: ratio",
    }
    for way, what in ways.items():
        ratio = median([cell[way] / max(cell["never"], 1e-9) for cell in cells])
        yield Figure(what, ratio, "x", TARGET if way == "production" else None, conditions=conditions)


def main() -> int:
    """Run the command line; the exit status is 1 when the target is missed."""
    parser = argparse.ArgumentParser(description="Waiting in the hour after a restart.")
    parser.add_argument("trace", type=Path, help="a trace as benchmarks/preload_replay.py takes it")
    parser.add_argument("--at-seconds", type=float, help="when the process restarts; by default in the middle")
    parser.add_argument("--budget", type=float, default=0.25, help="part of all bytes (default 0.25)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    options = parser.parse_args()
    try:
        trace = read_trace(options.trace)
    except (OSError, TraceError) as exc:
        print(f"preload_restart: {exc}", file=sys.stderr)
        return 2
    middle_s = (trace.requests.times_s[0] + trace.requests.times_s[-1]) / 2
    figures = Figures("The hour after a restart", options.json)
    for figure in rows(trace, options.budget, options.at_seconds or middle_s, SEEDS):
        figures.add(figure)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
