"""adapter: one log file that is rotated by size: ``name``, ``name.1`` (newest old one) to ``name.5``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ondol.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "OLD_FILES", "RotatingFile"]

MAX_FILE_BYTES: Final = 10 * MIB
OLD_FILES: Final = 5


class RotatingFile:
    """Appends whole lines; each ``write`` is one system call. Belongs to one thread.

    A line is never split between two files; a file is larger than the bound only when one line is.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES, old_files: int = OLD_FILES) -> None:
        """Open nothing yet."""
        self._path = path
        self._max_bytes = max_bytes
        self._old_files = old_files
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._is_torn = False

    def open(self) -> None:
        """Open the file for appending, making it and its folder when they are not there.

        Raises:
            OSError: that is not possible.
        """
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._size_bytes = os.fstat(self._descriptor).st_size

    def write(self, line: bytes) -> None:
        """Append ``line``, which ends with a newline; rotate before when the file would become too large.

        Raises:
            OSError: it could not be written; a part of it may have been.
        """
        if self._size_bytes and self._size_bytes + len(line) > self._max_bytes:
            self._rotate()
        self.open()
        assert self._descriptor is not None
        # What a full disk cut off ends here, so that it spoils one line and not two.
        rest = memoryview(b"\n" + line if self._is_torn else line)
        while rest:
            written = os.write(self._descriptor, rest)
            self._size_bytes += written
            rest = rest[written:]
            self._is_torn = bool(rest)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        self._size_bytes = 0
        if descriptor is not None:
            os.close(descriptor)

    def _rotate(self) -> None:
        is_ours = self._is_current()
        self.close()
        if not is_ours:
            return  # another process has rotated already: go on in its new file
        for number in range(self._old_files - 1, 0, -1):
            old = self._numbered(number)
            if old.exists():
                old.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _is_current(self) -> bool:
        assert self._descriptor is not None
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
