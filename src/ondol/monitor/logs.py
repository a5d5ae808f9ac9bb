"""adapter: the two log files and the console behind Python's logging: one bounded queue, one writing thread."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.monitor.log_lines import LogLine, console_line, json_line
from ondol.monitor.rotation import RotatingFile

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LogPipeline"]

LOGGERS: Final = ("ondol", "uvicorn")
PERFORMANCE: Final = "ondol.performance"
QUEUE_LINES: Final = 10_000
PUT_TIMEOUT_S: Final = 1.0
STOP_TIMEOUT_S: Final = 3.0

_TRACEBACKS: Final = logging.Formatter()
_Item = tuple[bytes, bool, str]  # JSON, whether it is a measurement, text for the console


class LogPipeline:
    """Writes the lines of ``ondol.*`` and uvicorn to ``application.log``, of ``ondol.performance`` also to
    ``performance.log``, and all of them to the console (standard error) when wanted.

    A line is formed in the thread that logs and written by one thread of its own. When that falls 10,000 lines
    behind, logging waits up to a second for it; only then are lines dropped, and counted, until there is room again.
    A folder that cannot be written to costs one warning on the console, and lines then go to the console only.

    Thread-safety: logging from any thread; ``start`` and ``stop`` from one at a time. Restartable.
    """  # noqa: D205  # the first sentence needs two lines

    def __init__(self) -> None:
        """Touch nothing yet."""
        self._writer: _Writer | None = None
        self._handler: _QueueHandler | None = None
        self._previous: list[tuple[logging.Logger, list[logging.Handler], int]] = []

    def start(self, log_dir: str | Path, level: str = "INFO", console: bool = True) -> None:
        """Take over the loggers' level, and their handlers when it has a console; what is given last counts.

        Args:
            log_dir: folder of the two files, made when it is not there.
            level: least level that is logged, such as ``"INFO"``.
            console: whether lines go to the console too; otherwise the handlers that are there go on as well.

        Raises:
            ValueError: there is no such level.
        """
        number = logging.getLevelNamesMapping().get(level.upper())
        if number is None:
            raise ValueError(f"level {level!r} is not known: use DEBUG, INFO, WARNING or ERROR")
        self.stop()
        self._writer = _Writer(Path(log_dir), has_console=console)
        self._writer.start()
        self._handler = _QueueHandler(self._writer)
        for name in LOGGERS:
            logger = logging.getLogger(name)
            self._previous.append((logger, list(logger.handlers), logger.level))
            # Without a console of ours, whoever embeds this has one: uvicorn's address and tracebacks stay on it.
            logger.handlers[:] = [self._handler] if console else [*logger.handlers, self._handler]
            logger.setLevel(number)
        atexit.register(self.stop)

    def stop(self) -> None:
        """Write every line that was logged, then give the loggers back as they were. Safe to call twice."""
        handler, writer = self._handler, self._writer
        if handler is None or writer is None:
            return
        self._handler = None
        for logger, handlers, level in self._previous:
            added = [other for other in logger.handlers if other is not handler and other not in handlers]
            logger.handlers[:] = [*handlers, *added]
            logger.setLevel(level)
        self._previous = []
        handler.close()  # waits for a line that is being queued at this moment
        writer.stop()
        atexit.unregister(self.stop)

    @property
    def is_degraded(self) -> bool:
        """Whether lines cannot be written to the files at the moment."""
        return self._writer is not None and self._writer.is_degraded

    def get_stats(self) -> dict[str, Any]:
        """Return how many lines of the current or last run were written and lost."""
        writer = self._writer
        return {
            "written": writer.written if writer else 0,
            "lost": writer.lost if writer else 0,
            "is_degraded": self.is_degraded,
        }


class _QueueHandler(logging.Handler):
    """Forms the lines and queues them."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer: _Writer | None = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record. ``handle`` holds the handler's lock around this."""
        writer = self._writer
        if writer is None:
            return
        try:
            line = _line_of(record)
            is_performance = record.name == PERFORMANCE
            text = console_line(line, is_coloured=writer.is_coloured) if writer.shows(line) else ""
            writer.put((json_line(line), is_performance, text))
        except Exception:  # noqa: BLE001  # logging never breaks the code that logs: the standard library's rule
            self.handleError(record)

    def close(self) -> None:
        """Let nothing in any more."""
        self.acquire()
        try:
            self._writer = None
        finally:
            self.release()
        super().close()


