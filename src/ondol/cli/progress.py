"""adapter: progress on stderr, only where somebody looks at it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ondol.cli.messages import has_colour, is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress, ProgressColumn

__all__ = ["ShowBar", "bars", "progress"]


class ShowBar(Protocol):
    """Shows one of several bars anew."""

    def __call__(self, index: int, /, *, ratio: float | None, note: str) -> None:
        """Show how far it is (0 to 1; ``None`` when nobody knows) and what goes on."""
        ...


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show that something goes on, and how far it is once the function given is called with (done, total).

    Nothing of it stays on the terminal when it is over.
    """
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.progress import TimeRemainingColumn

    with _display(TimeRemainingColumn(compact=True)) as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total, note=f"{done} of {total}")


@contextmanager
def bars(titles: Sequence[str]) -> Iterator[ShowBar]:
    """Show a bar for each of several things that go on at once; as ``progress`` does for one."""
    if not is_terminal(sys.stderr):

        def show_nothing(_index: int, /, *, ratio: float | None, note: str) -> None:
            del ratio, note

        yield show_nothing
        return
    with _display() as bar:
        tasks = [bar.add_task(title, total=None, note="") for title in titles]

        def show(index: int, /, *, ratio: float | None, note: str) -> None:
            bar.update(tasks[index], completed=ratio or 0.0, total=None if ratio is None else 1.0, note=note)

        yield show


def _display(*more: ProgressColumn) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn

    class KnownBar(BarColumn):
        """A bar once the total is known; until then the spinner says enough."""

        def render(self, task: Task) -> Any:
            return super().render(task) if task.total is not None else ""

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        KnownBar(bar_width=32),
        TextColumn("{task.fields[note]}", markup=False),
        *more,
    )
    console = Console(stderr=True, highlight=False, no_color=not has_colour(sys.stderr))
    return Progress(*columns, console=console, transient=True)
