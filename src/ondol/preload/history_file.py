"""adapter: the files in which what use has taught outlives the process, also one that is killed.

::

    NAME.json     the snapshot, two lines of JSON: {"format", "generation", "bytes", "crc32"}, then the knowledge
    NAME.tail     the uses since that snapshot (:mod:`ondol.preload.history_tail`)
    NAME.lock     locked by the one process that writes
    *.damaged     the last one that could not be read

A tail counts only beside the snapshot it names, or where there is none: one that was left behind by a crash between the
two writes is of uses that are in the new snapshot already.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import json
import os
import secrets
import weakref
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.preload.history_tail import GENERATION_BYTES, MAX_TAIL_BYTES, Tail, TailContent, read_tail
from ondol.preload.ports import Kept

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # pragma: no cover  # a system without it: one process is taken to be alone
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MAX_SNAPSHOT_BYTES", "HistoryFile"]

MAX_SNAPSHOT_BYTES: Final = 64 * 1024 * 1024

_FORMAT: Final = 1
_HEAD_BYTES: Final = 512
_MODE: Final = 0o600
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_numbers = itertools.count(1)
_locked: Final[weakref.WeakSet[HistoryFile]] = weakref.WeakSet()


class HistoryFile:
    """A :class:`ondol.preload.ports.HistoryStore`: a snapshot that is replaced as a whole, and a tail that grows.

    A process that is killed loses what was not appended yet, one whose machine loses power what the system had not
    brought to the disk (the tail is not synchronised), and neither counts a use twice. Others may read meanwhile.
    On a file system without locks every process takes itself for the one that writes: the last snapshot counts.

    Not thread-safe.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use ``path`` (the snapshot) and its neighbours; the folder is made with ``open``."""
        self.path = Path(path)
        self.tail_path = self.path.with_suffix(".tail")
        self.lock_path = self.path.with_suffix(".lock")
        self._lock: int | None = None
        self._tail: Tail | None = None

    def open(self) -> bool:
        """Take the lock unless another process has it; return whether it is held.

        Raises:
            OSError: the folder or the lock's file cannot be made.
        """
        if self._lock is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | _CLOEXEC, _MODE)
        is_held = False
        try:
            is_held = _is_locked(descriptor)
        finally:
            if not is_held:
                os.close(descriptor)
        if is_held:
            self._lock = descriptor
            _locked.add(self)
            self._clear_drafts()
        return is_held

    def close(self) -> None:
        """Give the lock back."""
        self._tail = None
        descriptor, self._lock = self._lock, None
        _locked.discard(self)
        if descriptor is not None:
            os.close(descriptor)

    def read(self) -> Kept:
        """Return the snapshot and the uses since; only the process that writes sets aside what is damaged.

        Raises:
            OSError: a file is there and cannot be read.
        """
        tail = self._read_tail()  # before the snapshot: of one written meanwhile the tail is another's then
        damage: list[Exception] = []
        generation, knowledge = None, None
        try:
            generation, knowledge = self._read_snapshot()
        except (ValueError, RecursionError) as exc:
            damage.append(exc)
            self._aside(self.path)
        if tail.fault:
            damage.append(ValueError(f"{self.tail_path}: {tail.fault}"))
            self._aside(self.tail_path)
        if tail.generation is not None and generation in {None, tail.generation.hex()}:
            return Kept(tail.generation.hex(), knowledge, tail.uses, tail.moment_s, tuple(damage), tail.is_torn)
        return Kept(generation, knowledge, damage=tuple(damage))

    def write(self, plain: Mapping[str, Any]) -> str:
        """Replace the snapshot, then begin a new tail; return the generation.

        Raises:
            OSError: one of them cannot be written, or the lock is not held. The snapshot is the old one or this one,
                never a half.
            ValueError: it is larger than ``MAX_SNAPSHOT_BYTES``.
        """
        self._tail = None
        if self._lock is not None and not os.fstat(self._lock).st_nlink:
            self.close()  # somebody deleted the folder, and another process may hold the lock of a new one
            self.open()
        if self._lock is None:
            raise OSError(errno.EBADF, "another process may write it: open() has not taken the lock", str(self.path))
        generation = secrets.token_bytes(GENERATION_BYTES)
        body = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if len(body) > MAX_SNAPSHOT_BYTES - _HEAD_BYTES:
            message = f"{self.path} would be larger than {MAX_SNAPSHOT_BYTES} bytes: it is not written"
            raise ValueError(message)
        head = {"format": _FORMAT, "generation": generation.hex(), "bytes": len(body), "crc32": zlib.crc32(body)}
        self._replace(json.dumps(head).encode() + b"\n" + body + b"\n")
        tail = Tail(generation)
        descriptor = os.open(self.tail_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _CLOEXEC, _MODE)
        _write_all(descriptor, tail.header)
        self._tail = tail
        return generation.hex()

    def append(self, uses: Sequence[tuple[str, float]], moment_s: float) -> bool:
        """Append one record to the tail; return false when there is none to append to, or it would be full.

        Raises:
            OSError: it cannot be written.
        """
        tail, self._tail = self._tail, None  # after a failure the file may end in half a record
        record = None if tail is None or self._lock is None else tail.record(uses, moment_s)
        if record is None:
            return False
        _write_all(os.open(self.tail_path, os.O_WRONLY | os.O_APPEND | _CLOEXEC), record)
        self._tail = tail
        return True

    def set_aside(self) -> None:
        """Rename the snapshot.

        Raises:
            OSError: it cannot be renamed.
        """
        self._aside(self.path)

    def forget(self) -> None:
        """In a forked child: the lock and the tail are the parent's."""
        self.close()  # the lock is let go of when the last descriptor is closed: it stays the parent's

    def _clear_drafts(self) -> None:
        """Delete what processes left that were killed while they wrote."""
        for draft in self.path.parent.glob(f".{glob.escape(self.path.name)}-*-*"):
            with contextlib.suppress(OSError):
                draft.unlink()

    def _read_snapshot(self) -> tuple[str | None, dict[str, Any] | None]:
        data = _content(self.path, MAX_SNAPSHOT_BYTES)
        if data is None:
            return None, None
        if len(data) > MAX_SNAPSHOT_BYTES:
            raise self._damaged(f"it is larger than {MAX_SNAPSHOT_BYTES} bytes")
        first, _newline, rest = data.partition(b"\n")
        head = json.loads(first) if len(first) <= _HEAD_BYTES else None
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise self._damaged(f"it does not say that it is of format {_FORMAT}")
        generation, body = head.get("generation"), rest[:-1]
        is_whole = rest[-1:] == b"\n" and head.get("bytes") == len(body) and head.get("crc32") == zlib.crc32(body)
        if not is_whole or not isinstance(generation, str):
            raise self._damaged("it is cut off or damaged")
        knowledge = json.loads(body.decode("utf-8", "surrogatepass"))
        if not isinstance(knowledge, dict):
            raise self._damaged("it holds no JSON object")
        return generation, knowledge

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"{self.path}: {reason}")

    def _read_tail(self) -> TailContent:
        data = _content(self.tail_path, MAX_TAIL_BYTES)
        return read_tail(data[:MAX_TAIL_BYTES] if data is not None else b"")

    def _aside(self, path: Path) -> None:
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.damaged"))

    def _replace(self, data: bytes) -> None:
        temporary = self.path.with_name(f".{self.path.name}-{os.getpid()}-{next(_numbers)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC, _MODE)
            _write_all(descriptor, data, is_synchronised=True)
            temporary.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # not every file system can; then a power failure may bring the old one back
            folder = os.open(self.path.parent, os.O_RDONLY | _CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _is_locked(descriptor: int) -> bool:
    """Take the lock if nobody has it; return whether it may be written now."""
    if not _HAS_LOCKS:  # pragma: no cover
        return True
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise
    return True


def _content(path: Path, most_bytes: int) -> bytes | None:
    """Return the file's first bytes, one more than ``most_bytes`` at most; ``None`` when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes + 1)
    except FileNotFoundError:
        return None


def _write_all(descriptor: int, data: bytes, *, is_synchronised: bool = False) -> None:
    """Write ``data`` and close."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if is_synchronised:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _after_fork_in_child() -> None:
    for file in list(_locked):
        file.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
