"""Ten models of 200 MB under a budget of 600 MB, hit at random over HTTP: does the memory hold, are the answers right?

    python benchmarks/models_load.py [--seconds 120] [--clients 8] [--seed 1] [--json]

A FastAPI app with `ondol.asgi.install` runs in a process of its own. Each model is 200 MB (200,000,000 bytes) of
numbers, read from a file into the process's memory; MODEL_MEMORY_LIMIT_MB is 600 (629 million bytes). The clients
choose models by a skewed distribution that drifts, and check every answer. The process's memory is sampled five times a
second. Written into --results: models_load.jsonl (the figures), models_load.json (the samples, loads and unloads) and
models_load.svg (both drawn).
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import Figure, Figures, machine, package
from models_conditions import FOLDER, MB, percentile
from models_load_clients import Demand, run_clients
from models_load_memory import MemorySampler
from models_load_plot import Plot, draw
from models_load_weights import MODEL_BYTES, name_of, write
from models_server import running

if TYPE_CHECKING:
    from models_load_clients import Hit
    from models_load_memory import Sample
    from models_server import Server

SETTLE_S = 2.0
"""How long the memory is watched before the first hit, and after everything was unloaded."""
MIB = 1 << 20


class Run(NamedTuple):
    """All that was seen."""

    begun_at_s: float
    ended_at_s: float
    hits: list[Hit]
    samples: list[Sample]
    baseline_bytes: int
    peak_bytes: int
    left_bytes: int
    pool: dict[str, Any]
    events: list[tuple[float, str, str]]


def ask(server: Server, method: str, path: str) -> Any:
    """Return the server's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path)
    answer = json.load(connection.getresponse())
    connection.close()
    return answer


def run(arguments: argparse.Namespace, folder: Path) -> Run:
    """Write the models, run the server and the clients, and return what was seen."""
    for number in range(arguments.models):
        write(folder / name_of(number), number)
    demand = Demand(arguments.models, arguments.seconds, arguments.seed)
    options = ["--unsized"] if arguments.unsized else []
    limit = {"MODEL_MEMORY_LIMIT_MB": str(arguments.budget)}
    with running("models_load_app.py", folder, str(folder), str(arguments.models), *options, **limit) as server:
        ask(server, "GET", "/report")
        time.sleep(SETTLE_S)
        sampler = MemorySampler(server.pid)
        baseline_bytes = sampler.sample().rss_bytes
        sampler.reset_peak()
        with sampler:
            begun_at_s = time.monotonic()
            hits = run_clients(
                server.port, demand, clients=arguments.clients, seconds=arguments.seconds, seed=arguments.seed
            )
            ended_at_s = time.monotonic()
            peak_bytes = sampler.peak_bytes()
            report = ask(server, "GET", "/report")
            ask(server, "POST", "/unload-all")
            time.sleep(SETTLE_S)
            events = ask(server, "GET", "/report")["events"]
        left_bytes = sampler.samples[-1].rss_bytes - baseline_bytes
    return Run(
        begun_at_s, ended_at_s, hits, sampler.samples, baseline_bytes, peak_bytes, left_bytes, report["pool"], events
    )


def add_answers(figures: Figures, found: Run, conditions: str) -> None:
    """Add what the clients saw."""
    answered = [hit for hit in found.hits if not hit.fault]
    errors, wrong = len(found.hits) - len(answered), sum(not hit.is_right for hit in answered)
    hot = [hit.taken_s * 1e3 for hit in answered if hit.was_ready] or [0.0]
    cold = [hit.taken_s * 1e3 for hit in answered if not hit.was_ready] or [0.0]
    share = 100 * len(hot) / len(found.hits)
    figures.add(Figure("requests", len(found.hits), "requests", better="higher", conditions=conditions))
    figures.add(Figure("errors", errors, "requests", 0, conditions=conditions))
    figures.add(Figure("wrong answers", wrong, "requests", 0, conditions=conditions))
    figures.add(Figure("the model was ready", share, "%", better="higher", conditions=conditions))
    for what, times_ms in (("ready", hot), ("cold", cold)):
        for name, ratio in (("median", 0.5), ("p99", 0.99)):
            value = percentile(times_ms, ratio)
            figures.add(Figure(f"latency, model {what}: {name}", value, "ms", conditions=conditions))
    for fault in {hit.fault for hit in found.hits if hit.fault}:
        print(f"error: {fault}", file=sys.stderr)


