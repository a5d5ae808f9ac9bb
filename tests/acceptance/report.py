"""A table of what was measured beside its target."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ondol.errors import OndolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Report", "Row", "run"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure and what it should be."""

    what: str
    measured: float
    unit: str
    target: float
    better: Literal["lower", "higher", "equal"] = "lower"

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        if self.better == "equal":
            return self.measured == self.target
        return self.measured <= self.target if self.better == "lower" else self.measured >= self.target

    @property
    def is_time(self) -> bool:
        """Whether it is a time: a target of the scripts, but no ground for a test to fail on a busy machine."""
        return self.unit in {"s", "ms", "µs"}


@dataclass(slots=True)
class Report:
    """The rows of one scenario."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        what: str,
        measured: float,
        unit: str,
        target: float,
        better: Literal["lower", "higher", "equal"] = "lower",
    ) -> None:
        """Add one figure."""
        self.rows.append(Row(what, measured, unit, target, better))

    @property
    def misses(self) -> list[Row]:
        """The rows that fall short."""
        return [row for row in self.rows if not row.holds]

    def text(self) -> str:
        """Return the table."""
        sign = {"lower": "≤", "higher": "≥", "equal": "="}
        width = max(len(row.what) for row in self.rows)
        lines = [self.title, f"{'what':{width}}  {'measured':>12}  {'target':>14}  "]
        lines += [
            f"{row.what:{width}}  {row.measured:>12,.4g}  {sign[row.better] + f' {row.target:,.4g}':>14}  "
            f"{row.unit:9} {'ok' if row.holds else 'FALLS SHORT'}"
            for row in self.rows
        ]
        count = len(self.misses)
        lines.append("everything holds" if not count else f"{count} of {len(self.rows)} fall short")
        return "\n".join(lines)

    def finish(self) -> int:
        """Print the table; return the exit status: 0 when every target is met, else 1."""
        print(self.text())  # noqa: T201  # a script prints
        return 1 if self.misses else 0


def run(measure: Callable[[], Report]) -> int:
    """Measure and print; return the exit status, 1 also when nothing could be measured, with a word why."""
    try:
        report = measure()
    except (OndolError, AssertionError) as exc:
        print(f"nothing could be measured: {exc}", file=sys.stderr)  # noqa: T201  # a script prints
        return 1
    return report.finish()
