"""adapter: small system files that are read again and again through a descriptor that stays open."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FileLostError", "KeptFile", "KeptRow", "OpenFiles", "read_once"]

Key = TypeVar("Key")

_NOT_OPEN: Final = -1
_MISSING: Final = -2

# The file was there, and is no more: its group was removed, its process ended, its file system is gone.
_LOST: Final = frozenset({errno.ENODEV, errno.ESTALE, errno.ENOENT, errno.ESRCH})
# The machine or this process has no descriptor or memory left: the file may well be there.
_NOT_NOW: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


class FileLostError(OSError):
    """A file that had been read before is gone; the path has to be looked up anew."""


class KeptFile:
    """One file, read from its beginning each time without opening it again.

    A file that does not exist is not asked for again before ``forget_missing``. Not thread-safe: one user at a time.
    Cost: one system call a read.
    """

    __slots__ = ("_descriptor", "_is_head", "_is_told", "_path", "_size_bytes")

    def __init__(self, path: Path, size_bytes: int = 4096, *, is_head: bool = False, is_told: bool = False) -> None:
        """Open nothing yet.

        Args:
            path: of the file.
            size_bytes: as much is read; grows when the file is longer.
            is_head: no more than ``size_bytes`` are of interest.
            is_told: raise ``FileLostError`` when the file is gone; otherwise it is opened again by its path.
        """
        self._path = str(path)
        self._size_bytes = size_bytes
        self._is_head = is_head
        self._is_told = is_told
        self._descriptor = _NOT_OPEN

    def read(self) -> bytes:
        """Return the content, empty when there is none.

        Raises:
            FileLostError: it was there before and is gone, and the file is one that tells so.
        """
        if self._descriptor < 0 and not self._open():
            return b""
        try:
            text = os.pread(self._descriptor, self._size_bytes, 0)
        except OSError as exc:
            return self._failed(exc)
        return text if self._is_head or len(text) < self._size_bytes else self._read_longer()

    def forget_missing(self) -> None:
        """Look for the file again if it did not exist."""
        if self._descriptor == _MISSING:
            self._descriptor = _NOT_OPEN

    def close(self) -> None:
        """Give the descriptor back; the next read opens the file again."""
        descriptor, self._descriptor = self._descriptor, _NOT_OPEN
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    def _open(self) -> bool:
        if self._descriptor == _MISSING:
            return False
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)  # Python adds O_CLOEXEC
        except OSError as exc:
            self._descriptor = _NOT_OPEN if exc.errno in _NOT_NOW else _MISSING
        return self._descriptor >= 0

    def _failed(self, exc: OSError) -> bytes:
        self.close()
        if exc.errno not in _LOST:
            self._descriptor = _NOT_OPEN if exc.errno in _NOT_NOW else _MISSING
            return b""
        if self._is_told:
            raise FileLostError(exc.errno, exc.strerror, self._path) from exc
        return read_once(self._path)  # the next call opens it again

    def _read_longer(self) -> bytes:
        self._size_bytes *= 2
        return self.read()


class KeptRow(Generic[Key]):
    """Short files that are read together, at hardly more than the cost of the system calls.

    Not thread-safe. Those that do not exist are left out, until ``close``.
    """

    __slots__ = ("_descriptors", "_files", "_is_told", "_is_whole", "_size_bytes", "keys")

    def __init__(
        self, files: Sequence[tuple[Key, Sequence[Path]]], *, size_bytes: int = 256, is_told: bool = False
    ) -> None:
        """Open nothing yet.

        Args:
            files: each by a key; of several paths the first that can be read is taken.
            size_bytes: as much is read of each, the rest is of no interest.
            is_told: raise ``FileLostError`` when one is gone; otherwise it is looked for again.
        """
        self._files = files
        self._size_bytes = size_bytes
        self._is_told = is_told
        self._descriptors: list[int] = []
        self._is_whole = False  # else there was no descriptor left for one of them: it is tried again
        self.keys: list[Key] = []
        """The keys of what the last ``read`` returned."""

    def read(self) -> list[bytes]:
        """Return the texts of the files that exist.

        Raises:
            FileLostError: one was there before and is gone, and the row is one that tells so.
        """
        if not self._is_whole:
            self._open()
        pread, size_bytes = os.pread, self._size_bytes
        try:
            return [pread(descriptor, size_bytes, 0) for descriptor in self._descriptors]
        except OSError as exc:
            if self._is_told and exc.errno in _LOST:
                self.close()
                raise FileLostError(exc.errno, exc.strerror) from exc
            return self._read_anew()

    def forget_missing(self) -> None:
        """Look for all files again if some did not exist."""
        if len(self.keys) < len(self._files):
            self.close()

    def close(self) -> None:
        """Give the descriptors back; the next read opens the files again."""
        descriptors, self._descriptors = self._descriptors, []
        self.keys = []
        self._is_whole = False
        for descriptor in descriptors:
            os.close(descriptor)

    __del__ = close

    def _open(self) -> None:
        self.close()
        self._is_whole = True
        for key, paths in self._files:
            for path in paths:
                descriptor = _opened(path)
                if descriptor >= 0:
                    self._descriptors.append(descriptor)
                    self.keys.append(key)
                    break
                self._is_whole = self._is_whole and descriptor != _NOT_OPEN

    def _read_anew(self) -> list[bytes]:
        """Leave out what can no longer be read."""
        self._open()
        try:
            return [os.pread(descriptor, self._size_bytes, 0) for descriptor in self._descriptors]
        except OSError:  # they come and go: next time
            self.close()
            return []


class OpenFiles:
    """Counts this process's descriptors; not thread-safe.

    Linux 6.2 and later give the count as the size of /proc/self/fd. Where that does not agree with the list the list
    is counted, which takes longer, the more are open.
    """

    __slots__ = ("_descriptor", "_is_size_right", "_path", "_tries_left")

    def __init__(self, path: Path) -> None:
        """Open nothing yet; ``path`` is of the folder of descriptors."""
        self._path = str(path)
        self._descriptor = _NOT_OPEN
        self._is_size_right = False
        self._tries_left = 3  # other threads may open files while the two are compared

    def count(self) -> int | None:
        """Return how many descriptors are open; ``None`` when this system does not tell."""
        if self._is_size_right:
            try:
                return os.fstat(self._descriptor).st_size
            except OSError:
                self.close()
        try:
            listed = len(os.listdir(self._path))  # noqa: PTH208  # a count needs no Path per descriptor
        except OSError:
            return None
        return self._compared(listed)

    def close(self) -> None:
        """Give the descriptor back; the next count opens it again."""
        descriptor, self._descriptor = self._descriptor, _NOT_OPEN
        self._is_size_right = False
        self._tries_left = 3
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    def _compared(self, listed: int) -> int:
        """Find out whether the size tells the same as the list; return the better count."""
        if self._tries_left == 0:
            return listed
        self._tries_left -= 1
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:
            return listed
        size = os.fstat(descriptor).st_size
        # Both count a descriptor of the folder itself: the list the one it was read with, the size the one just opened.
        if size != listed:
            os.close(descriptor)
            return listed
        self._descriptor, self._is_size_right = descriptor, True
        return size


def read_once(path: Path | str) -> bytes:
    """Return a small system file that is seldom read; empty when there is none: kernels differ in what they show."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path is made for nothing else
            return file.read()
    except OSError:
        return b""


def _opened(path: Path) -> int:
    """Return a descriptor that can be read from, below 0 when there is none: some files can be opened only."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as exc:
        return _NOT_OPEN if exc.errno in _NOT_NOW else _MISSING
    try:
        os.pread(descriptor, 1, 0)
    except OSError:
        os.close(descriptor)
        return _MISSING
    return descriptor
