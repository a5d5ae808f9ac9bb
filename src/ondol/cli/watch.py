"""service: `ondol stats --watch`: asks the server again and again and shows what it says until somebody ends it."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import click

from ondol.cli.busiest import busiest_metrics
from ondol.cli.figures import figures, with_numbers
from ondol.cli.layout import Column, clean
from ondol.cli.messages import is_terminal
from ondol.cli.output import print_fields, print_heading, print_table
from ondol.clock import SystemClock
from ondol.errors import ServerError
from ondol.server.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.cli.client import ServerClient
    from ondol.clock import Clock

__all__ = [
    "METRIC_COLUMNS",
    "METRIC_TITLE",
    "Answer",
    "JsonLines",
    "Loss",
    "PlainBlocks",
    "Reader",
    "Screen",
    "loss_sentence",
    "watch",
    "watch_server",
]

_KEY_CHECK_S: Final = 0.05
METRIC_TITLE: Final = "Busiest metrics of the last minute"
METRIC_COLUMNS: Final = (
    Column("metric", is_whole=True),
    *(Column(title, is_number=True) for title in ("count/s", "p50", "p99", "p99.9", "max")),
)


class Answer(NamedTuple):
    """What the server said."""

    url: str
    at_s: float
    """When, in seconds since the Unix epoch."""
    is_ready: bool
    stats: Mapping[str, Any]
    snapshot: Mapping[str, Any]

    def parts(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return what `ondol stats` shows."""
        return figures(self.url, self.snapshot, self.stats.get("similarity"))

    def metrics(self) -> list[list[str]]:
        """Return the rows of the busiest metrics."""
        return busiest_metrics(self.stats)


class Loss(NamedTuple):
    """The server does not answer any more."""

    since_s: float
    """When it last did, in seconds since the Unix epoch."""
    reason: str


class Screen(Protocol):
    """Where it is shown."""

    def show(self, answer: Answer, loss: Loss | None) -> None:
        """Show the newest answer, and that it is no longer new."""
        ...

    def is_ended_within(self, seconds: float) -> bool:
        """Wait so long; return at once, and true, when somebody wants to end."""
        ...


class Reader:
    """Asks one server; remembers the answer before, for rates."""

    def __init__(self, client: ServerClient, clock: Clock) -> None:
        """Ask ``client``'s server."""
        self._client = client
        self._clock = clock
        self._before: Mapping[str, Any] | None = None

    def read(self) -> Answer:
        """Return what the server says now.

        Raises:
            ServerError: it says nothing, or nothing of use.
        """
        stats = self._client.get("/v1/stats")
        readiness = self._client.get("/readyz", accepted=(503,))
        self._before = shown = snapshot(with_numbers(stats), readiness, previous=self._before)
        return Answer(self._client.url, self._clock.wall(), readiness.get("ready") is True, stats, shown)


def watch(
    read: Callable[[], Answer], screen: Screen, clock: Clock, *, interval_s: float, count: int | None = None
) -> None:
    """Show what ``read`` returns every ``interval_s``; when it fails later on, say so and go on trying.

    Args:
        read: asks the server.
        screen: where it is shown.
        clock: says when the next time is.
        interval_s: from one look to the next.
        count: how many looks; ``None``: until the screen is told to end.

    Raises:
        ServerError: the very first time: an address at which nothing answers is more likely wrong than lost.
    """
    answer, loss = read(), None
    next_s = clock.monotonic()
    looks = 1
    while True:
        screen.show(answer, loss)
        if looks == count:
            return
        next_s = max(next_s + interval_s, clock.monotonic())
        if screen.is_ended_within(next_s - clock.monotonic()):
            return
        looks += 1
        try:
            answer, loss = read(), None
        except ServerError as exc:
            loss = Loss(answer.at_s, str(exc))


def loss_sentence(loss: Loss) -> str:
    """Return since when there is no answer, and why, on one line."""
    return clean(f"no answer since {_moment(loss.since_s)}: {loss.reason}")


def _moment(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"


class _Printed:
    """Output that nobody sits at: only signals and the number of looks end it."""

    def is_ended_within(self, seconds: float) -> bool:
        """Wait so long."""
        sys.stdout.flush()  # whoever reads it further on shall have it now
        time.sleep(seconds)
        return False


class PlainBlocks(_Printed):
    """One block of text after the other, for pipes and files."""

    def show(self, answer: Answer, loss: Loss | None) -> None:
        """Print a block; of a lost server the sentence alone."""
        if loss is not None:
            click.echo(loss_sentence(loss) + "\n")
            return
        print_heading(f"ondol, {_moment(answer.at_s)}")
        for title, fields in answer.parts():
            print_heading(title)
            print_fields(fields)
        if rows := answer.metrics():
            print_heading(METRIC_TITLE)
            print_table(METRIC_COLUMNS, rows)
        click.echo()


class JsonLines(_Printed):
    """One JSON document a line, for programs."""

    def show(self, answer: Answer, loss: Loss | None) -> None:
        """Print a line; of a lost server one with the error."""
        line: dict[str, Any] = {"url": answer.url}
        if loss is None:
            line |= {"at": answer.at_s, "ready": answer.is_ready, **answer.stats}
        else:
            line |= {"no_answer_since": loss.since_s, "error": loss.reason}
        click.echo(json.dumps(line, allow_nan=False))


def watch_server(client: ServerClient, *, interval_s: float, count: int | None, is_json: bool) -> None:
    """Watch a server: live on a terminal, else one block, or one line of JSON, after the other.

    Raises:
        ServerError: it does not answer the first time.
    """
    clock = SystemClock()
    read = Reader(client, clock).read
    with suppress(KeyboardInterrupt):  # the usual way to end it, not an accident
        if not is_json and is_terminal(sys.stdout):
            from ondol.cli.watch_terminal import live_screen

            first = read()  # before the screen is taken: its error belongs to the terminal as it was
            with live_screen(interval_s) as screen:
                attentive = _beginning_with(first, _ending(read, screen))
                watch(attentive, screen, clock, interval_s=interval_s, count=count)
        else:
            watch(read, JsonLines() if is_json else PlainBlocks(), clock, interval_s=interval_s, count=count)


def _beginning_with(first: Answer, read: Callable[[], Answer]) -> Callable[[], Answer]:
    waiting = [first]
    return lambda: waiting.pop() if waiting else read()


def _ending(read: Callable[[], Answer], screen: Screen) -> Callable[[], Answer]:
    """Return a ``read`` during which ``screen`` may be ended: a server that hangs shall keep nobody."""

    def attentive() -> Answer:
        future: Future[Answer] = Future()
        # A daemon: the program does not wait for an answer that nobody wants any more.
        threading.Thread(target=_fulfil, args=(future, read), name="ondol-watch", daemon=True).start()
        while True:
            with suppress(TimeoutError):
                return future.result(_KEY_CHECK_S)
            if screen.is_ended_within(0.0):
                raise KeyboardInterrupt

    return attentive


def _fulfil(future: Future[Answer], read: Callable[[], Answer]) -> None:
    try:
        future.set_result(read())
    except BaseException as exc:  # noqa: BLE001  # raised again by the one who waits
        future.set_exception(exc)
