"""adapter: the one thread in which all work on the document store happens."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ondol.errors import StoreUnavailableError
from ondol.similarity.store import DocumentStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["StoreThread"]

T = TypeVar("T")


class StoreThread:
    """Runs functions on the document store, one after the other, off the event loop.

    The thread and the file are opened by the first call, and again by the first after ``close``.

    Thread-safety: ``run`` may be called on any event loop.
    """

    def __init__(self, path: Path) -> None:
        """Remember ``path``. Opens nothing."""
        self.path = path
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    async def run(self, work: Callable[[DocumentStore], T]) -> T:
        """Return ``work(store)``, computed in the store's thread.

        Cancellation: the caller stops waiting; work that has begun goes on to its end.

        Raises:
            StoreUnavailableError: the file cannot be opened, read or written.
        """
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self.path)
            worker = self._worker
            # The thread works for the request that asks; an executor takes no context along by itself.
            run = contextvars.copy_context().run
            future = asyncio.get_running_loop().run_in_executor(worker.executor, run, worker.call, work)
        return await future

    async def close(self) -> None:
        """Finish what has begun and close the file."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.get_running_loop().run_in_executor(worker.executor, worker.close_store)
            worker.executor.shutdown(wait=False)


class _Worker:
    """One thread and the file it has open; a new one after each ``close``, so that the two never share a file."""

    def __init__(self, path: Path) -> None:
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ondol-store")
        self._path = path
        self._store: DocumentStore | None = None

    def call(self, work: Callable[[DocumentStore], T]) -> T:
        import sqlite3  # noqa: PLC0415  # a process that stores nothing does not pay for the import

        try:
            if self._store is None:
                self._store = DocumentStore(self._path)
            return work(self._store)
        except (sqlite3.Error, OSError) as exc:
            message = (
                f"the document store {str(self._path)!r} cannot be used: {exc}. "
                "Check the folder's rights and free space, or set ONDOL_DATA_DIR to another folder"
            )
            raise StoreUnavailableError(message) from exc

    def close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
