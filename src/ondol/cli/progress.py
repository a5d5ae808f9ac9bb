"""adapter: progress on stderr, only where somebody looks at it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ondol.cli.messages import has_colour, is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress"]


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show that something goes on, and how far it is once the function given is called with (done, total).

    Nothing of it stays on the terminal when it is over.
    """
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn

    class KnownBar(BarColumn):
        """A bar once the total is known; until then the spinner says enough."""

        def render(self, task: Task) -> Any:
            return super().render(task) if task.total is not None else ""

    console = Console(stderr=True, highlight=False, no_color=not has_colour(sys.stderr))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        KnownBar(bar_width=32),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, count="")
        yield lambda done, total: bar.update(task, completed=done, total=total, count=f"{done} of {total}")
