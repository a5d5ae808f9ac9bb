"""adapter: a log file that several processes append to, rotated by size: ``name``, ``name.1`` (newest old) and so on.

Who appends or rotates holds the lock of the file that bears the name at that moment. So nobody writes into a file
that was rotated away, and what a process that was killed left unfinished is seen by the next one.
"""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ondol.monitor.file_lock import HAS_LOCKS, give_lock, take_lock
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["LOCK_PATIENCE_S", "MAX_FILE_BYTES", "OLD_FILES", "RotatingFile"]

MAX_FILE_BYTES: Final = 10 * MIB
OLD_FILES: Final = 5
LOCK_PATIENCE_S: Final = 2.0

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_UNKNOWN: Final = -1


class _Lock(enum.Enum):
    HELD = enum.auto()
    BUSY = enum.auto()
    """Another process has held it for long, and may be stopped."""
    NONE = enum.auto()
    """There are no locks here."""


def _unheard(_sentence: str) -> None:
    pass


class RotatingFile:
    """Appends whole lines, those of one call with one system call. Belongs to one thread.

    A line is never split between two files; a file is larger than the bound only when one line is, or when it cannot
    be rotated. Where the file system has no locks, other processes are noticed only by the name of the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        old_files: int = OLD_FILES,
        lock_patience_s: float = LOCK_PATIENCE_S,
        warn: Callable[[str], None] = _unheard,
    ) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            max_bytes: it is rotated before it would grow beyond.
            old_files: how many are kept besides it, at least one.
            lock_patience_s: how long another process may hold the lock before lines are written without it.
            warn: is told what goes wrong without losing a line, once each time it begins.
        """
        self._path = path
        self._max_bytes = self._bound_bytes = max_bytes
        self._old_files = max(1, old_files)
        self._lock_patience_s = lock_patience_s
        self._warn = warn
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._end_bytes = _UNKNOWN
        self._lock = _Lock.HELD
        self._is_torn = False
        self.lines_written = 0
        self.failed_rotations = 0

    def open(self) -> None:
        """Open the file for appending, making it and its folder when they are not there.

        Raises:
            OSError: that is not possible.
        """
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._take_over(os.open(self._path, _FLAGS, 0o644))

    def write(self, lines: Sequence[bytes]) -> None:
        """Append ``lines``, each of which ends with a newline; rotate before those that do not fit any more.

        Raises:
            OSError: they could not all be written; ``lines_written`` has grown by those that were.
        """
        start = 0
        while start < len(lines):
            size_bytes = self._enter()
            try:
                end = self._fitting(lines, start, size_bytes)
                if end > start:
                    self._append(b"".join(lines[start:end]), size_bytes)
                    start = end
                else:
                    self._rotate(size_bytes, len(lines[start]))
            finally:
                self._leave()

    def close(self) -> None:
        """Close the file, which gives its lock back; the next write opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _take_over(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._descriptor, self._identity = descriptor, (status.st_dev, status.st_ino)
        self._end_bytes = _UNKNOWN

    def _enter(self) -> int:
        """Hold the lock of the file that bears the name now; return its size."""
        while True:
            self.open()
            self._take_lock()
            with suppress(FileNotFoundError):
                named = self._path.stat()
                if (named.st_dev, named.st_ino) == self._identity:
                    return named.st_size
            self.close()  # rotated or removed by another process: go on in the new file

    def _leave(self) -> None:
        if self._descriptor is not None and self._lock is _Lock.HELD:
            give_lock(self._descriptor)

    def _take_lock(self) -> None:
        assert self._descriptor is not None
        before = self._lock
        if before is _Lock.NONE:
            return
        try:
            is_held = take_lock(self._descriptor, self._lock_patience_s if before is _Lock.HELD else 0.0)
        except OSError as exc:
            self._lock = _Lock.NONE
            self._warn(f"no lock on {self._path}: {exc}; let only one process write to this folder")
            return
        self._lock = _Lock.HELD if is_held else _Lock.BUSY
        if before is _Lock.HELD and not is_held:
            self._warn(f"another process keeps {self._path} locked; lines are written without the lock until it ends")

    def _fitting(self, lines: Sequence[bytes], start: int, size_bytes: int) -> int:
        """Return up to which of ``lines`` (exclusive) the file takes them."""
        if self._lock is _Lock.BUSY:
            return len(lines)  # who holds the lock may be amid a rotation
        for index in range(start, len(lines)):
            size_bytes += len(lines[index])
            if size_bytes > self._bound_bytes and size_bytes > len(lines[index]):
                return index
        return len(lines)

    def _append(self, content: bytes, size_bytes: int) -> None:
        assert self._descriptor is not None
        # A part of a line ends here, so that it spoils one line and not two.
        mend = b"\n" if self._ends_amid_a_line(size_bytes) else b""
        content, written = mend + content, 0
        try:
            while written < len(content):
                written += os.write(self._descriptor, memoryview(content)[written:])
        except OSError:
            whole = content.rfind(b"\n", 0, written) + 1
            self._cut(size_bytes, whole, written)
            self.lines_written += max(0, content.count(b"\n", 0, whole) - len(mend))
            raise
        self._end_bytes = size_bytes + len(content)
        self._is_torn = False
        self.lines_written += content.count(b"\n") - len(mend)

    def _cut(self, size_bytes: int, whole: int, written: int) -> None:
        """Take the part of a line, which a full disk left, out of the file again, if nobody else writes to it."""
        self._end_bytes = _UNKNOWN
        if not written:
            return
        self._is_torn = written > whole
        if self._is_torn and self._lock is _Lock.HELD and self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, size_bytes + whole)
                self._is_torn = False

    def _ends_amid_a_line(self, size_bytes: int) -> bool:
        if self._is_torn:
            return True
        if size_bytes in (0, self._end_bytes) or self._lock is not _Lock.HELD:
            return False
        assert self._descriptor is not None
        return os.pread(self._descriptor, 1, size_bytes - 1) != b"\n"

    def _rotate(self, size_bytes: int, next_bytes: int) -> None:
        """Give the file away to its first number; when that fails, go on in it until it has grown by a tenth."""
        try:
            if not HAS_LOCKS:
                self.close()  # such a system renames no file that is open
            self._shift()
            self._path.replace(self._numbered(1))
            self._begin_anew()
        except OSError as exc:
            self.failed_rotations += 1
            if self._bound_bytes == self._max_bytes:
                self._warn(f"cannot rotate {self._path}: {exc}; it grows beyond {self._max_bytes} bytes meanwhile")
            self._bound_bytes = size_bytes + max(self._max_bytes // 10, next_bytes)
        else:
            self._bound_bytes = self._max_bytes
            self._is_torn = False

    def _shift(self) -> None:
        # Up to the first gap only: tried again and again, it would else push one old file after the other out.
        there = {entry.name for entry in self._path.parent.iterdir()}
        name = self._path.name
        numbers = range(1, self._old_files)
        gap = next((number for number in numbers if f"{name}.{number}" not in there), self._old_files)
        for number in range(gap - 1, 0, -1):
            self._numbered(number).replace(self._numbered(number + 1))

    def _begin_anew(self) -> None:
        try:
            descriptor = os.open(self._path, _FLAGS, 0o644)
        except OSError:
            with suppress(OSError):  # there is no room for a file: back to the old one, unless there is a new one now
                os.link(self._numbered(1), self._path)
                self._numbered(1).unlink()
            raise
        self.close()
        self._take_over(descriptor)
        # Not locked yet: nothing may be written before it was entered.

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
