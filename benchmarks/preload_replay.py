"""How long requests of a trace wait for models to load, with each policy and each peer, in simulated time.

Traces are CSV files, gzipped or not, with the columns ``t_seconds`` and ``model``. A seed gives the models sizes, with
logarithms spread evenly between 50 MB and 2 GB; a load takes 0.3 s and a second per 200 MB, two load at once. The
budget is a part of all models' bytes, but never less than the largest model.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from harness import chosen_of, machine, package
from preload_replay_clairvoyant import CLAIRVOYANTS
from preload_replay_ondol import ondol_policies
from preload_replay_peers import PEERS
from preload_replay_pool import ModelFigures, Outcome, Policy, Pool, Requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Number = TypeVar("Number", int, float)
Maker = Callable[[Requests], Policy]
"""Takes the requests, which only the clairvoyant look at."""

BASELINE: Final = "lru"
BYTES_PER_S: Final = 200e6
START_S: Final = 0.3


def blind(makers: Mapping[str, Callable[[], Policy]]) -> dict[str, Maker]:
    """Return makers of policies that are not shown the requests beforehand."""

    def blinded(make: Callable[[], Policy]) -> Maker:
        return lambda _: make()

    return {name: blinded(make) for name, make in makers.items()}


POLICIES: Final[dict[str, Maker]] = {
    **blind(ondol_policies()),
    **blind(PEERS),
    **CLAIRVOYANTS,
}


class TraceError(ValueError):
    """A trace cannot be replayed."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a file, and the names of their models in the order of the alphabet."""

    name: str
    requests: Requests
    model_names: list[str]

    def models(self, seed: int) -> list[ModelFigures]:
        """Return the models with the sizes that a seed gives them."""
        logs = np.random.default_rng(seed).uniform(math.log(50), math.log(2000), len(self.model_names))
        sizes = (int(size) for size in np.exp(logs) * 1e6)
        return [
            ModelFigures(name, size, size / BYTES_PER_S + START_S)
            for name, size in zip(self.model_names, sizes, strict=True)
        ]


def read_trace(path: Path) -> Trace:
    """Read a file.

    Raises:
        TraceError: it is no such file, or a value in it is none.
    """
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as lines:
            rows = list(_rows(path, lines))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as exc:
        raise TraceError(f"{path} cannot be read: {exc}") from exc
    if not rows:
        raise TraceError(f"{path} holds no requests")
    if any(later[0] < earlier[0] for earlier, later in pairwise(rows)):
        print(f"{path}: the times are not in order; the requests are sorted", file=sys.stderr)
        rows.sort(key=itemgetter(0))  # stable: requests of one time keep their order
    names = sorted({model for _, model in rows})
    places = {name: place for place, name in enumerate(names)}
    requests = Requests([time_s for time_s, _ in rows], [places[model] for _, model in rows])
    return Trace(path.name.removesuffix(".gz").removesuffix(".csv"), requests, names)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[float, str]]:
    reader = csv.reader(lines)
    header = next(reader, [])
    if missing := [name for name in ("t_seconds", "model") if name not in header]:
        raise TraceError(f"{path} has no column {' and no '.join(missing)}; its first line is {','.join(header)!r}")
    time_place, model_place = header.index("t_seconds"), header.index("model")
    for row in reader:
        if not row:
            continue
        where = f"{path}, line {reader.line_num}"
        if len(row) != len(header) or not row[model_place]:
            raise TraceError(f"{where}: {','.join(row)!r} is no request; it takes a time and the name of a model")
        yield _time_s(row[time_place], where), row[model_place]


def _time_s(text: str, where: str) -> float:
    try:
        time_s = float(text)
    except ValueError:
        time_s = math.nan
    if not 0 <= time_s < math.inf:
        raise TraceError(f"{where}: t_seconds is {text!r}; a number of seconds is needed, 0 or more")
    return time_s


@dataclass(frozen=True, slots=True)
class Cell:
    """What one policy made of one trace, at one budget and with one seed."""

    trace: str
    budget: float
    seed: int
    policy: str
    outcome: Outcome

    def line(self) -> str:
        """Return the cell as JSON."""
        row = asdict(self)
        return json.dumps(row | row.pop("outcome"), ensure_ascii=False)


def replay(trace: Trace, budget: float, seed: int, policy: str, counted_from_s: float) -> Cell:
    """Run one cell."""
    models = trace.models(seed)
    sizes = [model.size_bytes for model in models]
    budget_bytes = max(int(budget * sum(sizes)), *sizes)
    pool = Pool(models, budget_bytes, POLICIES[policy](trace.requests), counted_from_s)
    return Cell(trace.name, budget, seed, policy, pool.replay(trace.requests))


