"""adapter: the two log files and the console behind Python's logging: what is said is captured, and written later."""

from __future__ import annotations

import atexit
import logging
from pathlib import Path
from typing import Any, Final

from ondol.monitor.log_writer import LogWriter
from ondol.monitor.quick_logger import QueueHandler
from ondol.monitor.rotation import MAX_FILE_BYTES, OLD_FILES

__all__ = ["LogPipeline"]

LOGGERS: Final = ("ondol", "uvicorn")


class LogPipeline:
    """Writes the lines of ``ondol.*`` and uvicorn to ``application.log``, of ``ondol.performance`` also to
    ``performance.log``, and all of them to the console (standard error) when wanted.

    The thread that logs only captures what is said, and for which request; one thread of its own forms and writes the
    lines. When that falls 10,000 lines behind, logging waits up to a second for it; only then are lines dropped, and
    counted, until there is room again. Several processes may write to one folder, forked children too.
    A folder that cannot be written to costs one warning on the console, and lines then go to the console only.

    Thread-safety: logging from any thread; ``start`` and ``stop`` from one at a time. Restartable.
    """  # noqa: D205  # the first sentence needs two lines

    def __init__(self, *, max_bytes: int = MAX_FILE_BYTES, old_files: int = OLD_FILES) -> None:
        """Touch nothing yet; a file is rotated before it exceeds ``max_bytes``, and ``old_files`` are kept."""
        self._max_bytes = max_bytes
        self._old_files = old_files
        self._writer: LogWriter | None = None
        self._handler: QueueHandler | None = None
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
        self._writer = LogWriter(
            Path(log_dir), has_console=console, max_bytes=self._max_bytes, old_files=self._old_files
        )
        self._writer.start()
        self._handler = QueueHandler(self._writer.queue, own="ondol")
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
        handler.close()
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
