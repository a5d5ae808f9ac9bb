"""adapter: the alternate screen of a terminal on which figures are shown live, and the key that ends it."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ondol.cli.layout import clean, display_width
from ondol.cli.messages import has_colour
from ondol.cli.watch import METRIC_COLUMNS, METRIC_TITLE, loss_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rich.console import ConsoleOptions, RenderableType, RenderResult

    from ondol.cli.watch import Answer, Loss

__all__ = ["Fitted", "LiveScreen", "keys_of", "layout", "live_screen"]

_TWO_COLUMNS_FROM: Final = 110
_END_KEYS: Final = frozenset(b"qQ\x04")
_FIRST: Final = ("Server", "Alerts")


class Fitted:
    """Shows as many lines as the terminal has, and says how many there are more."""

    def __init__(self, body: RenderableType) -> None:
        """Show ``body``."""
        self._body = body

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        height = options.height or options.max_height
        lines = console.render_lines(self._body, options.update(height=None), pad=False)
        hidden = len(lines) - height + 1
        if len(lines) > height:
            lines = lines[: height - 1]
        for line in lines:
            yield from line
            yield Segment.line()
        if hidden > 1:
            yield Text(f"… {hidden} more lines: make the window taller", style="dim", no_wrap=True)


def layout(answer: Answer, loss: Loss | None, interval_s: float, width: int) -> RenderableType:
    """Return everything, the most urgent first: what is lost, server and alerts, busiest metrics, the rest."""
    parts = dict(answer.parts())
    style = "dim" if loss is not None else ""
    first = [_section(title, parts.pop(title), style) for title in _FIRST if title in parts]
    rest = [_section(title, fields, style) for title, fields in parts.items()]
    rows = answer.metrics()
    hint = Text(f"every {interval_s:g} s, q ends", style="dim")
    state = Text("live", style="bold green") if loss is None else Text(loss_sentence(loss), style="bold red")
    return Group(
        Text.assemble(Text("ondol", style="bold"), "  ", state, "  ", hint),
        _side_by_side(first, width),
        *([_metrics(rows, style)] if rows else []),
        _side_by_side(rest, width),
    )


def _section(title: str, fields: Sequence[tuple[str, str]], style: str) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold", style=_alert_style(title, fields) or style or None)
    for name, value in fields:
        table.add_row(Text(f"  {clean(name)}"), Text(clean(value)))
    return Group(Text(title, style="bold"), table)


def _alert_style(title: str, fields: Sequence[tuple[str, str]]) -> str:
    return "red" if title == "Alerts" and any(value.startswith("critical") for _name, value in fields) else ""


def _side_by_side(sections: list[RenderableType], width: int) -> RenderableType:
    if width < _TWO_COLUMNS_FROM:
        return Group(*sections)
    table = Table.grid(padding=(0, 3, 0, 0), expand=True)
    for _ in range(2):
        table.add_column(ratio=1)
    for index in range(0, len(sections), 2):
        table.add_row(*sections[index : index + 2])
    return table


def _metrics(rows: Sequence[Sequence[str]], style: str) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim", style=style)
    for index, column in enumerate(METRIC_COLUMNS):
        # Where room is short, it is the name that is cut.
        least = max(display_width(text) for text in (column.title, *(row[index] for row in rows)))
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="ellipsis",
            min_width=least if column.is_number else None,
        )
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return Group(Text(METRIC_TITLE, style="bold"), table)


class LiveScreen:
    """Shows answers on a screen that is open."""

    def __init__(self, live: Live, wait_for_end: Callable[[float], bool], interval_s: float) -> None:
        """Show on ``live``; ``wait_for_end`` waits and tells whether somebody wants to end."""
        self._live = live
        self._interval_s = interval_s
        self.is_ended_within = wait_for_end

    def show(self, answer: Answer, loss: Loss | None) -> None:
        """Show the newest answer, dimmed when it is no longer new."""
        body = layout(answer, loss, self._interval_s, self._live.console.width)
        self._live.update(Fitted(body), refresh=True)


@contextmanager
def live_screen(interval_s: float) -> Iterator[LiveScreen]:
    """Take the terminal; whatever happens, it is given back as it was."""
    console = Console(highlight=False, no_color=not has_colour(sys.stdout))
    with (
        _ended_by_terminate(),
        keys_of(sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None) as wait_for_end,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        yield LiveScreen(live, wait_for_end, interval_s)


@contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """Let SIGTERM end the program by way of everything that has to be put back."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextmanager
def keys_of(descriptor: int | None) -> Iterator[Callable[[float], bool]]:
    """Read keys as they are pressed, without showing them; yield what waits for ``q``.

    Args:
        descriptor: of a terminal; ``None`` waits without keys, as does a system that knows no such terminals.
    """
    try:
        import termios
        import tty
    except ImportError:
        descriptor = None
    if descriptor is None:
        yield _sleep
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    changed = termios.tcgetattr(descriptor)
    # Ctrl-Z would leave the shell on the alternate screen.
    changed[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(descriptor, termios.TCSANOW, changed)
    try:
        yield lambda seconds: _is_end_pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _is_end_pressed(descriptor: int, seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while True:
        left_s = max(0.0, until_s - time.monotonic())
        if not select.select([descriptor], [], [], left_s)[0]:
            return False
        pressed = os.read(descriptor, 1024)
        if not pressed or not _END_KEYS.isdisjoint(pressed):  # nothing at all: the terminal is gone
            return True
