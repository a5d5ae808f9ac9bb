"""adapter: loggers that make no ``LogRecord`` when a queue of lines is all that listens: half of a line's time is that.

Whoever else listens (handlers of the root logger, filters, a record factory) gets the records that they know.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ondol.monitor.log_lines import captured_fields
from ondol.request_context import current_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.monitor.log_lines import CapturedLine
    from ondol.monitor.log_queue import LineQueue
    from ondol.request_context import RequestContext

__all__ = ["QueueHandler"]

_TRACEBACKS: Final = logging.Formatter()
_RECORD_FACTORY: Final = logging.LogRecord


class QueueHandler(logging.Handler):
    """Captures what is logged and queues it; makes the loggers quick of which it has seen a record."""

    def __init__(self, queue: LineQueue, own: str) -> None:
        """Queue lines in ``queue``; only loggers below ``own`` are made quick."""
        super().__init__()
        self.put: Callable[[CapturedLine], None] | None = queue.put
        self._prefix = f"{own}."
        self._quick: list[logging.Logger] = []

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue one record. Without filters it takes no lock: the queue needs none."""
        if self.filters:
            return bool(super().handle(record))
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        put = self.put
        if put is not None:
            try:
                put(_captured(record))
                self._quicken(record.name)
            except Exception:  # noqa: BLE001  # logging never breaks the code that logs: the standard library's rule
                self.handleError(record)

    def close(self) -> None:
        """Let nothing in any more, and give the loggers back as they were."""
        self.put = None
        for logger in self._quick:
            logger.__class__ = logging.Logger
        self._quick.clear()
        super().close()

    def _quicken(self, name: str) -> None:
        logger = logging.Logger.manager.loggerDict.get(name)
        if type(logger) is logging.Logger and name.startswith(self._prefix):
            self._quick.append(logger)
            logger.__class__ = _QuickLogger


class _QuickLogger(logging.Logger):
    """Queues a line without making a record of it, where nobody would see the record."""

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        fields = extra.get("fields") if extra is not None and len(extra) == 1 else None
        if not exc_info and not stack_info and (extra is None or type(fields) is dict):
            put = self._only_queue(level)
            if put is not None and self._is_queued(put, level, msg, args, fields):
                return
        super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)

    def _is_queued(
        self, put: Callable[[CapturedLine], None], level: int, msg: object, args: Any, fields: object
    ) -> bool:
        try:
            message = str(msg)
            if args:
                message %= args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            put((time.time(), logging.getLevelName(level), self.name, message, _fields_of(fields), ""))
        except Exception:  # noqa: BLE001  # it will meet the handler too, which tells it as all errors of logging are
            return False
        return True

    def _only_queue(self, level: int) -> Callable[[CapturedLine], None] | None:
        """Return the queue's end, if nothing but one queue listens to lines of this level."""
        if self.filters or logging.getLogRecordFactory() is not _RECORD_FACTORY:
            return None
        found: QueueHandler | None = None
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                if found is not None or type(handler) is not QueueHandler or handler.filters or handler.level > level:
                    return None
                found = handler
            logger = logger.parent if logger.propagate else None
        return None if found is None else found.put


def _captured(record: logging.LogRecord) -> CapturedLine:
    """Return what the record says, in the thread and the context that log it: it may change as soon as they go on."""
    try:
        message = record.getMessage()
    except Exception as exc:  # noqa: BLE001  # arguments that do not fit: the line is kept, as it was written
        message = f"{record.msg!r} with {record.args!r} (not to be formatted: {exc})"
    has_more = record.exc_info or record.exc_text or record.stack_info
    exc_text = _traceback_of(record) if has_more else ""
    fields = _fields_of(record.__dict__.get("fields"))
    return record.created, record.levelname, record.name, message, fields, exc_text


def _fields_of(said: object) -> Mapping[str, Any]:
    """Return a copy of the fields, with the request that the line is for unless they say it."""
    fields = captured_fields(said) if said and isinstance(said, dict) else {}
    request = current_request()
    return fields if request is None else _with_request(fields, request)


def _with_request(fields: dict[str, Any], request: RequestContext) -> dict[str, Any]:
    named = fields.setdefault("request_id", request.request_id)
    if request.trace_id and named == request.request_id:
        fields.setdefault("trace_id", request.trace_id)
    return fields


def _traceback_of(record: logging.LogRecord) -> str:
    text = record.exc_text or ""
    if record.exc_info and not text:
        text = _TRACEBACKS.formatException(record.exc_info)
    return f"{text}\n{record.stack_info}".strip() if record.stack_info else text