def add_pool(figures: Figures, found: Run, arguments: argparse.Namespace, conditions: str) -> None:
    """Add what the pool did, and what the kernel says of the process's memory."""
    pool = found.pool
    figures.add(Figure("loads", pool["loads"], "loads", conditions=conditions))
    figures.add(Figure("evictions", pool["evictions"], "models", conditions=conditions))
    load_ms = 1e3 * pool["load_seconds_total"] / max(1, pool["loads"])
    figures.add(Figure("mean load", load_ms, "ms", conditions=conditions))
    budget_mb = arguments.budget * MIB / MB
    figures.add(Figure("memory: before any model", found.baseline_bytes / MB, "MB", conditions="RSS"))
    peak_mb = (found.peak_bytes - found.baseline_bytes) / MB
    # A size that nobody has told can only be known once the model is loaded.
    target = budget_mb + (MODEL_BYTES / MB if arguments.unsized else 0.0)
    peak = f"the kernel's own peak of the RSS; the budget is {budget_mb:.0f} MB"
    figures.add(Figure("memory: peak over that", peak_mb, "MB", target, conditions=peak))
    loaded = [
        sample.rss_bytes - found.baseline_bytes for sample in found.samples if sample.at_s < found.ended_at_s
    ] or [0]
    figures.add(Figure("memory: median over that", median(loaded) / MB, "MB", conditions="of the samples"))
    left = f"{SETTLE_S:.0f} s after all were unloaded"
    figures.add(
        Figure("memory: left over that at the end", found.left_bytes / MB, "MB", 0.05 * budget_mb, conditions=left)
    )


def spans(found: Run, models: int, end_s: float) -> dict[str, list[tuple[float, float]]]:
    """Return when each model was in memory, in seconds from the beginning."""
    resident: dict[str, list[tuple[float, float]]] = {name_of(number): [] for number in range(models)}
    since_s: dict[str, float] = {}
    for at_s, event, name in found.events:
        if event == "ready":
            since_s.setdefault(name, at_s - found.begun_at_s)
        elif event == "unloaded" and name in since_s:
            resident[name].append((since_s.pop(name), at_s - found.begun_at_s))
    for name, begin_s in since_s.items():
        resident[name].append((begin_s, end_s))
    return resident


def plotted(found: Run, arguments: argparse.Namespace) -> Plot:
    """Return what is drawn."""
    end_s = found.samples[-1].at_s - found.begun_at_s
    budget_mb = arguments.budget * MIB / MB
    unloads_s = [at_s - found.begun_at_s for at_s, event, _ in found.events if event == "unloaded"]
    return Plot(
        title=f"{arguments.models} models of {MODEL_BYTES // MB} MB under a budget of {arguments.budget:g} MB",
        subtitle=(
            f"{arguments.clients} clients, {arguments.seconds:g} s, {len(found.hits)} requests; the kernel's peak was "
            f"{found.peak_bytes / MB:.0f} MB; all models are unloaded at the end. 1 MB = 1,000,000 bytes "
            f"(the budget: {budget_mb:.0f})"
        ),
        end_s=end_s,
        memory=[(sample.at_s - found.begun_at_s, sample.rss_bytes / MB) for sample in found.samples],
        baseline_mb=found.baseline_bytes / MB,
        budget_mb=budget_mb,
        loads_s=[at_s - found.begun_at_s for at_s, event, _ in found.events if event == "ready"],
        evictions_s=[at_s for at_s in unloads_s if at_s < found.ended_at_s - found.begun_at_s],
        resident=spans(found, arguments.models, end_s),
    )


def plain(found: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the run as data: columns of samples, and events."""
    columns: dict[str, list[float | None]] = {"at_s": [], "rss_mb": [], "pss_mb": [], "cgroup_mb": []}
    for sample in found.samples:
        columns["at_s"].append(round(sample.at_s - found.begun_at_s, 2))
        for name, value in zip(list(columns)[1:], sample[1:], strict=True):
            columns[name].append(None if value is None else round(value / MB, 1))
    events = [(round(at_s - found.begun_at_s, 3), event, name) for at_s, event, name in found.events]
    given = {name: value for name, value in vars(arguments).items() if name not in {"results", "json"}}
    return {"arguments": given, "machine": machine(), "samples": columns, "events": events}


def write_results(found: Run, figures: Figures, arguments: argparse.Namespace) -> None:
    """Write the three files."""
    folder: Path = arguments.results
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**asdict(row), "holds": row.holds}, ensure_ascii=False) for row in figures.rows]
    (folder / "models_load.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(plain(found, arguments), separators=(",", ":"))
    (folder / "models_load.json").write_text(text + "\n", encoding="utf-8")
    (folder / "models_load.svg").write_text(draw(plotted(found, arguments)), encoding="utf-8")


def main() -> int:
    """Run the load; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the clients hit (default 120)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once (default 8)")
    parser.add_argument("--models", type=int, default=10, help="models of 200 MB (default 10)")
    parser.add_argument("--budget", type=float, default=600.0, help="MODEL_MEMORY_LIMIT_MB of the server (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of models (default 1)")
    parser.add_argument("--unsized", action="store_true", help="do not tell the pool how large the models are")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", help="folder of the files that are written")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    figures = Figures(f"load ({package('fastapi')} on {package('uvicorn')}, {package('numpy')})", arguments.json)
    with tempfile.TemporaryDirectory() as folder:
        found = run(arguments, Path(folder))
    conditions = f"{arguments.clients} clients, {arguments.seconds:g} s"
    add_answers(figures, found, conditions)
    add_pool(figures, found, arguments, conditions)
    write_results(found, figures, arguments)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
