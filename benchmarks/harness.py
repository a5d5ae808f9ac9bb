"""What every benchmark shares: figures, their table, their JSON lines, and the conditions they were taken under."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

__all__ = ["Figure", "Figures", "chosen_of", "package", "pin_to_one_core", "run_alone"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; without a target it is only reported."""

    what: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    peer: str | None = None
    conditions: str = ""

    @property
    def holds(self) -> bool:
        """Whether the target, if there is one, is met."""
        if self.target is None:
            return True
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


@dataclass(slots=True)
class Figures:
    """The figures of one run."""

    title: str
    is_json: bool
    rows: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keep ``figure``; in JSON mode also print it at once."""
        self.rows.append(figure)
        if self.is_json:
            print(json.dumps({**asdict(figure), "holds": figure.holds}, ensure_ascii=False), flush=True)

    def finish(self) -> int:
        """Print the table; return the exit status: 1 when a target is missed."""
        if not self.is_json:
            print(self.text())
        return 0 if all(row.holds for row in self.rows) else 1

    def text(self) -> str:
        """Return the table."""
        width = max(len(row.what) for row in self.rows)
        lines = [f"{self.title}\n{machine()}\n", f"{'what':{width}}  {'value':>10} unit      target     peer"]
        for row in self.rows:
            sign = "≤" if row.better == "lower" else "≥"
            target = "" if row.target is None else f"{sign} {row.target:g}"
            verdict = "" if row.target is None else ("ok" if row.holds else "FALLS SHORT")
            lines.append(
                f"{row.what:{width}}  {row.value:>10.4g} {row.unit:9} {target:10} {row.peer or '':28} {verdict}"
            )
        return "\n".join(lines)


def machine() -> str:
    """Return the conditions that figures depend on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def package(name: str) -> str:
    """Return ``name version`` of an installed package."""
    return f"{name} {version(name)}"


def pin_to_one_core() -> None:
    """Let this process and its children run on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    else:
        print("this system cannot pin a process to a core; figures will be noisier", file=sys.stderr)


def chosen_of(parts: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads the value of ``--only``: some of ``parts``, with commas between them."""

    def chosen(names: str) -> list[str]:
        found = [name.strip() for name in names.split(",") if name.strip()]
        if not found or not set(found) <= set(parts):
            message = f"{names!r} is not a list of some of: {', '.join(parts)}"
            raise argparse.ArgumentTypeError(message)
        return found

    return chosen


def run_alone(title: str, rows: Callable[..., Iterable[Figure]]) -> int:
    """Run one part by itself, with ``--json`` and ``--quick``; return the exit status."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    arguments = parser.parse_args()
    figures = Figures(title, arguments.json)
    for figure in rows(is_quick=arguments.quick):
        figures.add(figure)
    return figures.finish()
