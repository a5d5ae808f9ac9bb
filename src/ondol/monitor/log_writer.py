"""service: the one thread that writes the log files and the console, batch by batch, also in forked children."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from ondol.monitor.log_lines import LogLine, console_line, json_line
from ondol.monitor.log_queue import LineQueue
from ondol.monitor.rotation import MAX_FILE_BYTES, OLD_FILES, RotatingFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PERFORMANCE", "LogWriter"]

PERFORMANCE: Final = "ondol.performance"
"""The logger whose lines go to ``performance.log``, too."""

QUEUE_LINES: Final = 10_000
PUT_TIMEOUT_S: Final = 1.0
STOP_TIMEOUT_S: Final = 3.0
BATCH_LINES: Final = 256
"""Formed without a break while other threads wait for the interpreter: some two milliseconds."""
LINGER_S: Final = 0.02
"""How long lines gather after a batch. The first line after a silence is written at once."""
_UNKNOWN: Final = -1


class LogWriter:
    """Forms lines and writes them, in a thread of its own; in the caller's where there can be no thread.

    Thread-safety: ``queue.put`` from any thread; ``start`` and ``stop`` from one at a time.
    """

    def __init__(
        self, log_dir: Path, *, has_console: bool, max_bytes: int = MAX_FILE_BYTES, old_files: int = OLD_FILES
    ) -> None:
        """Touch nothing yet."""
        self._log_dir = log_dir
        self._files = [
            RotatingFile(log_dir / name, max_bytes=max_bytes, old_files=old_files, warn=_warn)
            for name in ("application.log", "performance.log")
        ]
        self._has_console = has_console
        self._is_coloured = _is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
        self.is_degraded = False
        self.queue = LineQueue(QUEUE_LINES, PUT_TIMEOUT_S, self._called)
        self._is_over = False
        self._begin_empty()

    def _begin_empty(self) -> None:
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._batch_lock = threading.Lock()
        self._batch_thread = 0
        self.written = 0
        self._missing = 0

    def start(self) -> None:
        """Open the files, so that a folder that cannot be written to is told before anything else, and begin."""
        try:
            for file in self._files:
                file.open()
        except OSError as exc:
            self._degrade(exc)
        self._start_thread()
        _writers.add(self)

    @property
    def lost(self) -> int:
        """Lines that were dropped, or are missing in a file."""
        return self._missing + self.queue.dropped

    def stop(self) -> None:
        """Write what is queued and end. A disk on which nothing moves holds this up for a few seconds, not longer."""
        self._is_over = True
        self.queue.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self._has_ended(thread):
            return
        self.queue.leave()  # from now on a thread that is amid logging writes its line itself
        self._drain()
        _writers.discard(self)
        if self.lost:
            _say(f"ondol: {self.lost} log line(s) could not be written to {self._log_dir}\n")

    def _has_ended(self, thread: threading.Thread) -> bool:
        """Wait for the end of the thread as long as it makes progress; nothing new comes any more."""
        before = _UNKNOWN
        while thread.is_alive() and before != (before := self.written + self.lost):
            thread.join(STOP_TIMEOUT_S)
        return not thread.is_alive()

    def hold(self) -> bool:
        """Before a fork: wait until no batch is being written, which the child would inherit half done."""
        return self._batch_lock.acquire(timeout=PUT_TIMEOUT_S)

    def let_go(self) -> None:
        """After a fork, in the parent: go on."""
        self._batch_lock.release()

    def forked(self) -> None:
        """In a forked child: leave what is queued to the parent, and the lock that goes with its open files."""
        for file in self._files:
            file.close()
        self.queue.begin_empty()
        self._begin_empty()

    def _called(self) -> None:
        """Answer a line that came while nobody was waiting to write."""
        if self._is_over:
            self._drain()
        elif self._thread is None:
            self._start_in_child()
        else:
            self.queue.ring()

    def _start_in_child(self) -> None:
        with self._thread_lock:
            if self._thread is None:
                self._start_thread()
                # A child of multiprocessing runs no exit functions but those of multiprocessing itself.
                finalizers = sys.modules.get("multiprocessing.util")
                if finalizers is not None:
                    finalizers.Finalize(None, self.stop, exitpriority=0)

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="ondol-logs", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._thread = None
            self._drain()

    def _run(self) -> None:
        while True:
            count = self._write_batch()
            if self._is_over:
                if not count:
                    return
            elif not count:
                self.queue.wait()
            elif count < BATCH_LINES:
                self.queue.linger(LINGER_S)

    def _drain(self) -> None:
        while self._write_batch():
            pass
        for file in self._files:
            file.close()

    def _write_batch(self) -> int:
        if self._batch_thread == threading.get_ident():
            return 0  # something logged while its thread writes, such as a finalizer: taken with the next batch
        with self._batch_lock:
            self._batch_thread = threading.get_ident()
            try:
                lines = [LogLine(*captured) for captured in self.queue.take(BATCH_LINES)]
                if lines:
                    self._write(lines)
            except Exception as exc:  # noqa: BLE001  # the thread must live: without it every line would be lost
                self._missing += len(lines)
                _warn(f"{len(lines)} log line(s) were not written: {exc!r}")
            finally:
                self._batch_thread = 0
        return len(lines)

    def _write(self, lines: Sequence[LogLine]) -> None:
        formed = [json_line(line) for line in lines]
        measured = [raw for line, raw in zip(lines, formed, strict=True) if line.logger == PERFORMANCE]
        missing, fault = 0, None
        for file, content in zip(self._files, (formed, measured), strict=True):
            before = file.lines_written
            try:
                file.write(content)
            except OSError as exc:
                fault = exc
            missing = max(missing, len(content) - (file.lines_written - before))
        self.written += len(lines) - missing
        self._missing += missing
        if fault is not None:
            self._degrade(fault)
        elif self.is_degraded:
            self.is_degraded = False
            _say(f"ondol: logs are written to {self._log_dir} again; {self.lost} line(s) are missing there\n")
        _say("".join(console_line(line, is_coloured=self._is_coloured) for line in lines if self._shows(line)))

    def _shows(self, line: LogLine) -> bool:
        """Whether the console gets the line: of the measurements only the alerts, unless nothing can be written."""
        is_for_people = line.logger != PERFORMANCE or line.fields.get("event") == "alert"
        return (self._has_console and is_for_people) or self.is_degraded

    def _degrade(self, fault: OSError) -> None:
        """Warn once that the files cannot be written, until they can be again."""
        if not self.is_degraded:
            _warn(
                f"cannot write logs to {self._log_dir}: {fault.strerror or fault}; "
                "lines go to the console only. Make the folder writable or set ONDOL_LOG_DIR."
            )
        self.is_degraded = True


_writers: Final[weakref.WeakSet[LogWriter]] = weakref.WeakSet()
_held: Final[list[tuple[LogWriter, bool]]] = []


def _before_fork() -> None:
    _held.extend((writer, writer.hold()) for writer in list(_writers))


def _after_fork_in_parent() -> None:
    while _held:
        writer, is_held = _held.pop()
        if is_held:
            writer.let_go()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop()[0].forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _warn(sentence: str) -> None:
    _say(f"ondol: WARNING: {sentence}\n")


def _say(text: str) -> None:
    # Standard error may be closed or missing (pythonw, a daemon): then there is nobody to tell.
    try:
        if text:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return
