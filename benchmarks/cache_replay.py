"""How many requests of a trace each policy, and each peer, answers from the cache; and what that saves."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from cache_replay_caches import OURS, PEERS
from cache_replay_traces import Trace, load
from harness import Figure, machine, package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_replay_caches import Maker

FIXED: Final = ("lru", "s3fifo", "gdsf")
DEFAULT: Final = "adaptive"
OURS_NAME: Final = "ondol"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cache made of one trace at one size."""

    trace: str
    fraction: float
    policy: str
    hit_ratio: float
    byte_hit_ratio: float
    cost_saved_ratio: float | None


def replay(trace: Trace, fraction: float, policy: str, make: Maker) -> Cell:
    """Ask for every key of the trace in turn, and keep what was not there."""
    cache = make(trace, fraction)
    find, keep = cache.find, cache.keep
    hits = hit_bytes = 0
    saved_s = 0.0
    for key, size, cost_s in zip(trace.keys, trace.sizes, trace.costs_s, strict=True):
        if find(key) is None:
            keep(key, size, cost_s)
        else:
            hits += 1
            hit_bytes += size
            saved_s += cost_s
    cache.close()
    total_s = sum(trace.costs_s)
    return Cell(
        trace.name,
        fraction,
        policy,
        round(hits / len(trace.keys), 6),
        round(hit_bytes / sum(trace.sizes), 6),
        round(saved_s / total_s, 6) if trace.has_costs and total_s else None,
    )


def cells(paths: list[Path], fractions: list[float]) -> Iterator[Cell]:
    """Replay each trace at each size through all caches; the default cache is the adaptive one, and not run twice."""
    for path in paths:
        trace = load(path)
        for fraction in fractions:
            for policy, make in (OURS | PEERS).items():
                cell = replay(trace, fraction, policy, make)
                yield cell
                if policy == DEFAULT:
                    yield Cell(**{**asdict(cell), "policy": OURS_NAME})


class Results:
    """The figures of all cells, by trace, fraction and policy."""

    def __init__(self, rows: list[Cell]) -> None:
        """Take the cells of a run."""
        self.by_policy: dict[tuple[str, float], dict[str, Cell]] = {}
        for row in rows:
            self.by_policy.setdefault((row.trace, row.fraction), {})[row.policy] = row

    def leads(self, policy: str, over: tuple[str, ...]) -> list[float]:
        """Return by how many points ``policy`` hits more than the best of ``over`` in each cell."""
        return [
            100 * (cell[policy].hit_ratio - max(cell[other].hit_ratio for other in over))
            for cell in self.by_policy.values()
        ]

    def savings(self, policy: str) -> list[tuple[float, float]]:
        """Return the shares of the cost that ``policy`` and LRU save, in each cell where costs are known."""
        return [
            (cell[policy].cost_saved_ratio or 0.0, cell["lru"].cost_saved_ratio or 0.0)
            for cell in self.by_policy.values()
            if cell["lru"].cost_saved_ratio is not None
        ]

    def figures(self) -> list[Figure]:
        """Return the figures with a target."""
        over_lru, over_best = self.leads(DEFAULT, ("lru",)), self.leads(DEFAULT, FIXED)
        conditions = f"{len(over_lru)} cells"
        figures = [
            Figure("adaptive − LRU, worst cell", min(over_lru), "points", -0.5, "higher", None, conditions),
            Figure("adaptive − LRU, mean", fmean(over_lru), "points", 2.5, "higher", None, conditions),
            Figure("adaptive − best fixed, worst cell", min(over_best), "points", -0.5, "higher", None, conditions),
        ]
        if savings := self.savings(DEFAULT):
            ratio = sum(ours for ours, _ in savings) / max(sum(lru for _, lru in savings), 1e-9)
            figures.append(
                Figure("cost saved ÷ LRU's, cells together", ratio, "×", 1.2, "higher", None, f"{len(savings)} cells")
            )
            mean = fmean(ours / max(lru, 1e-9) for ours, lru in savings)
            figures.append(Figure("cost saved ÷ LRU's, mean of the cells", mean, "×"))
        return figures

    def table(self) -> str:
        """Return hit ratios, byte-hit ratios and costs saved, in percent, and each policy's leads over LRU."""
        policies = [*OURS, *PEERS]
        lines = [f"{'trace':20} {'fraction':>8} {'what':9} " + " ".join(f"{name:>10}" for name in policies)]
        for (trace, fraction), cell in self.by_policy.items():
            for what in ("hit_ratio", "byte_hit_ratio", "cost_saved_ratio"):
                values = [getattr(cell[name], what) for name in policies]
                if values[0] is not None:
                    label = what.removesuffix("_ratio")
                    figures = " ".join(f"{100 * value:10.2f}" for value in values)
                    lines.append(f"{trace:20} {fraction:8g} {label:9.9} {figures}")
        leads = [self.leads(name, ("lru",)) for name in policies]
        lines.append(f"{'mean hit − lru':39} " + " ".join(f"{fmean(lead):10.2f}" for lead in leads))
        lines.append(f"{'worst hit − lru':39} " + " ".join(f"{min(lead):10.2f}" for lead in leads))
        return "\n".join(lines)


def verdict(figures: list[Figure]) -> str:
    """Return the figures beside their targets."""
    lines = []
    for figure in figures:
        target = "" if figure.target is None else f"target ≥ {figure.target:g}: {'yes' if figure.holds else 'NO'}"
        lines.append(f"{figure.what:40} {figure.value:8.2f} {figure.unit:7} {figure.conditions:9} {target}")
    return "\n".join(lines)


def main() -> int:
    """Run the command line; return the exit status: 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="an .npz.xz file")
    parser.add_argument("--fractions", default="0.01,0.05,0.2", help="bounds, in parts of the distinct keys' bytes")
    parser.add_argument("--json", action="store_true", help="one cell a line; the verdict goes to standard error")
    options = parser.parse_args()
    rows = []
    for cell in cells(options.traces, [float(part) for part in options.fractions.split(",")]):
        rows.append(cell)
        if options.json:
            print(json.dumps(asdict(cell)), flush=True)
    results = Results(rows)
    figures = results.figures()
    if options.json:
        print(verdict(figures), file=sys.stderr)
    else:
        print(f"Replay of cache traces\n{machine()}; {', '.join(package(name) for name in PEERS)}\n")
        print(f"{results.table()}\n\n{verdict(figures)}")
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
