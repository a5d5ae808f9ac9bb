"""Draws a run of benchmarks/models_load.py as SVG, by hand: memory over time, and which model was in it when."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Plot", "draw"]

WIDTH, LEFT, RIGHT = 1120, 96, 150
MEMORY_TOP, MEMORY_HEIGHT = 76, 300
TICKS_TOP = MEMORY_TOP + MEMORY_HEIGHT + 40
ROWS_TOP, ROW_HEIGHT = TICKS_TOP + 58, 18
INK, FAINT, GRID = "#1f2933", "#52606d", "#e4e7eb"
MEMORY, BUDGET, BASE, LOAD, EVICTION = "#1f5fa8", "#b42318", "#52606d", "#1a7f37", "#b54708"


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn; times in seconds from the beginning of the run, memory in MB."""

    title: str
    subtitle: str
    end_s: float
    memory: Sequence[tuple[float, float]]
    baseline_mb: float
    budget_mb: float
    loads_s: Sequence[float]
    evictions_s: Sequence[float]
    resident: dict[str, list[tuple[float, float]]]


class _Sheet:
    def __init__(self, plot: Plot) -> None:
        self.plot = plot
        self.parts: list[str] = []
        highest = max(plot.baseline_mb + plot.budget_mb, max((mb for _, mb in plot.memory), default=0.0))
        self.step_mb = 100 if highest < 1000 else 200
        self.top_mb = self.step_mb * (int(highest / self.step_mb) + 1)

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s, 0.0), self.plot.end_s) / self.plot.end_s

    def y(self, mb: float) -> float:
        return MEMORY_TOP + MEMORY_HEIGHT * (1 - mb / self.top_mb)

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, ink: str = INK) -> None:
        look = f'text-anchor="{anchor}" font-size="{size}" fill="{ink}"'
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>')


def draw(plot: Plot) -> str:
    """Return the picture."""
    sheet = _Sheet(plot)
    height = ROWS_TOP + ROW_HEIGHT * len(plot.resident) + 52
    sheet.text(LEFT, 30, plot.title, size=18)
    sheet.text(LEFT, 52, plot.subtitle, ink=FAINT)
    _axes(sheet, height - 44)
    _memory(sheet)
    _rug(sheet, TICKS_TOP, "loads", plot.loads_s, LOAD)
    _rug(sheet, TICKS_TOP + 20, "evictions", plot.evictions_s, EVICTION)
    _residents(sheet)
    body = "\n".join(sheet.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" role="img">\n<title>{escape(plot.title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _axes(sheet: _Sheet, bottom: float) -> None:
    for mb in range(0, sheet.top_mb + 1, sheet.step_mb):
        sheet.line(LEFT, sheet.y(mb), WIDTH - RIGHT, sheet.y(mb), f'stroke="{GRID}"')
        sheet.text(LEFT - 8, sheet.y(mb) + 4, f"{mb}", anchor="end", ink=FAINT)
    middle = MEMORY_TOP + MEMORY_HEIGHT / 2
    sheet.parts.append(
        f'<text transform="translate(28 {middle}) rotate(-90)" text-anchor="middle" font-size="12" fill="{INK}">'
        "resident memory of the server process, MB</text>"
    )
    step_s = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 3600) if sheet.plot.end_s / step <= 14)
    for second in range(0, int(sheet.plot.end_s) + 1, step_s):
        x = sheet.x(second)
        sheet.line(x, MEMORY_TOP + MEMORY_HEIGHT, x, MEMORY_TOP + MEMORY_HEIGHT + 5, f'stroke="{FAINT}"')
        sheet.line(x, ROWS_TOP - 4, x, bottom, f'stroke="{GRID}"')
        sheet.text(x, MEMORY_TOP + MEMORY_HEIGHT + 19, f"{second}", anchor="middle", ink=FAINT)
        sheet.text(x, bottom + 15, f"{second}", anchor="middle", ink=FAINT)
    sheet.text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, "seconds since the clients began", anchor="middle")


def _memory(sheet: _Sheet) -> None:
    plot = sheet.plot
    for mb, words, ink in (
        (plot.baseline_mb, f"no model: {plot.baseline_mb:.0f} MB", BASE),
        (plot.baseline_mb + plot.budget_mb, f"with the budget: {plot.baseline_mb + plot.budget_mb:.0f} MB", BUDGET),
    ):
        sheet.line(LEFT, sheet.y(mb), WIDTH - RIGHT, sheet.y(mb), f'stroke="{ink}" stroke-dasharray="6 4"')
        sheet.text(WIDTH - RIGHT + 6, sheet.y(mb) + 4, words, ink=ink, size=11)
    points = " ".join(f"{sheet.x(at_s):.1f},{sheet.y(mb):.1f}" for at_s, mb in plot.memory)
    sheet.parts.append(f'<polyline points="{points}" fill="none" stroke="{MEMORY}" stroke-width="1.6"/>')


def _rug(sheet: _Sheet, top: float, name: str, times_s: Iterable[float], ink: str) -> None:
    sheet.text(LEFT - 8, top + 11, name, anchor="end", size=11)
    count = 0
    for at_s in times_s:
        count += 1
        sheet.line(sheet.x(at_s), top, sheet.x(at_s), top + 14, f'stroke="{ink}" stroke-width="0.8"')
    sheet.text(WIDTH - RIGHT + 6, top + 11, f"{count}", size=11, ink=ink)


def _residents(sheet: _Sheet) -> None:
    sheet.text(LEFT, ROWS_TOP - 10, "in memory", size=11, ink=FAINT)
    sheet.text(WIDTH - RIGHT + 6, ROWS_TOP - 10, "share of the time", size=11, ink=FAINT)
    for row, (name, spans) in enumerate(sheet.plot.resident.items()):
        top = ROWS_TOP + row * ROW_HEIGHT
        sheet.text(LEFT - 8, top + 12, name, anchor="end", size=11)
        for begin_s, end_s in spans:
            x, width = sheet.x(begin_s), max(0.8, sheet.x(end_s) - sheet.x(begin_s))
            sheet.parts.append(
                f'<rect x="{x:.1f}" y="{top + 2}" width="{width:.1f}" height="{ROW_HEIGHT - 5}" fill="{MEMORY}"/>'
            )
        share = sum(end_s - begin_s for begin_s, end_s in spans) / sheet.plot.end_s
        sheet.text(WIDTH - RIGHT + 6, top + 12, f"{100 * share:.0f} %", size=11, ink=FAINT)