def _line_of(record: logging.LogRecord) -> LogLine:
    fields = record.__dict__.get("fields")
    exc = record.exc_text or ""
    if record.exc_info and not exc:
        exc = _TRACEBACKS.formatException(record.exc_info)
    if record.stack_info:
        exc = f"{exc}\n{record.stack_info}".strip()
    return LogLine(
        at=record.created,
        level=record.levelname,
        logger=record.name,
        message=_message_of(record),
        fields=fields if isinstance(fields, dict) else {},
        exc=exc,
    )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as exc:  # noqa: BLE001  # arguments that do not fit: the line is kept, as it was written
        return f"{record.msg!r} with {record.args!r} (not to be formatted: {exc})"


class _Writer:
    """The thread that writes, and the queue before it."""

    def __init__(self, log_dir: Path, *, has_console: bool) -> None:
        self._log_dir = log_dir
        self._application = RotatingFile(log_dir / "application.log")
        self._performance = RotatingFile(log_dir / "performance.log")
        self._has_console = has_console
        self._queue: queue.Queue[_Item | None] = queue.Queue(QUEUE_LINES)
        self._thread = threading.Thread(target=self._run, name="ondol-logs", daemon=True)
        self.is_coloured = _is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
        self.is_degraded = False
        self.written = 0
        self.lost = 0
        self._is_stuck = False

    def shows(self, line: LogLine) -> bool:
        """Whether the console gets the line: of the measurements only the alerts, unless nothing can be written."""
        is_for_people = line.logger != PERFORMANCE or line.fields.get("event") == "alert"
        return (self._has_console and is_for_people) or self.is_degraded

    def start(self) -> None:
        # Tried here, so that a folder that cannot be written to is told before anything else happens.
        self._attempt(self._open)
        self._thread.start()

    def _open(self) -> None:
        self._application.open()
        self._performance.open()

    def put(self, item: _Item) -> None:
        try:
            # Waited for once: on a disk that hangs, each further line would hold up its event loop as long.
            self._queue.put(item, timeout=0.0 if self._is_stuck else PUT_TIMEOUT_S)
        except queue.Full:
            self._is_stuck = True
            self.lost += 1
        else:
            self._is_stuck = False

    def stop(self) -> None:
        """Write what is queued and end. A disk that hangs holds this up for a few seconds, not for ever."""
        try:
            self._queue.put(None, timeout=STOP_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except Exception as exc:  # noqa: BLE001  # the thread must live: without it every line would be lost
                self.lost += 1
                _say(f"ondol: WARNING: a log line was not written: {exc!r}\n")
        self._application.close()
        self._performance.close()
        if self.lost:
            _say(f"ondol: {self.lost} log line(s) could not be written to {self._log_dir}\n")

    def _write(self, line: bytes, is_performance: bool, text: str) -> None:
        def write() -> None:
            self._application.write(line)
            if is_performance:
                self._performance.write(line)

        if self._attempt(write):
            self.written += 1
        else:
            self.lost += 1
        if text:
            _say(text)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Do ``action`` on the files; warn once when that fails, and once more when it works again."""
        try:
            action()
        except OSError as exc:
            if not self.is_degraded:
                _say(
                    f"ondol: WARNING: cannot write logs to {self._log_dir}: {exc.strerror or exc}; "
                    "lines go to the console only. Make the folder writable or set ONDOL_LOG_DIR.\n"
                )
            self.is_degraded = True
            return False
        if self.is_degraded:
            self.is_degraded = False
            _say(f"ondol: logs are written to {self._log_dir} again; {self.lost} line(s) are missing there\n")
        return True


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _say(text: str) -> None:
    # Standard error may be closed or missing (pythonw, a daemon): then there is nobody to tell.
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return
