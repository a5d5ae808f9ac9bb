"""adapter: what a child process prints, line by line to the log, and the last of it kept."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from typing import Final

__all__ = ["LineReader"]

logger = logging.getLogger("ondol.models")

_MAX_LINE_BYTES: Final = 8 * 1024
_KEPT_LINES: Final = 20
_CHUNK_BYTES: Final = 64 * 1024
_MAX_REST_BYTES: Final = 1024 * 1024


class LineReader:
    """Reads one pipe of a child; each line is logged under ``ondol.models``.

    Attributes:
        tail: the last lines.
        is_open: more may come.
    """

    def __init__(self, descriptor: int, *, name: str, stream: str, level: int) -> None:
        """Take over ``descriptor``; log with ``level`` as ``stream`` of the model ``name``."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self.is_open = True
        self._name = name
        self._stream = stream
        self._level = level
        self._rest = b""

    def read(self) -> int:
        """Read what is there, without waiting; return the number of bytes."""
        try:
            chunk = os.read(self.descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        if not chunk:
            self.is_open = False
            return 0
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._rest) >= _MAX_LINE_BYTES:  # somebody never ends a line
            self._log(self._rest)
            self._rest = b""
        return len(chunk)

    def close(self) -> None:
        """Read the rest (a bounded part of it, for a grandchild may go on writing) and close the pipe."""
        left = _MAX_REST_BYTES
        while self.is_open and left > 0 and (count := self.read()):
            left -= count
        if self._rest:
            self._log(self._rest)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def _log(self, line: bytes) -> None:
        for begin in range(0, len(line) or 1, _MAX_LINE_BYTES):
            text = line[begin : begin + _MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
            self.tail.append(text)
            fields = {"model": self._name, "stream": self._stream}
            with contextlib.suppress(Exception):  # a filter of the application that fails must not stop the reading
                logger.log(self._level, "model %s: %s", self._name, text, extra={"fields": fields})
