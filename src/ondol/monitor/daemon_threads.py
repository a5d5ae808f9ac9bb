"""adapter: blocking calls in threads that never keep the process from ending."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DaemonThreads"]


class DaemonThreads(Executor):
    """One daemon thread a call, at most ``limit`` at a time: nothing joins them.

    ``asyncio.to_thread`` and ``ThreadPoolExecutor`` wait for their threads when the loop or the interpreter ends:
    with them, a receiver that does not answer would hold up the end of the process.
    """

    def __init__(self, name: str, limit: int = 4) -> None:
        """Begin without threads; they will be called ``name``."""
        self._name = name
        self._limit = limit
        self._places = threading.Semaphore(limit)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn`` in a new thread.

        Raises:
            OSError: as many calls as are allowed have not come back.
        """
        if not self._places.acquire(blocking=False):
            raise OSError(f"{self._name}: earlier calls ({self._limit}) have not come back, no more is begun")
        future: Future[Any] = Future()
        thread = threading.Thread(target=self._call, args=(future, fn, args, kwargs), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            self._places.release()
            raise OSError(f"no thread can be started for {self._name}: {exc}") from exc
        return future

    def _call(self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._places.release()
            return
        result, error = None, None
        try:
            result = fn(*args, **kwargs)
        except BaseException as exc:  # noqa: BLE001  # handed to the caller, whatever it is
            error = exc
        # Before the caller hears of it: it may begin the next call at once.
        self._places.release()
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
