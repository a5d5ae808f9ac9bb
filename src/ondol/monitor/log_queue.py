"""service: the bounded queue between all threads that log and the one that writes, without a lock for each line."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.monitor.log_lines import CapturedLine

__all__ = ["LineQueue"]


class LineQueue:
    """Holds lines in the order in which they were logged.

    Putting a line in is an append; only when the writer waits for one is it also called. Between two batches the
    writer lingers, uncalled: however many lines come, it asks for the interpreter a few times a second.

    Thread-safety: ``put`` from any thread; ``take``, ``wait`` and ``linger`` from the one that writes.
    """

    def __init__(self, max_lines: int, patience_s: float, call: Callable[[], None]) -> None:
        """Bound the queue.

        Args:
            max_lines: a line more than these waits for room.
            patience_s: how long it waits; the lines after it do not wait, until the writer has taken some.
            call: called by ``put`` when the writer is idle; is to see to it that the writer goes on.
        """
        self._max_lines = max_lines
        self._patience_s = patience_s
        self._call = call
        self.begin_empty()

    def begin_empty(self) -> None:
        """Forget all lines, and who waits: in a forked child both belong to the parent."""
        self._lines: deque[CapturedLine] = deque()
        self.dropped = 0
        self._is_idle = True
        self._is_stuck = False
        self._bell = threading.Lock()
        self._bell.acquire()
        self._room = threading.Condition()
        self._waiting = 0

    def put(self, line: CapturedLine) -> None:
        """Queue ``line``; when there is no room, wait for it, and at last drop the line and count it."""
        lines = self._lines
        if len(lines) >= self._max_lines and not self._wait_for_room():
            self.dropped += 1
            return
        lines.append(line)
        # The writer says first that it is idle and looks for lines then: one of the two always sees the other.
        if self._is_idle:
            self._call()

    def take(self, max_lines: int) -> list[CapturedLine]:
        """Take the oldest lines, at most so many."""
        lines = self._lines
        taken = [lines.popleft() for _ in range(min(len(lines), max_lines))]
        if taken:
            self._is_stuck = False
            if self._waiting:
                with self._room:
                    self._room.notify_all()
        return taken

    def wait(self) -> None:
        """Wait until there is a line or somebody rings."""
        self._is_idle = True
        if not self._lines:
            self._bell.acquire()
        self._is_idle = False

    def linger(self, seconds: float) -> None:
        """Let lines gather for a while; less when somebody rings."""
        self._bell.acquire(timeout=seconds)

    def ring(self) -> None:
        """Wake the writer."""
        self._is_idle = False
        with suppress(RuntimeError):  # rung already
            self._bell.release()

    def leave(self) -> None:
        """Let every further ``put`` call, because nobody takes lines any more."""
        self._is_idle = True

    def _wait_for_room(self) -> bool:
        # Waited for once: on a disk that hangs, each further line would hold up its event loop as long.
        if self._is_stuck:
            return False
        with self._room:
            self._waiting += 1
            try:
                self.ring()
                has_room = self._room.wait_for(lambda: len(self._lines) < self._max_lines, self._patience_s)
            finally:
                self._waiting -= 1
            self._is_stuck = not has_room
        return has_room
