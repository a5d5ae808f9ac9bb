"""adapter: the folder of the disk tier: what in it is ours, who uses it, and what is done about damage.

::

    PATH/ondol-cache-1.users     a lock file: whoever has the tier open holds it shared
    PATH/ondol-cache-1/          format 1; holds ONDOL (which says that it is ours), data.mdb and lock.mdb

Only a folder with our mark is ever deleted; one of that name without it is renamed and kept. Nothing else is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING, Final

from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LmdbFolder"]

_NAME: Final = "ondol-cache-1"
_MARK: Final = "ONDOL"
_MARK_TEXT: Final = "The disk tier of an ondol cache, format 1. It may be deleted when no program uses it.\n"
_CLOSED: Final = "closed"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class LmdbFolder:
    """One folder that several processes may use at once. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.home = path / _NAME
        self.data = self.home / "data.mdb"
        self._lock: int | None = None
        self.is_alone = False

    def enter(self) -> None:
        """Create what is missing and say that it is used.

        Afterwards ``is_alone`` tells whether nobody else uses it; nobody else can begin to before ``settle``.

        Raises:
            ConfigurationError: it cannot be created or written to.
        """
        try:
            self._path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = os.open(self._path / f"{_NAME}.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            self.is_alone = self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.is_alone:
                self._locked(fcntl.LOCK_SH)
        except OSError as exc:
            self.leave()
            raise ConfigurationError(
                f"{self._path} cannot be used as the folder of the cache's disk tier ({exc.strerror or exc}): choose a "
                "folder that this user can create and write to"
            ) from exc

    def _locked(self, how: int) -> bool:
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, how)
        except BlockingIOError:
            return False
        except OSError:
            return False  # a file system without such locks: then nobody is ever alone
        return True

    def settle(self) -> None:
        """Let others in."""
        if self.is_alone:
            self.is_alone = False
            self._locked(fcntl.LOCK_SH)

    def leave(self) -> None:
        """Say that it is used no more. A forked process that leaves does not say so for its parent."""
        lock, self._lock, self.is_alone = self._lock, None, False
        if lock is not None:
            os.close(lock)

    def create_home(self) -> None:
        """Create the folder of the files unless it is there; it is never there without our mark.

        Raises:
            ConfigurationError: it cannot be created.
        """
        try:
            if not self.home.is_dir():
                draft = self.make_draft()
                try:
                    draft.rename(self.home)
                except OSError:
                    shutil.rmtree(draft, ignore_errors=True)
                    if not self.home.is_dir():  # otherwise another process was faster
                        raise
        except OSError as exc:
            raise ConfigurationError(
                f"{self.home} cannot be created ({exc.strerror or exc}): choose another folder for the disk tier"
            ) from exc

    def make_draft(self) -> Path:
        """Create an empty folder with our mark, to become the folder of the files.

        Raises:
            OSError: it cannot be created.
        """
        draft = self._path / f"{_NAME}.new-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=_FOLDER_MODE)
        (draft / _MARK).write_text(_MARK_TEXT, encoding="utf-8")
        return draft

    def is_ours(self) -> bool:
        """Whether the folder of the files has our mark."""
        try:
            return (self.home / _MARK).read_text(encoding="utf-8") == _MARK_TEXT
        except (OSError, UnicodeDecodeError):
            return False

    def clear_away(self) -> str:
        """Get the folder of the files out of the way and return what was done: deleted if ours, else renamed.

        Whoever has it open goes on with what is deleted then, and finds out by ``identity``.

        Raises:
            OSError: it cannot be.
        """
        is_ours = self.is_ours()
        aside = self._free_name("gone" if is_ours else "set-aside")
        self.home.rename(aside)
        if not is_ours:
            return f"it was renamed to {aside.name} and can be deleted if nobody misses it"
        shutil.rmtree(aside, ignore_errors=True)
        return "it was deleted"

    def _free_name(self, word: str) -> Path:
        number = 1
        while os.path.lexists(self._path / f"{_NAME}.{word}-{number}"):
            number += 1
        return self._path / f"{_NAME}.{word}-{number}"

    def identity(self) -> tuple[int, int] | None:
        """Return what tells the data file of this moment from another of that name; ``None`` when there is none."""
        try:
            found = self.data.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def size_bytes(self) -> int:
        """Return the length of the data file, 0 when there is none."""
        try:
            return self.data.stat().st_size
        except OSError:
            return 0

    def was_closed_well(self) -> bool:
        """Whether the data file is as the last one left it that closed it."""
        try:
            return (self.home / _CLOSED).read_text(encoding="ascii") == self._stamp()
        except (OSError, UnicodeDecodeError):
            return False

    def note_closed(self) -> None:
        """Note how the data file is left."""
        with contextlib.suppress(OSError):
            (self.home / _CLOSED).write_text(self._stamp(), encoding="ascii")

    def _stamp(self) -> str:
        found = self.data.stat()
        return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