COLUMNS: Final[dict[str, tuple[str, float, str]]] = {
    "wait_s": ("waiting s", 1, "10.0f"),
    "cold_ratio": ("cold %", 100, "7.2f"),
    "p99_wait_s": ("p99 s", 1, "7.2f"),
    "p999_wait_s": ("p99.9 s", 1, "7.2f"),
    "gb_s": ("GB·h", 1 / 3600, "8.1f"),
    "loads": ("loads", 1, "7.0f"),
    "prefetches": ("ahead", 1, "7.0f"),
    "wasted_prefetches": ("wasted", 1, "7.0f"),
}
"""Figures of an outcome: the head of the column, what they are multiplied with there, and their format."""


def table(cells: list[Cell]) -> str:
    """Return the medians over the seeds of one trace at one budget, a row a policy."""
    outcomes: dict[str, list[Outcome]] = {}
    for cell in cells:
        outcomes.setdefault(cell.policy, []).append(cell.outcome)
    heads = " ".join(f"{head:>{spec.split('.')[0]}}" for head, _, spec in COLUMNS.values())
    lines = [f"{'policy':20} {heads} {'÷ ' + BASELINE:>7}"]
    for policy, rows in outcomes.items():
        figures = " ".join(
            f"{factor * median(getattr(row, name) for row in rows):{spec}}"
            for name, (_, factor, spec) in COLUMNS.items()
        )
        lines.append(f"{policy:20} {figures} {waiting_ratio(rows, outcomes.get(BASELINE, [])):>7}")
    return "\n".join(lines)


def waiting_ratio(rows: list[Outcome], baseline: list[Outcome]) -> str:
    """Return the waiting in parts of the baseline's: the median over the seeds, a dash where there is none."""
    if not baseline or not all(base.wait_s for base in baseline):
        return "–"
    return f"{median(row.wait_s / base.wait_s for row, base in zip(rows, baseline, strict=True)):.3f}"


def conditions(policies: list[str]) -> str:
    """Return what the figures depend on, and where the policies are from."""
    nothing = Requests([], [])
    lines = [f"{name:20} {POLICIES[name](nothing).source}" for name in policies]
    return "\n".join([f"Replay of preload traces\n{machine()}, {package('numpy')}\n", *lines])


def run(traces: list[Trace], options: argparse.Namespace) -> None:
    """Run all cells, and print their lines, or a table for each trace and budget."""
    if not options.json:
        print(conditions(options.policy))
    for trace, budget in product(traces, options.budget):
        cells = []
        for seed, policy in product(options.seeds, options.policy):
            cells.append(replay(trace, budget, seed, policy, options.from_seconds))
            if options.json:
                print(cells[-1].line(), flush=True)
        if not options.json:
            seeds = ", ".join(map(str, options.seeds))
            counted = f"counted from {options.from_seconds:.10g} s, medians over the seeds {seeds}"
            print(f"\n{trace.name}, {100 * budget:g} % of all bytes, {counted}\n{table(cells)}", flush=True)


def list_of(read: Callable[[str], Number], is_right: Callable[[Number], bool]) -> Callable[[str], list[Number]]:
    """Return what reads an option with commas between values; each is kept once."""

    def values(text: str) -> list[Number]:
        found = [read(part) for part in text.split(",")]
        if not all(is_right(value) for value in found):
            raise ValueError(text)
        return list(dict.fromkeys(found))

    values.__name__ = f"list of {read.__name__}"  # argparse names it when it refuses a value
    return values


def seconds(text: str) -> float:
    """Read a time."""
    if not 0 <= (value := float(text)) < math.inf:
        raise ValueError(text)
    return value


def parsed() -> argparse.ArgumentParser:
    """Return the options there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="a .csv or .csv.gz file")
    budgets, seeds = list_of(float, lambda value: 0 < value <= 1), list_of(int, lambda value: value >= 0)
    parser.add_argument("--budget", type=budgets, default=[0.25], help="parts of all bytes, above 0 (default 0.25)")
    parser.add_argument("--seeds", type=seeds, default=[42, 43, 44, 45, 46], help="of the sizes (default 42 to 46)")
    parser.add_argument("--policy", type=chosen_of(POLICIES), default=list(POLICIES), help="some of the policies")
    parser.add_argument("--from-seconds", type=seconds, default=0.0, help="count what happens from there on")
    parser.add_argument("--json", action="store_true", help="print one cell a line and nothing else")
    return parser


def main() -> int:
    """Run the command line; the figures have no targets here, so the exit status is 0 once they are there."""
    parser = parsed()
    options = parser.parse_args()
    try:
        traces = [read_trace(path) for path in options.traces]
    except TraceError as exc:
        parser.error(str(exc))
    for trace in traces:
        if options.from_seconds > (end_s := trace.requests.times_s[-1]):
            parser.error(f"--from-seconds is {options.from_seconds:.10g}, and {trace.name} ends at {end_s:.10g}")
    run(traces, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
