"""service: the disk tier: frames by key that outlive the process, bounded in bytes, shared by processes."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters.lmdb_store import MIN_BYTES, LmdbStore
from ondol.cache.disk_life import DiskLife, hook_forks
from ondol.cache.disk_ports import Put
from ondol.cache.disk_writer import Complaints, WriteCounts
from ondol.cache.ports import Invalidation
from ondol.errors import ConfigurationError
from ondol.recorder import discard
from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ondol.cache.disk_ports import EntryStore
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["DiskTier"]

logger = logging.getLogger("ondol.cache")

_LARGEST_RATIO: Final = 8
"""An entry may take an eighth of the tier; larger ones leave no room to move."""
_TOUCHED_KEYS: Final = 4096
_REMEMBERED_RATIO: Final = 32
"""The remembered keys take no more than this part of the tier."""
_KEY_OVERHEAD_BYTES: Final = 32
_FLUSH_TIMEOUT_S: Final = 60.0


class DiskTier:
    """Opaque frames by canonical key in a folder, at most ``max_bytes`` on the disk, the least worth leaving first.

    Reading is immediate. Writing and invalidating only make a note, which this process sees at once; one thread writes
    the notes to the disk in order, several in one commit, and other processes see them from then on. A killed process
    loses what was not written yet, nothing else. An error of the disk is counted and logged, not raised: what cannot
    be read is a miss.

    Closed, or not opened yet, it misses everything and keeps nothing; an invalidation has no effect on it then.

    Thread-safety: every method may be called from any thread. After a fork the child opens the tier for itself when
    it first uses it.
    """

    def __init__(
        self,
        path: Path | str,
        max_bytes: int,
        clock: Clock,
        recorder: Recorder = discard,
        *,
        store: EntryStore | None = None,
    ) -> None:
        """Keep the arguments; nothing is created or opened.

        Args:
            path: the folder; created when absent, for this user only.
            max_bytes: bound of what lies in it, in bytes; at least 1 MiB.
            clock: where time comes from.
            recorder: takes ``cache.disk.used_bytes`` and ``cache.disk.entries``.
            store: what to keep the entries in, in place of LMDB in ``path``.

        Raises:
            ConfigurationError: a bound that is not a whole number of at least 1 MiB.
        """
        if type(max_bytes) is not int or max_bytes < MIN_BYTES:
            raise ConfigurationError(
                f"max_bytes={max_bytes!r} is not allowed for the disk tier: it must be an integer ≥ {MIN_BYTES}"
            )
        self.path = Path(path)
        self.max_bytes = max_bytes
        self._clock = clock
        self._record = recorder
        self._store: EntryStore = store if store is not None else LmdbStore(self.path, max_bytes, clock.wall)
        self._counts, self._complaints, self._damages = WriteCounts(), Complaints(clock), Complaints(clock)
        self._life: DiskLife | None = None
        self._is_forked = self._is_hooked = False
        self._lifecycle, self._counting = threading.Lock(), threading.Lock()
        self._touched: dict[str, None] = {}
        self._hits = self._misses = self._dropped = 0

    @property
    def is_open(self) -> bool:
        """Whether entries are kept and found."""
        return self._life is not None and not self._is_forked

    def open(self) -> None:
        """Open or create the folder and begin to write; does nothing when open. Blocks: call it in a thread.

        A database that is damaged is deleted, and one that is not ours or of another format is moved aside: an empty
        one takes its place, with a warning in the log.

        Raises:
            ConfigurationError: the folder cannot be used; the message says why and what to do.
            MissingExtraError: lmdb is not installed.

        Cost: after a crash, a second for each 100 MB to look whether the file is sound; milliseconds otherwise.
        """
        self._check_process()
        with self._lifecycle:
            if self._life is not None:
                return
            self._hook_forks()
            for note in self._store.open():
                self._counts.repairs += 1
                logger.warning("cache: %s", note)
            try:
                self._life = DiskLife(
                    self._store,
                    self.max_bytes,
                    self._clock,
                    self._counts,
                    self._complaints,
                    take_touched=self._take_touched,
                    report=self._report,
                )
            except RuntimeError:  # no thread can be started: the interpreter is ending, or there are too many
                self._store.close()
                raise
        logger.info("cache: disk tier in %s, room for %s", self.path, format_bytes(self.max_bytes))

    def close(self) -> None:
        """Write what waits, and close; does nothing when closed. Blocks: call it in a thread.

        When an invalidation cannot be written the folder is emptied: what is not to be used must not come back.
        """
        self._check_process()
        with self._lifecycle:
            life, self._life = self._life, None
            if life is None:
                return
            is_written = life.end()
            self._dropped += life.queue.dropped
            if is_written:
                self._store.close()
            else:
                self._store.abandon()
                logger.error("cache: the disk tier in %s could not be written to and was given up", self.path)

    def _hook_forks(self) -> None:
        if not self._is_hooked:
            self._is_hooked = True
            hook_forks(self._store.pause, self._store.resume, self._forked)

    def _forked(self) -> None:
        self._store.resume()
        self._is_forked = True

    def _check_process(self) -> None:
        """In a forked child: let go of the parent's threads, locks and files, and open the tier anew."""
        if not self._is_forked:
            return
        self._is_forked = False
        was_open, self._life = self._life is not None, None
        self._lifecycle, self._counting = threading.Lock(), threading.Lock()
        self._complaints, self._damages = Complaints(self._clock), Complaints(self._clock)
        self._touched = {}
        try:
            self._store.forget()
            if was_open:
                self.open()
        except Exception as exc:  # noqa: BLE001  # without the tier the child only computes more
            self._complaints.add("the disk tier cannot be opened in a forked process", exc)

    def fetch(self, key: str) -> bytes | None:
        """Return the frame that was last put under ``key``, or ``None`` when there is none any more.

        Cost: a few microseconds while the file is in the page cache; a read of the disk otherwise.
        """
        if self._is_forked:
            self._check_process()
        life = self._life
        frame = life.read(key) if life is not None else None
        with self._counting:
            if frame is None:
                self._misses += 1
            else:
                self._hits += 1
                if len(self._touched) < _TOUCHED_KEYS:
                    self._touched[key] = None
        return frame

    def peek(self, key: str) -> bytes | None:
        """Return what ``fetch`` would return, without counting it."""
        if self._is_forked:
            self._check_process()
        life = self._life
        return None if life is None else life.read(key)

    def fetch_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what ``fetch`` would return for each key."""
        return [self.fetch(key) for key in keys]

    def put(
        self,
        key: str,
        frame: bytes,
        *,
        expires_at_s: float | None = None,
        tags: Sequence[str] = (),
        cost_s: float = 0.0,
    ) -> bool:
        """Note that ``frame`` is to be kept under ``key``, in place of what is there; return at once.

        Args:
            key: the canonical key.
            frame: what is kept.
            expires_at_s: wall-clock time from which on it is a miss; ``None`` for ever.
            tags: names under which it can be invalidated.
            cost_s: what it took to compute: what is dear for its size stays longer.

        Returns:
            Whether it will be written: not when too much waits already, or it is larger than an eighth of the tier.
            What was there before is gone in either case.
        """
        self._check_process()
        life = self._life
        if life is None:
            return False
        is_wanted = len(frame) <= self.max_bytes // _LARGEST_RATIO
        return life.queue.put(Put(key, frame, expires_at_s, tuple(tags), cost_s), is_wanted=is_wanted)

    def invalidate(self, invalidation: Invalidation) -> int | None:
        """Take away what is meant, for this process at once, for others when it is written, before any later ``put``.

        Returns:
            How many of the ``keys`` there were; ``None`` for the other kinds, of which that is not known yet.

        Cost: for keys, a lookup each; otherwise O(entries that wait to be written).
        """
        self._check_process()
        life = self._life
        if life is None:
            return None
        count = None
        if invalidation.kind == "keys":
            count = sum(life.read(key) is not None for key in dict.fromkeys(invalidation.values))
        life.queue.invalidate(invalidation)
        return count

    def discard_corrupt(self, key: str) -> None:
        """Take away an entry whose frame turned out to be unreadable; its hit becomes a miss."""
        with self._counting:
            self._hits -= 1
            self._misses += 1
        self._damages.add("an entry of the disk tier was damaged or foreign and has been removed")
        self.invalidate(Invalidation("keys", (key,)))

    def flush(self, timeout_s: float = _FLUSH_TIMEOUT_S) -> bool:
        """Wait until all that was noted so far is written; return whether it is. Blocks: call it in a thread.

        Also removes entries whose time is up.
        """
        life = self._life if self.is_open else None
        return life is not None and life.queue.flush(timeout_s)

    def remember_hot(self, keys: Iterable[str]) -> None:
        """Note which keys ``hot`` is to return, best first, in place of those remembered before."""
        self._check_process()
        life = self._life
        if life is None:
            return
        kept, room = [], self.max_bytes // _REMEMBERED_RATIO
        for key in keys:
            room -= len(key) + _KEY_OVERHEAD_BYTES
            if room < 0:
                break
            kept.append(key)
        life.queue.remember(tuple(kept))

    def hot(self, limit: int) -> Iterator[tuple[str, bytes]]:
        """Yield up to ``limit`` keys with their frames, best first, without counting them as hits.

        First those that were remembered and are still there, then the ones most worth keeping: of two that cost the
        same for their size, the one written or read later.
        """
        for key in self.hot_keys(limit):
            if limit <= 0:
                return
            frame = self.peek(key)
            if frame is not None:
                limit -= 1
                yield key, frame

    def hot_keys(self, limit: int) -> Sequence[str]:
        """Return the keys that ``hot`` looks up, more than it yields: the frames of some may be over or invalidated."""
        self._check_process()
        if self._life is None:
            return ()
        try:
            return self._store.best_keys(limit)
        except Exception as exc:  # noqa: BLE001  # what cannot be read is a miss
            self._complaints.add("reading from the disk tier failed", exc)
            return ()

    def _take_touched(self) -> Iterable[str]:
        with self._counting:
            touched, self._touched = self._touched, {}
        return touched

    def get_stats(self) -> dict[str, Any]:
        """Return the tier's figures as plain values.

        ``hits``, ``misses``, ``entries``, ``used_bytes`` (of the pages in use), ``max_bytes``, ``writes``, ``queued``,
        ``dropped_writes``, ``corrupt``, ``evictions`` (``expired``, ``size``), ``failures`` of the disk, ``repairs``
        (databases that were deleted or moved aside), ``is_open``.
        """
        life, size, counts = self._life if self.is_open else None, None, self._counts
        try:
            size = self._store.size() if life is not None else None
        except Exception as exc:  # noqa: BLE001  # figures are never worth an error
            self._complaints.add("reading from the disk tier failed", exc)
        waiting_dropped = life.queue.dropped if life is not None else 0
        return {
            "hits": self._hits,
            "misses": self._misses,
            "entries": size.entries if size is not None else 0,
            "used_bytes": size.used_bytes if size is not None else 0,
            "max_bytes": self.max_bytes,
            "writes": counts.writes,
            "queued": life.queue.entries if life is not None else 0,
            "dropped_writes": self._dropped + waiting_dropped + counts.failed_puts,
            "corrupt": self._damages.count,
            "evictions": {"expired": counts.expired, "size": counts.size},
            "failures": self._complaints.count,
            "repairs": counts.repairs,
            "is_open": life is not None,
        }

    def _report(self) -> None:
        size = self._store.size()
        self._record("cache.disk.used_bytes", size.used_bytes, "bytes")
        self._record("cache.disk.entries", size.entries, "entries")
