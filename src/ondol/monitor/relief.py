"""service: a thread that keeps what waits to be counted bounded where no event loop looks after it."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Relief"]

logger = logging.getLogger("ondol.monitor")

INTERVAL_S: Final = 0.1


class Relief:
    """Calls a method ten times a second, from the first ``start`` until its object is gone.

    Its thread does not keep the process from ending, nor the object alive. A child process begins without it, and gets
    its own with the next ``start``.
    """

    def __init__(self, relieve: Callable[[], None]) -> None:
        """Start nothing; ``relieve`` is a bound method that may be called from any thread."""
        self._relieve = weakref.WeakMethod(relieve)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = 0

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._process != os.getpid():
            self._lock = threading.Lock()  # that of the parent may be held for ever
            self._thread = None
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._process = os.getpid()
                self._thread = threading.Thread(target=_run, args=(self._relieve,), name="ondol-monitor", daemon=True)
                self._thread.start()


def _run(relieve: weakref.WeakMethod[Callable[[], None]]) -> None:
    pause = threading.Event()
    is_told = False
    while (call := relieve()) is not None:
        try:
            call()
        except Exception:
            if not is_told:
                is_told = True
                logger.exception("measurements could not be counted; this is said once")
        del call
        pause.wait(INTERVAL_S)
