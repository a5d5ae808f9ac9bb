"""adapter: the tables of the disk tier within one LMDB transaction: entries and the lists that lead to them.

========  ==================================================  ==============================
table     key                                                 value
========  ==================================================  ==============================
entries   the canonical key, or its beginning and a digest    time of expiry (8 bytes), frame
records   the same                                            :class:`ondol.cache.disk_records.Record`
ranks     rank and turn                                       key of the entry
expiries  time of expiry and birth                            key of the entry
tags      digest of the tag and birth                         key of the entry
hot       place                                               canonical key
state     ``format``, ``state``                               1; level and number of writes
========  ==================================================  ==============================
"""

from __future__ import annotations

from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.disk_keys import glob_prefix, is_cut, key_of, store_key, tag_digest
from ondol.cache.disk_ports import Put, Remember, StoreFailedError
from ondol.cache.disk_records import (
    NO_EXPIRY,
    Record,
    expiry_key,
    order_key,
    pack_record,
    unpack_record,
    weight_of,
)
from ondol.cache.glob import Glob
from ondol.cache.keys import key_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ondol.cache.ports import Invalidation

__all__ = ["EXPIRY", "TABLES", "Tables", "check_format"]

TABLES: Final = ("entries", "records", "ranks", "expiries", "tags", "hot", "state")
_FORMAT: Final = b"1"
EXPIRY: Final = Struct("<d")
_STATE: Final = Struct("<QQ")
_PLACE: Final = Struct(">I")
_REMOVALS_PER_STEP: Final = 256
"""Entries that one transaction removes for an invalidation at most; it goes on in the next. More would need much room:
each removal writes new copies of a handful of pages."""
_EVICTIONS_PER_LOOK: Final = 8


def check_format(txn: Any, tables: Mapping[str, Any]) -> None:
    """Write the format into a new database, and look whether it is ours in one that is there.

    Raises:
        StoreFailedError: it is not.
    """
    found = txn.get(b"format", db=tables["state"])
    if found is None and not txn.stat(tables["entries"])["entries"]:
        txn.put(b"format", _FORMAT, db=tables["state"])
    elif found != _FORMAT:
        raise StoreFailedError(f"its format is {found!r}, this ondol reads {_FORMAT!r}")


