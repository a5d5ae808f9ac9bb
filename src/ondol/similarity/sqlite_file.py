"""adapter: one SQLite file: opened, written in transactions, read in snapshots."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ondol.similarity.schema import ensure_schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SqliteFile"]

_BUSY_TIMEOUT_S: Final = 15.0
"""How long a write waits for one of another process; none of ours takes longer than storing one request."""
_OPEN_TIMEOUT_S: Final = 15.0
_OPEN_RETRY_S: Final = 0.02


class SqliteFile:
    """A connection with the schema in place.

    Thread-safety: none; opened, used and closed in one thread.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``, which is created together with its folder if need be.

        Raises:
            sqlite3.Error, OSError: it cannot be opened.
            StoreUnavailableError: it was made by a newer ondol.
        """
        import sqlite3  # noqa: PLC0415  # a process that stores nothing does not pay for the import

        path.parent.mkdir(parents=True, exist_ok=True)
        # Transactions are begun and ended here, never by the module on its own account.
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self.execute("PRAGMA foreign_keys = ON")
            self._enter_wal_mode()
            ensure_schema(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def _enter_wal_mode(self) -> None:
        """Let readers and one writer work at the same time; the file remembers it."""
        import sqlite3  # noqa: PLC0415  # see above

        deadline_s = time.monotonic() + _OPEN_TIMEOUT_S
        while True:
            try:
                self.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as exc:
                # While another process changes the mode of a new file, SQLite answers "locked" without waiting.
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(_OPEN_RETRY_S)
            else:
                return

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(statement, values)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read in the block come from one state of the file."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self.execute("ROLLBACK")

    @contextmanager
    def transaction(self, *, is_durable: bool) -> Iterator[None]:
        """Let everything that is written in the block be written together, or not at all.

        Args:
            is_durable: whether it must outlive a loss of power. A killed process loses nothing either way.
        """
        # NORMAL can lose the last transactions when the machine (not the process) dies: fine for what is recomputed.
        self.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk, for one, has ended it already
                self.execute("ROLLBACK")
            raise
