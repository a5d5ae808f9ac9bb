"""adapter: entries in LMDB: read from any thread, written by one, shared by processes, bounded, healed when damaged."""

from __future__ import annotations

import contextlib
import shutil
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters.lmdb_folder import LmdbFolder
from ondol.cache.adapters.lmdb_tables import EXPIRY, TABLES, Tables, check_format
from ondol.cache.adapters.lmdb_write import LmdbWrite
from ondol.cache.disk_keys import store_key
from ondol.cache.disk_ports import StoreFailedError, StoreSize
from ondol.errors import ConfigurationError, CorruptEntryError
from ondol.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ondol.cache.disk_ports import Applied, Put, Remember
    from ondol.cache.ports import Invalidation

__all__ = ["MIN_BYTES", "LmdbStore"]

MIN_BYTES: Final = 1024 * 1024
"""Less has no room for the tables and the copies of pages that a transaction makes."""

_BESIDE_BYTES: Final = 64 * 1024
"""Of the bound, for the lock files and our mark."""
_SPARE_RATIO: Final = 8
_MAX_SPARE_BYTES: Final = 4 * 1024 * 1024
_PAGE_BYTES: Final = 4096
_MAX_READERS: Final = 512


class LmdbStore:
    """An :class:`ondol.cache.disk_ports.EntryStore` of at most ``max_bytes`` on the disk.

    Entries take less than that: LMDB writes changed pages beside the old ones, and what is kept free for it is an
    eighth of the bound, or up to 4 MiB of a small one.

    Durability: a commit has reached the disk when ``apply`` returns, but for the last one, which a power cut (not the
    end of a process) may undo. Nothing of what is there can be damaged by either.
    """

    def __init__(self, path: Path, max_bytes: int, wall: Callable[[], float]) -> None:
        self._folder = LmdbFolder(path)
        self._path = path
        self._now_s = wall
        self._map_bytes = (max_bytes - _BESIDE_BYTES) // _PAGE_BYTES * _PAGE_BYTES
        spare = max(self._map_bytes // _SPARE_RATIO, min(self._map_bytes // 2, _MAX_SPARE_BYTES))
        self.limit_bytes = self._map_bytes - spare
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """Held while a transaction writes: a fork in the middle of one would leave the child waiting for it."""
        self._lmdb: Any = None
        self._env: Any = None
        self._tables: dict[str, Any] = {}
        self._entries: Any = None
        self._identity: tuple[int, int] | None = None
        self._ailment: Exception | None = None
        self._is_wanted = False

    def open(self) -> tuple[str, ...]:
        """Open or create it; see the port.

        Raises:
            ConfigurationError: the folder cannot be used, or is in use by another tier of this process.
            MissingExtraError: lmdb is not installed.
        """
        with self._lock:
            if self._env is not None:
                return ()
            self._lmdb = import_extra("lmdb", package="lmdb", extra="disk", purpose="the cache's disk tier")
            self._folder.enter()
            try:
                notes = [*self._examined(), *self._opened()]
            except BaseException:
                self._folder.leave()
                raise
            self._folder.settle()
            self._is_wanted = True
            return tuple(notes)

    def _examined(self) -> Iterator[str]:
        """Get what cannot be used out of the way, where that can be told before it is opened."""
        fault = None
        if self._folder.home.exists():
            if not self._folder.is_ours():
                fault = "is not the folder of a disk tier"
            elif self._folder.is_alone:
                fault = self._fault()
        if fault is not None:
            yield self._cleared(fault)
        elif self._folder.is_alone and self._folder.size_bytes() > self._map_bytes:
            yield self._shrunk(self._folder.size_bytes())
        self._folder.create_home()

    def _fault(self) -> str | None:
        """Say what is wrong with a data file that nobody uses, if anything is."""
        if not self._folder.size_bytes() or self._folder.was_closed_well():
            return None
        try:
            verify = import_module("lmdb.verify")
        except ModuleNotFoundError:
            return None  # lmdb before 3
        try:
            faults = verify.verify(str(self._folder.home))
        except (verify.VerifyError, OSError) as exc:
            faults = [exc]
        return f"is damaged ({faults[0]!s:.200})" if faults else None

    def _shrunk(self, size_bytes: int) -> str:
        """Copy what is worth most of a file that is larger than the bound allows now: such a file never shrinks."""
        fault = f"has a file of {size_bytes} bytes, more than its bound allows now"
        draft = self._folder.make_draft()
        try:
            self._begin()
            self.apply((), ())
            self._env.copy(str(draft), compact=True)
            self._end()
            self._folder.clear_away()
            draft.rename(self._folder.home)
        except (StoreFailedError, OSError, self._lmdb.Error) as exc:
            self._end()
            shutil.rmtree(draft, ignore_errors=True)
            return self._cleared(f"{fault}, and cannot be copied ({exc!s:.200})")
        return f"{self._folder.home} {fault}; what is worth most of it was kept"

    def _cleared(self, fault: str) -> str:
        try:
            done = self._folder.clear_away()
        except OSError as exc:
            raise ConfigurationError(
                f"{self._folder.home} {fault} and cannot be renamed ({exc.strerror or exc}): delete it, or choose "
                "another folder for the cache's disk tier"
            ) from exc
        return f"{self._folder.home} {fault}; {done}, and an empty one takes its place"

    def _opened(self) -> Iterator[str]:
        try:
            self._begin()
        except (StoreFailedError, self._lmdb.Error) as exc:
            if "already open" in str(exc):
                raise ConfigurationError(
                    f"{self._path} is in use by another disk tier of this process: give each its own folder"
                ) from exc
            yield self._cleared(f"cannot be read ({exc!s:.200})")
            self._folder.create_home()
            self._begin_anew()

    def _begin_anew(self) -> None:
        try:
            self._begin()
        except (StoreFailedError, self._lmdb.Error) as exc:
            raise ConfigurationError(
                f"{self._path} cannot be used as the folder of the cache's disk tier ({exc}): choose another one"
            ) from exc

    def _begin(self) -> None:
        """Open the environment and its tables."""
        map_bytes = max(self._map_bytes, self._folder.size_bytes())
        env = self._lmdb.open(
            str(self._folder.home),
            map_size=map_bytes,
            max_dbs=len(TABLES),
            max_readers=_MAX_READERS,
            max_spare_txns=0,  # a spare one holds a place in the readers' table, which a forked child would give up
            metasync=False,
            mode=0o600,
        )
        try:
            env.reader_check()
            with env.begin(write=True) as txn:
                tables = {name: env.open_db(name.encode(), txn=txn) for name in TABLES}
                check_format(txn, tables)
        except BaseException:
            env.close()
            raise
        self._env, self._tables, self._entries = env, tables, tables["entries"]
        self._identity, self._ailment = self._folder.identity(), None

    def close(self) -> None:
        """Close it; does nothing when closed."""
        with self._lock:
            self._is_wanted = False
            if self._env is not None:
                self._end()
                self._folder.note_closed()
            self._folder.leave()

    def _end(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def pause(self) -> None:
        """Before a fork: wait for the reads and the transaction under way and hold up others."""
        self._writing.acquire()
        self._lock.acquire()

    def resume(self) -> None:
        """After it: let them go on."""
        self._lock.release()
        self._writing.release()

    def forget(self) -> None:
        """Let go of the parent's environment: its locks and its readers stay the parent's."""
        self._lock, self._writing, self._is_wanted = threading.Lock(), threading.Lock(), False
        self._end()
        self._folder.leave()

    def abandon(self) -> None:
        """Delete what lies here, so that nobody reads it any more; closed after it."""
        with self._lock:
            self._is_wanted = False
            with contextlib.suppress(Exception):
                self._end()
            with contextlib.suppress(OSError):
                self._folder.clear_away()
            self._folder.leave()

    def get(self, key: str) -> tuple[bytes, float] | None:
        """Return the frame, expired or not, and when it expires: infinity if never.

        Raises:
            StoreFailedError: it cannot be read.

        Cost: O(log n); about 2 µs.
        """
        raw_key = store_key(key)
        with self._lock:
            if self._env is None:
                return None
            try:
                txn = self._env.begin()
                try:
                    raw = txn.get(raw_key, None, self._entries)
                finally:
                    txn.abort()
            except Exception as exc:
                raise self._failure(exc) from exc
        return None if raw is None else (raw[8:], EXPIRY.unpack_from(raw)[0])

    def tags(self, key: str) -> tuple[bytes, ...]:
        """Return the digests of the entry's tags.

        Raises:
            StoreFailedError: they cannot be read.
        """
        with self._reading() as txn:
            return () if txn is None else Tables(txn, self._tables, 0).tags_of(store_key(key))

    def best_keys(self, limit: int) -> list[str]:
        """Return the remembered keys in their order, then those that are most worth keeping.

        Raises:
            StoreFailedError: they cannot be read.
        """
        with self._reading() as txn:
            if txn is None:
                return []
            tables = Tables(txn, self._tables, 0)
            return list(dict.fromkeys([*tables.hot_keys(limit), *tables.ranked_keys(limit)]))

    def size(self) -> StoreSize:
        """Return what lies in it.

        Raises:
            StoreFailedError: it cannot be read.
        """
        with self._reading() as txn:
            if txn is None:
                return StoreSize()
            tables = Tables(txn, self._tables, self._env.stat()["psize"])
            return StoreSize(tables.entries(), tables.used_bytes())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._lock:
            if self._env is None:
                yield None
                return
            try:
                with self._env.begin() as txn:
                    yield txn
            except Exception as exc:
                raise self._failure(exc) from exc

    def _failure(self, exc: Exception) -> StoreFailedError:
        """Return the error for the tier, and keep in mind what has to be healed."""
        lmdb = self._lmdb
        is_sound = isinstance(exc, (lmdb.MapResizedError, lmdb.PanicError, lmdb.BadRslotError))
        damages = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, CorruptEntryError)
        if is_sound or isinstance(exc, damages):
            self._ailment = exc
        return StoreFailedError(f"the disk tier in {self._path}: {type(exc).__name__}: {exc}")

    def heal(self) -> tuple[str, ...]:
        """Reopen it when another process has replaced it, or recreate it when it was found damaged.

        Raises:
            StoreFailedError: neither can be done.
        """
        is_replaced = self._folder.identity() != self._identity
        if not self._is_wanted or (self._env is not None and self._ailment is None and not is_replaced):
            return ()
        ailment, lmdb = self._ailment, self._lmdb
        is_sound = ailment is None or isinstance(ailment, (lmdb.MapResizedError, lmdb.PanicError, lmdb.BadRslotError))
        with self._lock:
            try:
                self._end()
                notes = [] if is_replaced or is_sound else [self._cleared(f"is damaged ({ailment!s:.200})")]
                self._folder.create_home()
                return (*notes, *self._opened())
            except (ConfigurationError, OSError, lmdb.Error) as exc:
                raise StoreFailedError(f"the disk tier in {self._path} cannot be opened again: {exc}") from exc

    def apply(self, operations: Sequence[Put | Invalidation | Remember], touched: Iterable[str]) -> Applied:
        """Do all of these in order and commit; refresh what was ``touched``, remove what is due, keep the bound.

        Raises:
            StoreFailedError: not all of it was done.
        """
        try:
            return LmdbWrite(self._lmdb, self._transaction, self._env, self.limit_bytes, self._now_s()).run(
                operations, touched
            )
        except Exception as exc:
            raise self._failure(exc) from exc

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Tables]:
        if self._env is None:
            raise StoreFailedError("the disk tier is closed")
        with self._writing, self._env.begin(write=True) as txn:
            tables = Tables(txn, self._tables, self._env.stat()["psize"])
            yield tables
            tables.save()