class Tables:
    """What can be done within one transaction. Raises LMDB's own errors."""

    def __init__(self, txn: Any, tables: Mapping[str, Any], page_bytes: int) -> None:
        self._txn = txn
        self._tables = tables
        self._page_bytes = page_bytes
        self._entries, self._records = tables["entries"], tables["records"]
        self._ranks, self._expiries, self._tags = tables["ranks"], tables["expiries"], tables["tags"]
        state = txn.get(b"state", db=tables["state"])
        self._level, self._number = self._saved = _STATE.unpack(state) if state is not None else (0, 0)
        self.expired = 0
        self.evicted = 0

    def save(self) -> None:
        """Write the level and the number of writes if they changed; the last thing before a commit."""
        if (self._level, self._number) != self._saved:
            self._txn.put(b"state", _STATE.pack(self._level, self._number), db=self._tables["state"])

    def mark(self) -> None:
        """Change something, so that there is something to commit."""
        self._number += 1

    def perform(self, operation: Put | Invalidation | Remember, resume: bytes = b"") -> bytes | None:
        """Carry out one operation; return where to resume an invalidation that has more to remove, else ``None``."""
        if isinstance(operation, Put):
            self.put(operation)
        elif isinstance(operation, Remember):
            self._remember(operation.keys)
        elif operation.kind == "all":
            self.drop_all()
        elif operation.kind == "keys":
            for key in operation.values:
                self.remove(store_key(key))
        else:
            return self._invalidate(operation, resume)
        return None

    def put(self, put: Put) -> None:
        """Write an entry in place of what is there."""
        key = store_key(put.key)
        self.remove(key)
        self._number += 1
        birth, expires_at_s = self._number, NO_EXPIRY if put.expires_at_s is None else put.expires_at_s
        weight = weight_of(put.cost_s, len(put.frame) + len(key))
        whole = put.key.encode("utf-8", "surrogatepass") if is_cut(key) else b""
        tags = tuple({tag_digest(tag) for tag in put.tags})
        record = Record(0, birth, birth, expires_at_s, weight, tags, whole).used(self._level, birth)
        txn = self._txn
        txn.put(key, EXPIRY.pack(expires_at_s) + put.frame, db=self._entries)
        txn.put(key, pack_record(record), db=self._records)
        txn.put(order_key(record.rank, record.turn), key, db=self._ranks)
        if expires_at_s != NO_EXPIRY:
            txn.put(expiry_key(expires_at_s, birth), key, db=self._expiries)
        for tag in tags:
            txn.put(tag + order_key(birth, 0), key, db=self._tags)

    def remove(self, key: bytes) -> bool:
        """Remove an entry and all that leads to it; return whether there was one."""
        txn = self._txn
        raw = txn.pop(key, db=self._records)
        if raw is None:
            return False
        record = unpack_record(raw)
        txn.delete(key, db=self._entries)
        txn.delete(order_key(record.rank, record.turn), db=self._ranks)
        if record.expires_at_s != NO_EXPIRY:
            txn.delete(expiry_key(record.expires_at_s, record.birth), db=self._expiries)
        for tag in record.tags:
            txn.delete(tag + order_key(record.birth, 0), db=self._tags)
        return True

    def touch(self, keys: Iterable[str]) -> None:
        """Raise entries that were read to the rank of a new one."""
        txn = self._txn
        for key in map(store_key, keys):
            raw = txn.get(key, db=self._records)
            if raw is None:
                continue
            record = unpack_record(raw)
            self._number += 1
            used = record.used(self._level, self._number)
            txn.delete(order_key(record.rank, record.turn), db=self._ranks)
            txn.put(order_key(used.rank, used.turn), key, db=self._ranks)
            txn.put(key, pack_record(used), db=self._records)

    def _invalidate(self, invalidation: Invalidation, resume: bytes) -> bytes | None:
        (value,) = invalidation.values
        found = self._tagged(value) if invalidation.kind == "tag" else self._matching(value, resume)
        doomed = list(islice(found, _REMOVALS_PER_STEP))
        removed = sum([self.remove(key) for key in doomed])
        return doomed[-1] if removed == _REMOVALS_PER_STEP else None

    def drop_all(self) -> None:
        """Remove everything."""
        for name in TABLES:
            if name != "state":
                self._txn.drop(self._tables[name], delete=False)

    def _tagged(self, tag: str) -> Iterator[bytes]:
        digest = tag_digest(tag)
        with self._txn.cursor(db=self._tags) as cursor:
            is_there = cursor.set_range(digest)
            while is_there and cursor.key().startswith(digest):
                yield cursor.value()
                is_there = cursor.next()

    def _matching(self, pattern: str, resume: bytes) -> Iterator[bytes]:
        glob = Glob(pattern)
        prefix = glob_prefix(glob)
        with self._txn.cursor(db=self._records) as cursor:
            is_there = cursor.set_range(max(prefix, resume)) if prefix or resume else cursor.first()
            while is_there and (key := cursor.key()).startswith(prefix):
                if glob.matches(key_text(_canonical(key, cursor))):
                    yield key
                is_there = cursor.next()

    def expire(self, now_s: float, limit: int) -> int:
        """Remove entries whose time is up, at most ``limit``; return how many."""
        end, count = expiry_key(now_s, (1 << 64) - 1), 0
        with self._txn.cursor(db=self._expiries) as cursor:
            due: list[tuple[bytes, bytes]] = []
            is_there = cursor.first()
            while is_there and cursor.key() <= end and len(due) < limit:
                due.append(cursor.item())
                is_there = cursor.next()
        for moment, key in due:
            if self.remove(key):
                count += 1
            else:
                self._txn.delete(moment, db=self._expiries)
        self.expired += count
        return count

    def evict(self, max_bytes: int, limit: int) -> bool:
        """Remove the entries worth least until all take ``max_bytes``, at most ``limit``; return whether they do."""
        for count in range(limit):
            if count % _EVICTIONS_PER_LOOK == 0 and self.used_bytes() <= max_bytes:
                return True
            if not self._evict_one():
                return True
        return self.used_bytes() <= max_bytes

    def _evict_one(self) -> bool:
        with self._txn.cursor(db=self._ranks) as cursor:
            if not cursor.first():
                return False
            order, key = cursor.item()
        self._level = max(self._level, int.from_bytes(order[:8], "big"))
        if not self.remove(key):
            self._txn.delete(order, db=self._ranks)
        self.evicted += 1
        return True

    def used_bytes(self) -> int:
        """Return the bytes of all pages in use."""
        pages = 0
        for table in self._tables.values():
            stat = self._txn.stat(table)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * self._page_bytes)

    def entries(self) -> int:
        """Return the number of entries."""
        return int(self._txn.stat(self._entries)["entries"])

    def tags_of(self, key: bytes) -> tuple[bytes, ...]:
        """Return the digests of an entry's tags."""
        raw = self._txn.get(key, db=self._records)
        return () if raw is None else unpack_record(raw).tags

    def _remember(self, keys: Iterable[str]) -> None:
        table = self._tables["hot"]
        self._txn.drop(table, delete=False)
        for place, key in enumerate(keys):
            self._txn.put(_PLACE.pack(place), key.encode("utf-8", "surrogatepass"), db=table, append=True)

    def hot_keys(self, limit: int) -> list[str]:
        """Return the remembered keys that are there, best first."""
        with self._txn.cursor(db=self._tables["hot"]) as cursor, self._txn.cursor(db=self._records) as records:
            keys = (str(value, "utf-8", "surrogatepass") for _, value in cursor)
            return list(islice((key for key in keys if records.set_key(store_key(key))), limit))

    def ranked_keys(self, limit: int) -> list[str]:
        """Return the keys of the entries most worth keeping, best first."""
        with self._txn.cursor(db=self._ranks) as cursor:
            found = list(islice(cursor.iterprev(keys=False), limit))
        with self._txn.cursor(db=self._records) as cursor:
            return [_canonical(key, cursor) for key in found if cursor.set_key(key)]


def _canonical(key: bytes, cursor: Any) -> str:
    """Return the canonical key of the record at which ``cursor`` stands."""
    return key_of(unpack_record(cursor.value()).key if is_cut(key) else key)
