"""service: the tiers that a cache is given by folder and address: made, opened, closed; what a restart brings back."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.disk import DiskTier
from ondol.cache.keys import canonical_key, split_key
from ondol.cache.lower import LowerTiers
from ondol.cache.ports import Invalidation, LogPosition

if TYPE_CHECKING:
    from random import Random

    from ondol.cache.core import CacheCore
    from ondol.cache.entry import Entry
    from ondol.cache.ports import SharedStore
    from ondol.cache.shared import SharedTier
    from ondol.cache.tier_options import TierOptions
    from ondol.clock import Clock
    from ondol.recorder import Recorder

__all__ = ["Tiers"]

logger = logging.getLogger("ondol.cache")

_FULL_RATIO: Final = 0.9
"""What a restart brings back fills the memory no further than this."""

_WARM_STEP: Final = 64
_WARM_PAUSE_S: Final = 0.002
_POSITION_FILE: Final = "shared-position.json"
_SETTLE_S: Final = 2.0


class Tiers:
    """The tiers below one cache, between ``open`` and ``close``. Both block: call them in a thread.

    At the end the keys most worth keeping are noted on the disk; at the next beginning a thread brings them back into
    memory. With a shared tier, what other processes invalidated meanwhile is made up for first, or, where that cannot
    be known, the disk is emptied.
    """

    def __init__(self, core: CacheCore, options: TierOptions, clock: Clock, random: Random, recorder: Recorder) -> None:
        self.options = options
        self._core = core
        self._disk: DiskTier | None = None
        self._shared: SharedTier | None = None
        if options.disk_dir is not None:
            self._disk = DiskTier(options.disk_dir, options.disk_max_bytes, clock, recorder)
        if options.is_shared:
            self._shared = _shared_tier(self._from_elsewhere, self._gap, options, clock, random, recorder)
        self._lower = LowerTiers(clock, self._disk, self._shared)
        self._lock = threading.Lock()
        self._is_open = False
        self._warming: threading.Thread | None = None
        self._is_ending = threading.Event()
        self.warmed = 0
        """Entries that the last start brought back into memory."""

    def open(self) -> None:
        """Open the tiers and put them below the memory; does nothing when open.

        Raises:
            ConfigurationError: the folder cannot be used, or a package is missing.
        """
        with self._lock:
            if self._is_open:
                return
            if self._disk is not None:
                self._disk.open()
            self._is_open = True
            self._core.attach(self._lower)
            if self._shared is not None:  # it may have something to say about what lies on the disk already
                self._shared.resume_from(self._read_position())
                self._shared.start()
                self._write_position()
            self._begin_warming()

    def close(self) -> None:
        """Note what is worth bringing back, write what waits, close the tiers; does nothing when closed."""
        with self._lock:
            if not self._is_open:
                return
            self._end_warming()
            self._core.attach(None)
            try:
                if self._shared is not None:
                    self._shared.stop()
                    self._write_position()
                if self._disk is not None:
                    self._disk.remember_hot(canonical_key(e.shelf.name, e.key) for e in self._most_worth())
            finally:
                self._is_open = False
                if self._disk is not None:
                    self._disk.close()

    def forked(self) -> None:
        """In a forked child: begin with a lock that nobody holds."""
        self._lock = threading.Lock()

    def join_warming(self, timeout_s: float) -> bool:
        """Wait until what the last run noted is back in memory; return whether it is."""
        warming = self._warming
        if warming is not None:
            warming.join(timeout_s)
        return warming is None or not warming.is_alive()

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of the tiers, and how many entries the last start brought back."""
        return self._lower.get_stats() | {"warmed": self.warmed}

    # What a restart brings back

    def _most_worth(self) -> list[Entry]:
        entries = self._core.memory.entries()
        known = [entry.cost_s for entry in entries if entry.cost_s > 0]
        usual_s = sum(known) / len(known) if known else 1.0

        def worth(entry: Entry) -> float:
            return (entry.uses + 1) * (entry.cost_s or usual_s) / max(1, entry.size_bytes)

        return sorted(entries, key=worth, reverse=True)

    def _begin_warming(self) -> None:
        if self._disk is None:
            return
        self._is_ending.clear()
        self.warmed = 0
        self._warming = threading.Thread(target=self._warm, name="ondol cache warm-up", daemon=True)
        self._warming.start()

    def _end_warming(self) -> None:
        self._is_ending.set()
        warming, self._warming = self._warming, None
        if warming is not None and warming is not threading.current_thread():
            warming.join()

    def _warm(self) -> None:
        try:
            self._bring_back()
        except Exception:
            logger.exception("cache: bringing entries back from disk failed; they are read when they are asked for")
        if self.warmed:
            logger.info("cache: %d entries of the last run are back in memory", self.warmed)

    def _bring_back(self) -> None:
        assert self._disk is not None
        memory = self._core.memory
        for position, canonical in enumerate(self._disk.hot_keys(_most_entries(memory.max_bytes)), start=1):
            if self._is_ending.is_set() or memory.used_bytes > memory.max_bytes * _FULL_RATIO:
                return
            name, key = split_key(canonical)
            if memory.peek(name, key) is None and self._core.is_enabled:
                self.warmed += self._core.computing.bring_back(self._lower, name, key)
            if position % _WARM_STEP == 0:
                self._is_ending.wait(_WARM_PAUSE_S)  # requests come first

    # What the shared tier says

    def _from_elsewhere(self, invalidation: Invalidation) -> None:
        """Drop what another process announced: from the disk first, so that nothing old is found there any more."""
        if self._disk is not None:
            self._disk.invalidate(invalidation)
        self._core.apply_from_elsewhere(invalidation)

    def _gap(self) -> None:
        """Drop all that may have been invalidated by others without our knowing."""
        if len(self._core.memory) or (self._disk is not None and self._disk.get_stats()["entries"]):
            logger.warning("cache: what others invalidated meanwhile is not known; memory and disk are emptied")
        if self._disk is not None:
            self._disk.invalidate(Invalidation("all"))
        self._core.clear(is_announced=False)

    def _read_position(self) -> LogPosition | None:
        if self._disk is None:
            return None
        path = self._disk.path / _POSITION_FILE
        try:
            epoch, offset = json.loads(path.read_text("utf-8"))
            return LogPosition(str(epoch), str(offset))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as exc:
            logger.warning("cache: %s cannot be read (%s); the disk tier is emptied", path, exc)
        self._disk.invalidate(Invalidation("all"))
        return None

    def _write_position(self) -> None:
        """Note up to where the invalidations of others are known to the disk."""
        if self._disk is None or self._shared is None or self._shared.position is None:
            return
        path = self._disk.path / _POSITION_FILE
        try:
            self._disk.flush(_SETTLE_S)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(self._shared.position), "utf-8")
            partial.replace(path)
        except OSError as exc:
            logger.warning("cache: %s cannot be written (%s); the next start empties the disk tier", path, exc)


def _most_entries(max_bytes: int) -> int:
    return max(1000, max_bytes // 512)


def _shared_tier(
    on_invalidated: Any, on_gap: Any, options: TierOptions, clock: Clock, random: Random, recorder: Recorder
) -> SharedTier:
    from ondol.cache.shared import SharedParams, SharedTier  # noqa: PLC0415  # an optional part, and slow to import

    return SharedTier(
        options.store if options.store is not None else _redis_store(options),
        clock,
        namespace=options.namespace,
        on_invalidated=on_invalidated,
        on_gap=on_gap,
        recorder=recorder,
        random=random.random,
        params=SharedParams(lease_s=options.lease_s),
    )


def _redis_store(options: TierOptions) -> SharedStore:
    from ondol.cache.adapters.redis_store import RedisStore  # noqa: PLC0415  # imports the optional client

    assert options.redis_url is not None
    return RedisStore(options.redis_url, namespace=options.namespace, timeout_s=options.timeout_s)
